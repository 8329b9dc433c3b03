"""The description of the interface is true: requests made from it, good and bad, find no 500."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.control import SkipTest
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from secondglance.library import Library
from secondglance.server.options import ServerOptions
from tests.served import served

EXAMPLES = 15
"""Requests of each operation and mode."""
CHECKS = [
    not_a_server_error,
    content_type_conformance,
    status_code_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def url(library: Library) -> Iterator[str]:
    with served(library, ServerOptions(max_body_mb=1)) as found:
        yield found


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_request_of_the_schema_finds_a_fault(url: str, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    schema.config.generation.update(modes=[mode])
    tried = 0
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        strategy = result.ok().as_strategy(generation_mode=mode)

        @given(case=strategy)
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def ask(case: Any) -> None:
            nonlocal tried
            tried += 1
            case.call_and_validate(checks=CHECKS, timeout=60)

        with contextlib.suppress(SkipTest):  # nothing of it can be wrong
            ask()
    assert tried > EXAMPLES
