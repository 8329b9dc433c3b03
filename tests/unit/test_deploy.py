"""The container's files and the guide say what is so."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from secondglance.server import keys, middleware
from secondglance.server.options import MIN_KEY_CHARS, ServerOptions

ROOT = Path(__file__).parents[2]
# Of `serve` itself, or repeated options whose field is a plural.
OTHER_FLAGS = {"api_key_file", "library", "preset", "rm", "detach", "profile", "set"}
PLURALS = {"name": "names", "cors_origin": "cors_origins"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
    return found


def test_the_server_in_the_container_has_no_rights_it_does_not_need(
    compose: dict[str, Any],
) -> None:
    server = compose["services"]["server"]
    assert server["read_only"] is True
    assert server["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in server["security_opt"]
    (media,) = [volume for volume in server["volumes"] if isinstance(volume, dict)]
    assert media["read_only"] is True
    assert all(port.startswith("127.0.0.1:") for port in server["ports"])
    for service in compose["services"].values():
        assert "privileged" not in service
        assert service.get("network_mode") != "host"
    assert compose["services"]["milvus"]["profiles"] == ["milvus"]


def test_keys_come_as_a_secret(compose: dict[str, Any]) -> None:
    server = compose["services"]["server"]
    assert server["secrets"] == ["keys"]
    command = server["command"]
    assert command[command.index("--api-key-file") + 1] == "/run/secrets/keys"
    assert "SECONDGLANCE_API_KEYS" not in json.dumps(server)


def test_the_container_stops_later_than_the_server(compose: dict[str, Any]) -> None:
    grace_s = int(compose["services"]["server"]["stop_grace_period"].rstrip("s"))
    assert grace_s > ServerOptions().shutdown_s + 10


def test_uploads_have_room(compose: dict[str, Any]) -> None:
    (place,) = compose["services"]["server"]["tmpfs"]
    size_mb = int(re.search(r"size=(\d+)m", place)[1])  # type: ignore[index]
    assert size_mb > ServerOptions().max_uploads_mb


def test_the_image_runs_as_nobody_special() -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    users = re.findall(r"^USER (\S+)$", text, re.MULTILINE)
    assert users[-1] == "10001"
    assert text.index("USER 10001") < text.index("ENTRYPOINT")
    assert "HEALTHCHECK" in text
    assert "/healthz" in text
    assert "API_KEYS=" not in text


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml", "docs/deploy.md"])
def test_flags_are_options_of_the_server(name: str) -> None:
    fields = {field.name for field in dataclasses.fields(ServerOptions)}
    flags = set(re.findall(r"(?<![\w-])--([a-z][a-z-]+)", (ROOT / name).read_text("utf-8")))
    if name == "Dockerfile":
        flags -= {"from", "uid", "no-create-home", "shell", "interval", "timeout", "start-period"}
        flags -= {"yes", "no-install-recommends", "no-cache-dir", "constraint"}
    plain = {flag.replace("-", "_") for flag in flags} - OTHER_FLAGS
    assert {PLURALS.get(flag, flag) for flag in plain} <= fields
    assert plain


def test_the_guide_has_the_limits_that_hold() -> None:
    text = (ROOT / "docs/deploy.md").read_text("utf-8")
    options = ServerOptions()
    for said in (
        f"{options.max_body_mb:g} MB, else 413",
        f"| {options.max_upload_mb:g} MB |",
        f"{options.queue}, else 429",
        f"{options.timeout_s:g} s, else 503",
        f"{options.max_documents}, else 413",
        f"{middleware.MAX_URL_BYTES // 1024} KiB, {middleware.MAX_HEADERS} of "
        f"{middleware.MAX_HEADER_BYTES // 1024} KiB",
        f"{keys.WRONG_KEYS} a minute",
        f"{keys.MAX_SESSIONS} of {keys.SESSION_S / 3600:g} hours",
        f"at least {MIN_KEY_CHARS} characters",
    ):
        assert said in text, said


def test_every_metric_of_the_guide_exists() -> None:
    from secondglance.server.metrics import Metrics

    there = Metrics().text().decode()
    text = (ROOT / "docs/deploy.md").read_text("utf-8")
    named = set(re.findall(r"`(secondglance_\w+)", text))
    collected = {"secondglance_model_loaded", "secondglance_gpu_memory_bytes"}
    assert len(named) > 10
    for name in named - collected:
        assert f"# TYPE {name} " in there, name
