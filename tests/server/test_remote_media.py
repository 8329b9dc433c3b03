"""Fetching from listed hosts: and never from anywhere else, whatever names and redirects say."""

from __future__ import annotations

import contextlib
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpcore
import pytest

from secondglance.errors import InputError, MediaError, StoppedError
from secondglance.rerank.stopping import stoppable
from secondglance.server.remote_media import RemoteMedia, is_public

PUBLIC = "93.184.215.14"
Answer = Callable[[BaseHTTPRequestHandler], None]


class Site(httpcore.SyncBackend):
    """A web server of this machine that stands for all hosts; knows who was connected to."""

    def __init__(self) -> None:
        self.pages: dict[str, Answer] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.dialled: list[tuple[str, int]] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def _handler(site) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append((self.path, dict(self.headers.items())))
                with contextlib.suppress(OSError):
                    site.pages[self.path.partition("?")[0]](self)

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        self.dialled.append((host, port))
        return super().connect_tcp("127.0.0.1", self.server.server_address[1], timeout)


@pytest.fixture
def site() -> Iterator[Site]:
    found = Site()
    yield found
    found.server.shutdown()
    found.server.server_close()


def remote(
    site: Site,
    *hosts: str,
    names: dict[str, Sequence[str]] | None = None,
    max_bytes: int = 10_000,
    total_s: float = 10.0,
    ssl_context: ssl.SSLContext | None = None,
) -> RemoteMedia:
    known = {"media.example": [PUBLIC], "other.example": [PUBLIC]} | dict(names or {})
    return RemoteMedia(
        hosts or ("http://media.example",),
        max_bytes=max_bytes,
        total_s=total_s,
        resolve=lambda host, port: known.get(host, []),
        network=site,
        ssl_context=ssl_context,
    )


def page(body: bytes, status: int = 200, **headers: str) -> Answer:
    def answer(to: BaseHTTPRequestHandler) -> None:
        to.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            to.send_header(name.replace("_", "-"), value)
        to.end_headers()
        to.wfile.write(body)

    return answer


def moved(where: str, status: int = 302) -> Answer:
    return page(b"", status, Location=where)


def test_a_file_of_a_listed_host(site: Site, tmp_path: Path) -> None:
    site.pages["/a.png"] = page(b"picture", Set_Cookie="id=1")
    remote(site).fetch("http://media.example/a.png?size=1#part", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"picture"
    assert site.dialled == [(PUBLIC, 80)]
    path, headers = site.asked[0]
    assert path == "/a.png?size=1"
    assert headers["Host"] == "media.example"
    assert headers["Accept-Encoding"] == "identity"
    assert not {"Cookie", "Authorization", "Referer"} & set(headers)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://other.example/a", "not allowed"),
        ("https://media.example.evil.org/a", "not allowed"),
        ("https://evil.org/media.example", "not allowed"),
        ("https://media.example@evil.org/a", "user name"),
        ("https://user:secret@media.example/a", "user name"),
        ("https://evil.org\\@media.example/a", "escaped"),
        ("https://evil.org#@media.example/a", "not allowed"),
        ("https://media.example:8443/a", "port"),
        ("https://media.example:22/a", "port"),
        ("https://media.example:99999/a", "understood"),
        ("http://127.0.0.1/a", "not allowed"),
        ("http://2130706433/a", "not allowed"),
        ("http://0x7f.1/a", "not allowed"),
        ("http://[::1]/a", "not allowed"),
        ("http://[::ffff:10.0.0.1]/a", "not allowed"),
        ("http://169.254.169.254/latest/meta-data/", "not allowed"),
        ("http://localhost/a", "not allowed"),
        ("file:///etc/passwd", "'file'"),
        ("ftp://media.example/a", "'ftp'"),
        ("https://media.example/a b", "escaped"),
        ("https://media.example/a\r\nX-Header: 1", "escaped"),
        ("https://médiа.example/a", "escaped"),
        ("https:///a", "not allowed"),
        ("https://[::1/a", "understood"),
        ("https://media.example/" + "a" * 3000, "characters"),
    ],
)
def test_addresses_that_are_refused(site: Site, tmp_path: Path, url: str, said: str) -> None:
    fetching = remote(site, "http://media.example")
    with pytest.raises(MediaError, match=said) as caught:
        fetching.fetch(url, tmp_path / "x")
    assert "secret" not in str(caught.value)
    assert site.dialled == []


