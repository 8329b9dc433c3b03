"""What a library keeps of its settings."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import SecretStr

from secondglance.pipelines.stamp import stamped_store
from secondglance.sections import StoreSettings


def test_a_stores_settings_are_json_without_secrets_or_waits() -> None:
    settings = StoreSettings(
        uri="https://milvus:19530", token=SecretStr("a secret"), tls_ca=Path("ca.pem"), retry_s=7
    )
    kept = stamped_store(settings)
    assert "a secret" not in json.dumps(kept)
    assert not {"token", "timeout_s", "retry_s"} & kept.keys()
    assert StoreSettings(**kept).tls_ca == Path("ca.pem")
