"""docs/filters.md tells of every field."""

from __future__ import annotations

import re
from pathlib import Path

from secondglance.retrieve.fields import ABOUT
from secondglance.retrieve.filters import parse_filter

PAGE = (Path(__file__).parents[2] / "docs" / "filters.md").read_text()


def test_every_field_is_in_the_table_and_nothing_else() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*) \|$", PAGE, re.MULTILINE)
    assert rows == [(name, field.type, field.about) for name, field in ABOUT.items()]


def test_the_examples_are_filters() -> None:
    examples = re.findall(r"--filter '([^']+)'", PAGE)
    examples += re.findall(
        r"`((?:not )?(?:camera|lat|width|tags|near|path|format)[ (][^`]*)`", PAGE
    )
    assert len(examples) > 9
    for example in examples:
        parse_filter(example)