def test_without_encryption_only_where_that_is_listed(site: Site, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="not allowed for http addresses"):
        remote(site, "media.example").fetch("http://media.example/a", tmp_path / "x")
    assert site.dialled == []


def test_nothing_is_fetched_unless_listed(site: Site, tmp_path: Path) -> None:
    fetching = RemoteMedia((), max_bytes=10, resolve=lambda *_: [PUBLIC], network=site)
    with pytest.raises(MediaError, match="not allowed"):
        fetching.fetch("https://media.example/a", tmp_path / "x")
    assert site.dialled == []


PRIVATE = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "192.0.0.192", "198.18.0.1", "203.0.113.1", "224.0.0.1",
    "240.0.0.1", "255.255.255.255", "168.63.129.16", "::", "::1", "fe80::1", "fc00::1",
    "fd00:ec2::254", "ff02::1", "ff0e::1", "fec0::1", "::ffff:10.0.0.1", "::ffff:8.8.8.8",
    "::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::", "2001::1", "2001:db8::1", "not an address",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_a_name_with_an_address_inside(site: Site, tmp_path: Path, address: str) -> None:
    """Also if only one of several is: which one a client takes is up to chance."""
    assert not is_public(address)
    for addresses in ([address], [PUBLIC, address]):
        fetching = remote(site, names={"media.example": addresses})
        with pytest.raises(MediaError, match="not public") as caught:
            fetching.fetch("http://media.example/a", tmp_path / "x")
        assert address not in str(caught.value)
    assert site.dialled == []


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "2606:4700::1111"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


def test_a_name_that_changes_its_address(site: Site, tmp_path: Path) -> None:
    """It is resolved once, and the connection goes to what was looked at."""
    site.pages["/a"] = page(b"picture")
    answers = iter([[PUBLIC], ["127.0.0.1"], ["127.0.0.1"]])
    asked: list[str] = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return next(answers)

    fetching = RemoteMedia(
        ("http://media.example",), max_bytes=100, resolve=rebinding, network=site
    )
    fetching.fetch("http://media.example/a", tmp_path / "x")
    assert asked == ["media.example"]
    assert site.dialled == [(PUBLIC, 80)]
    site.pages["/b"] = moved("/a")
    answers = iter([[PUBLIC], ["127.0.0.1"]])
    with pytest.raises(MediaError, match="not public"):
        fetching.fetch("http://media.example/b", tmp_path / "x")
    assert site.dialled == [(PUBLIC, 80)] * 2


@pytest.mark.parametrize(
    "where",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1/a",
        "http://[::ffff:10.0.0.1]/a",
        "http://2130706433/a",
        "//127.0.0.1/a",
        "http://inside.example/a",
        "http://media.example:8080/a",
        "http://user@media.example/a",
        "file:///etc/passwd",
        "gopher://media.example/a",
        "https://unlisted.example/a",
    ],
)
def test_redirects_that_are_refused(site: Site, tmp_path: Path, where: str) -> None:
    site.pages["/a"] = moved(where)
    fetching = remote(
        site,
        "http://media.example",
        "http://inside.example",
        names={"inside.example": ["10.0.0.1"]},
    )
    with pytest.raises(MediaError):
        fetching.fetch("http://media.example/a", tmp_path / "x")
    assert site.dialled == [(PUBLIC, 80)]
    assert len(site.asked) == 1


