"""`secondglance serve` as an operator runs it: addresses, options, mistakes, the end."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import fields
from inspect import signature
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from secondglance.cli.app import app
from secondglance.cli.serve import serve
from secondglance.errors import InputError, SecondGlanceError
from secondglance.server.options import ServerOptions
from tests.libraries import Open


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, untrained_clip: Path, untrained_reranker: Path
) -> Path:
    """A library without files."""
    opener = Open(tmp_path_factory.mktemp("serve"), untrained_clip, untrained_reranker)
    opener()
    opener.close()
    return opener.folder


def fails(*arguments: str | Path) -> SecondGlanceError:
    done = CliRunner().invoke(app, ["serve", *map(str, arguments)])
    assert isinstance(done.exception, SecondGlanceError), done.output
    return done.exception


def test_every_option_of_the_server_has_a_flag() -> None:
    flags = set(signature(serve).parameters)
    named = {
        "api_keys": "api_key_file",
        "names": "name",
        "index_roots": "index_root",
        "url_hosts": "url_host",
        "cors_origins": "cors_origin",
    }
    options = {named.get(field.name, field.name) for field in fields(ServerOptions)}
    assert options - flags == set()


def test_defaults_are_those_of_the_server() -> None:
    defaults = ServerOptions()
    for name, parameter in signature(serve).parameters.items():
        if isinstance(parameter.default, int | float | str):
            expected = False if name == "open_browser" else getattr(defaults, name)
            assert parameter.default == expected, name


def test_a_port_in_use_says_which_and_what_to_do(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = fails("--library", folder, "--port", str(port))
    assert f"port {port}: another program uses it" in error.problem
    assert "--port" in str(error.remedy)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--host", "0.0.0.0"), "there is no API key"),
        (("--host", "not a host"), "there is no API key"),
        (("--host", "not.a.host.invalid", "--open-to-all"), "cannot listen on not.a.host"),
        (("--index-root", "/no/such/folder"), "--index-root /no/such/folder is not a folder"),
        (("--reports", "/no/such/folder"), "--reports /no/such/folder is not a folder"),
    ],
)
def test_mistakes_are_named(
    folder: Path, arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SECONDGLANCE_API_KEYS", raising=False)
    error = fails("--library", folder, "--port", "0", *arguments)
    assert isinstance(error, InputError)
    assert said in error.problem
    assert error.remedy


def test_a_folder_without_a_library_is_refused(tmp_path: Path) -> None:
    error = fails("--library", tmp_path / "none")
    assert "there is no library" in error.problem


@pytest.mark.parametrize(
    "arguments", [("--port", "70000"), ("--log-format", "xml"), ("--queue", "-1")]
)
def test_what_is_out_of_range_is_a_usage_error(folder: Path, arguments: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, ["serve", "--library", str(folder), *arguments])
    assert done.exit_code == 2


def test_it_serves_until_it_is_told_to_stop(folder: Path) -> None:
    """The address is on one line, reports of the library are found, and Ctrl-C is exit code 130."""
    report = folder / "reports" / "spring"
    report.mkdir(parents=True)
    (report / "report.html").write_text("<p>")
    command = [sys.executable, "-m", "secondglance", "serve", "--library", str(folder)]
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "40", "HF_HUB_OFFLINE": "1"}
    environment.pop("SECONDGLANCE_API_KEYS", None)
    with subprocess.Popen(
        [*command, "--port", "0"], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.fullmatch(rf"serving {re.escape(str(folder))} at (http://\S+/) - .*\n", line)
        assert found, line
        ends = time.monotonic() + 120
        with httpx.Client(base_url=found[1], timeout=60) as http:
            while http.get("/readyz").status_code != 200:
                assert time.monotonic() < ends
            assert [each["name"] for each in http.get("/v1/reports").json()] == ["spring"]
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert "Traceback" not in rest
