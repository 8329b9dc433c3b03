"""The public link: only with keys, through a stand-in for Gradio."""

from __future__ import annotations

import sys
import types
from typing import Any

import httpx
import pytest

from secondglance.errors import InputError
from secondglance.library import Library
from secondglance.server import run as running
from secondglance.server.options import ServerOptions
from secondglance.server.share import host_of, public_link

LINK = "https://a1b2c3.gradio.live"
KEY = "correct-horse-battery"


def gradio(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[dict[str, Any]]:
    """Puts a module in Gradio's place that has `setup_tunnel` of Gradio 6."""
    asked: list[dict[str, Any]] = []

    def setup_tunnel(
        local_host: str,
        local_port: int,
        share_token: str,
        share_server_address: str | None,
        share_server_tls_certificate: str | None,
    ) -> Any:
        print("start proxy success")
        asked.append({"host": local_host, "port": local_port, "token": share_token})
        assert share_server_address is None
        assert share_server_tls_certificate is None
        if isinstance(answer, Exception):
            raise answer
        return answer

    package, networking = types.ModuleType("gradio"), types.ModuleType("gradio.networking")
    networking.setup_tunnel = setup_tunnel  # type: ignore[attr-defined]
    package.networking = networking  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gradio", package)
    monkeypatch.setitem(sys.modules, "gradio.networking", networking)
    return asked


def test_a_link_leads_to_the_port(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = gradio(monkeypatch, LINK)
    assert public_link(7861) == LINK + "/"
    public_link(7861)
    assert [(each["host"], each["port"]) for each in asked] == [("127.0.0.1", 7861)] * 2
    assert asked[0]["token"] != asked[1]["token"]
    assert len(asked[0]["token"]) >= 32
    assert "".join(capsys.readouterr()) == ""
    assert host_of(LINK + "/") == "a1b2c3.gradio.live"


@pytest.mark.parametrize(
    "answer",
    [
        RuntimeError("Could not get share link from /home/somebody"),
        OSError("x"),
        None,
        "",
        "http://a.example",
        "https://a.example/ and more",
        "https://a.example@evil",
    ],
)
def test_a_tunnel_that_fails_is_said(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    gradio(monkeypatch, answer)
    with pytest.raises(InputError, match="there is no public link") as error:
        public_link(7861)
    assert "somebody" not in str(error.value)


def test_without_gradio_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(InputError, match=r"secondglance\[share\]"):
        public_link(7861)


def test_the_server_answers_to_the_name_of_its_link(
    empty: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asks in the moment when the server would begin to wait."""
    asked = gradio(monkeypatch, LINK)
    monkeypatch.setattr("secondglance.server.observe.set_up_log", lambda _: None)
    statuses: list[int] = []

    def run_once(self: Any, sockets: list[Any]) -> None:
        import asyncio

        async def ask() -> None:
            transport = httpx.ASGITransport(app=self.config.app)
            async with httpx.AsyncClient(transport=transport, base_url=LINK) as http:
                statuses.append((await http.get("/healthz")).status_code)
                statuses.append((await http.get("/metrics")).status_code)
                evil = {"Host": "evil.gradio.live"}
                statuses.append((await http.get("/healthz", headers=evil)).status_code)

        asyncio.run(ask())

    monkeypatch.setattr("uvicorn.Server.run", run_once)
    said: list[str] = []
    options = ServerOptions(port=0, share=True, api_keys=(KEY,))
    running.run(empty, options, on_start=said.append)
    assert said[1] == LINK + "/"
    assert said[0] == f"http://127.0.0.1:{asked[0]['port']}/"
    assert statuses == [200, 401, 421]


def test_no_server_starts_without_its_link(empty: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    gradio(monkeypatch, OSError("no network"))
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: pytest.fail("it ran"))
    with pytest.raises(InputError, match="no public link"):
        running.run(empty, ServerOptions(port=0, share=True, api_keys=(KEY,)))