def test_redirects_are_followed_a_few_times(site: Site, tmp_path: Path) -> None:
    site.pages["/0"] = moved("/1", 301)
    site.pages["/1"] = moved("http://other.example/2", 307)
    site.pages["/2"] = moved("3", 308)
    site.pages["/3"] = page(b"picture")
    fetching = remote(site, "http://media.example", "http://other.example")
    fetching.fetch("http://media.example/0", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"picture"
    site.pages["/3"] = moved("/4")
    site.pages["/4"] = page(b"picture")
    with pytest.raises(MediaError, match="more than 3 times"):
        fetching.fetch("http://media.example/0", tmp_path / "x")


def test_too_many_bytes(site: Site, tmp_path: Path) -> None:
    def endless(to: BaseHTTPRequestHandler) -> None:
        to.send_response(200)
        to.end_headers()
        for _ in range(2000):
            to.wfile.write(bytes(10_000))

    site.pages["/announced"] = page(bytes(10_001))
    site.pages["/endless"] = endless
    for path in ("/announced", "/endless"):
        with pytest.raises(MediaError, match="over the limit"):
            remote(site).fetch(f"http://media.example{path}", tmp_path / "x")
    assert (tmp_path / "x").stat().st_size <= 10_000


def test_an_answer_that_is_compressed(site: Site, tmp_path: Path) -> None:
    import gzip

    site.pages["/a"] = page(gzip.compress(bytes(9_000_000)), Content_Encoding="gzip")
    with pytest.raises(MediaError, match="compresses"):
        remote(site).fetch("http://media.example/a", tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("answer", "said"),
    [(page(b"", 404), "answers 404"), (page(b"x", 206), "answers 206"), (page(b"", 304), "304")],
)
def test_other_answers(site: Site, tmp_path: Path, answer: Answer, said: str) -> None:
    site.pages["/a"] = answer
    with pytest.raises(MediaError, match=said):
        remote(site).fetch("http://media.example/a", tmp_path / "x")


@pytest.mark.parametrize("in_body", [False, True])
def test_a_host_that_gives_a_byte_now_and_then(site: Site, tmp_path: Path, in_body: bool) -> None:
    def dripping(to: BaseHTTPRequestHandler) -> None:
        if in_body:
            to.send_response(200)
            to.end_headers()
        for _ in range(300):
            to.wfile.write(b"x")
            time.sleep(0.05)

    site.pages["/a"] = dripping
    began = time.monotonic()
    with pytest.raises(MediaError, match="too long"):
        remote(site, total_s=0.5).fetch("http://media.example/a", tmp_path / "x")
    assert time.monotonic() - began < 5


def test_a_name_server_that_does_not_answer(site: Site, tmp_path: Path) -> None:
    waiting = threading.Event()

    def slow(host: str, port: int) -> list[str]:
        waiting.wait(20)
        return [PUBLIC]

    fetching = RemoteMedia(
        ("media.example",), max_bytes=100, total_s=0.3, resolve=slow, network=site
    )
    with pytest.raises(MediaError, match="too long"):
        fetching.fetch("https://media.example/a", tmp_path / "x")
    waiting.set()


def test_a_name_that_is_not_known(site: Site, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="cannot be reached"):
        remote(site, names={"media.example": []}).fetch("http://media.example/a", tmp_path / "x")


def test_no_http(site: Site, tmp_path: Path) -> None:
    def other(to: BaseHTTPRequestHandler) -> None:
        to.wfile.write(b"SSH-2.0-OpenSSH\r\n\r\n")

    site.pages["/a"] = other
    with pytest.raises(MediaError, match="no HTTP"):
        remote(site).fetch("http://media.example/a", tmp_path / "x")


def test_nobody_waits_any_more(site: Site, tmp_path: Path) -> None:
    site.pages["/a"] = page(b"picture")
    stop = threading.Event()
    stop.set()
    with stoppable(stop), pytest.raises(StoppedError):
        remote(site).fetch("http://media.example/a", tmp_path / "x")


@pytest.mark.parametrize(
    "host", ["", "*", "*.example", "media.example/a", "ftp://media.example", "a:80", "[::1]", "a b"]
)
def test_entries_that_are_no_hosts(host: str) -> None:
    with pytest.raises(InputError, match="not a host"):
        RemoteMedia((host,), max_bytes=1)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_the_certificate_is_that_of_the_name(site: Site, tmp_path: Path) -> None:
    """The connection goes to an address, but the certificate must name the host."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-keyout", key, "-out", certificate, "-days", "2",
            "-subj", "/CN=media.example", "-addext", "subjectAltName=DNS:media.example",
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate, key)
    site.server.socket = serving.wrap_socket(site.server.socket, server_side=True)
    site.pages["/a"] = page(b"picture")
    trusting = ssl.create_default_context(cafile=str(certificate))
    fetching = remote(site, "media.example", "other.example", ssl_context=trusting)
    fetching.fetch("https://media.example/a", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"picture"
    assert site.dialled == [(PUBLIC, 443)]
    with pytest.raises(MediaError, match="cannot be reached"):
        fetching.fetch("https://other.example/a", tmp_path / "x")
    untrusting = remote(site, "media.example")
    with pytest.raises(MediaError, match="cannot be reached"):
        untrusting.fetch("https://media.example/a", tmp_path / "x")
