"""Attacks: foreign pages, other names, wrong keys, requests that are too large."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from secondglance.library import Library
from secondglance.server.app import create_app
from secondglance.server.openapi import operations
from secondglance.server.options import ServerOptions
from tests.served import client

KEY = "correct-horse-battery"
OTHER = "another-key-of-someone"
BEARER = {"Authorization": f"Bearer {KEY}"}
FRIEND = "https://friend.example"
OPEN = {"/healthz", "/readyz", "/v1/session", "/"}
# Refused by its shape, so that no model is asked.
BAD: dict[str, Any] = {"query": "x", "documents": []}


@pytest.fixture(scope="module")
def local(empty: Library) -> Iterator[httpx.Client]:
    """Without keys, on this machine; two sites and a name are allowed."""
    options = ServerOptions(
        names=("media.example",), cors_origins=(FRIEND,), max_body_mb=0.1, queue=4
    )
    with client(empty, options) as found:
        yield found


@pytest.fixture
def locked(empty: Library) -> Iterator[httpx.Client]:
    """With keys."""
    with client(empty, ServerOptions(api_keys=(KEY, OTHER))) as found:
        yield found


def kind(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code
    return str(problem["type"]).rpartition(":")[2]


def rerank(http: httpx.Client, **headers: str) -> httpx.Response:
    return http.post(
        "/v1/rerank", json=BAD, headers={name.replace("_", "-"): v for name, v in headers.items()}
    )


# Names


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:7860",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "192.168.1.7",
        "0.0.0.0",
        "media.example.evil.example",
        "",
        ":80",
    ],
)
def test_a_name_that_was_rebound_to_this_address_is_refused(local: httpx.Client, host: str) -> None:
    answer = local.get("/healthz", headers={"Host": host})
    assert (answer.status_code, kind(answer)) == (421, "unknown-host")


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:9", "127.0.0.1:80", "[::1]:7860", "media.example", "localhost."],
)
def test_own_names_are_answered(local: httpx.Client, host: str) -> None:
    assert local.get("/healthz", headers={"Host": host}).status_code == 200


def test_an_open_server_is_called_by_addresses_and_its_own_name(empty: Library) -> None:
    options = ServerOptions(host="0.0.0.0", open_to_all=True)
    with client(empty, options) as http:
        for host in ("192.168.1.7:7860", "[2001:db8::1]", socket.gethostname()):
            assert http.get("/healthz", headers={"Host": host}).status_code == 200
        answer = http.get("/healthz", headers={"Host": "evil.example"})
        assert answer.status_code == 421


def raw(http: httpx.Client, data: bytes) -> bytes:
    url = urlsplit(str(http.base_url))
    with socket.create_connection((url.hostname, url.port), timeout=20) as connection:
        connection.sendall(data)
        found = b""
        while part := connection.recv(65536):
            found += part
    return found


def test_a_request_with_two_names_or_none_is_refused(local: httpx.Client) -> None:
    hosts = b"Host: localhost\r\nHost: evil.example\r\n"
    two = b"GET /healthz HTTP/1.1\r\n" + hosts + b"Connection: close\r\n\r\n"
    assert raw(local, two).split(b" ")[1] in (b"400", b"421")
    assert raw(local, b"GET /healthz HTTP/1.0\r\n\r\n").split(b" ")[1] == b"421"


# Pages of other sites


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "https://friend.example.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    ],
)
def test_a_foreign_page_cannot_use_a_server_without_keys(
    local: httpx.Client, headers: dict[str, str]
) -> None:
    answer = local.post("/v1/rerank", json=BAD, headers=headers)
    assert (answer.status_code, kind(answer)) == (403, "foreign-origin")
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH"])
def test_any_method_that_changes_something_is_refused_to_foreign_pages(
    local: httpx.Client, method: str
) -> None:
    answer = local.request(method, "/v1/session", headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403


def test_own_pages_programs_and_friends_are_answered(local: httpx.Client) -> None:
    own = str(local.base_url).rstrip("/")
    for headers in (
        {},
        {"Origin": own},
        {"Origin": own, "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": FRIEND, "Sec-Fetch-Site": "cross-site"},
    ):
        assert local.post("/v1/rerank", json=BAD, headers=headers).status_code == 422


def test_foreign_pages_cannot_embed_but_links_may_be_followed(local: httpx.Client) -> None:
    embedded = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert local.get("/v1/session", headers=embedded).status_code == 403
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert local.get("/v1/session", headers=followed).status_code == 200


def test_a_form_cannot_be_sent_as_json(local: httpx.Client) -> None:
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = local.post(
            "/v1/rerank",
            content=b'{"query": "x", "documents": []}',
            headers={"Content-Type": content_type},
        )
        assert (answer.status_code, kind(answer)) == (415, "not-json")
    request = local.build_request("POST", "/v1/rerank", content=b'{"query": "x"}')
    assert "content-type" not in request.headers
    assert local.send(request).status_code == 415
    json = {"Content-Type": "application/json; charset=utf-8"}
    assert local.post("/v1/rerank", content=b"{}", headers=json).status_code == 422


def test_cors_is_closed_but_to_the_sites_that_are_named(
    local: httpx.Client, locked: httpx.Client
) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    allowed = local.options("/v1/rerank", headers={"Origin": FRIEND, **asked})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == FRIEND
    assert "access-control-allow-credentials" not in allowed.headers
    answer = rerank(local, Origin=FRIEND)
    assert answer.headers["access-control-allow-origin"] == FRIEND
    for http, origin in ((local, "https://evil.example"), (locked, FRIEND)):
        refused = http.options("/v1/rerank", headers={"Origin": origin, **asked})
        assert refused.status_code >= 400
        assert "access-control-allow-origin" not in refused.headers
        read = http.get("/healthz", headers={"Origin": origin})
        assert "access-control-allow-origin" not in read.headers


# Keys


def test_without_a_key_only_what_is_open_answers(empty: Library, locked: httpx.Client) -> None:
    schema = create_app(empty).openapi()
    asked = [(method, path) for path, method, _ in operations(schema)]
    asked += [("get", path) for path in ("/docs", "/openapi.json", "/metrics", "/none")]
    assert len(asked) > 8
    for method, path in asked:
        if path in OPEN:
            continue
        answer = locked.request(method, path, headers={"Content-Type": "application/json"})
        assert (answer.status_code, method, path) == (401, method, path)
        assert kind(answer) == "unauthorized"
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert locked.get("/healthz").status_code == 200
    assert locked.get("/readyz").status_code == 200
    assert locked.get("/v1/session").json() == {"required": True, "ok": False}


@pytest.mark.parametrize(
    "path",
    [
        "/static/../metrics",
        "/static/%2e%2e/metrics",
        "/%6detrics",
        "/healthz/../metrics",
        "/metrics/",
        "//metrics",
    ],
)
def test_no_spelling_of_a_path_goes_around_the_key(locked: httpx.Client, path: str) -> None:
    line = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = raw(locked, line.encode())
    assert answer.split(b" ")[1] in (b"401", b"404")
    assert b"secondglance_requests" not in answer


@pytest.mark.parametrize(
    "headers",
    [BEARER, {"Authorization": f"bearer  {OTHER}"}, {"X-API-Key": KEY}],
)
def test_any_key_opens(locked: httpx.Client, headers: dict[str, str]) -> None:
    assert locked.post("/v1/rerank", json=BAD, headers=headers).status_code == 422
    assert locked.get("/v1/session", headers=headers).json() == {"required": True, "ok": True}


@pytest.mark.parametrize("given", ["", KEY[:-1], KEY + "0", KEY + "," + OTHER, "*", "\xff" * 20])
def test_anything_else_does_not(locked: httpx.Client, given: str) -> None:
    headers = {b"Authorization": f"Bearer {given}".strip().encode("latin-1")}
    answer = locked.post("/v1/rerank", json=BAD, headers=headers)
    assert answer.status_code == 401
    assert not given or given not in answer.text
    in_address = locked.get("/metrics", params={"key": KEY, "api_key": KEY})
    assert in_address.status_code == 401


def test_wrong_keys_are_slowed_down(locked: httpx.Client) -> None:
    statuses = [rerank(locked, X_API_Key=f"guess-number-{n:08}").status_code for n in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    answer = rerank(locked, X_API_Key="guess-number-again")
    assert kind(answer) == "too-many-wrong-keys"
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    # Nobody can lock out those who know a key and share the address of a proxy.
    assert rerank(locked, X_API_Key=KEY).status_code == 422
    assert locked.post("/v1/session", json={"key": KEY}).status_code == 204


def test_keys_tried_at_the_session_count_as_well(locked: httpx.Client) -> None:
    for number in range(10):
        answer = locked.post("/v1/session", json={"key": f"guess-number-{number:08}"})
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
    assert locked.post("/v1/session", json={"key": "guess-number-0010"}).status_code == 429


def test_a_session_stands_for_a_key_until_it_ends(locked: httpx.Client) -> None:
    answer = locked.post("/v1/session", json={"key": KEY})
    assert answer.status_code == 204
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Secure" not in cookie
    assert KEY not in cookie
    assert locked.get("/v1/session").json() == {"required": True, "ok": True}
    assert rerank(locked).status_code == 422
    # It outlives a guard against wrong keys of the same address.
    for number in range(11):
        rerank_without = httpx.get(
            f"{locked.base_url}/metrics", headers={"X-API-Key": f"guess-number-{number:08}"}
        )
    assert rerank_without.status_code == 429
    assert rerank(locked).status_code == 422
    kept = dict(locked.cookies)
    assert locked.delete("/v1/session").status_code == 204
    locked.cookies.clear()
    locked.cookies.update(kept)
    assert rerank(locked).status_code == 401


def test_the_cookie_is_secure_where_the_page_came_by_tls(empty: Library) -> None:
    options = ServerOptions(api_keys=(KEY,), names=("media.example",))
    with client(empty, options) as http:
        answer = http.post(
            "/v1/session",
            json={"key": KEY},
            headers={"Host": "media.example", "Origin": "https://media.example"},
        )
        assert "Secure" in answer.headers["set-cookie"]


def test_a_session_ends_with_its_server(empty: Library) -> None:
    options = ServerOptions(api_keys=(KEY,))
    with client(empty, options) as http:
        http.post("/v1/session", json={"key": KEY})
        kept = next(iter(dict(http.cookies).values()))
    with client(empty, options) as http:
        http.cookies.set(f"secondglance_{http.base_url.port}", kept)
        assert rerank(http).status_code == 401


def test_a_server_without_keys_has_no_sessions(local: httpx.Client) -> None:
    assert local.get("/v1/session").json() == {"required": False, "ok": True}
    answer = local.post("/v1/session", json={"key": "anything"})
    assert answer.status_code == 204
    assert "set-cookie" not in answer.headers
    assert rerank(local, X_API_Key="of-another-server").status_code == 422


# Sizes


def test_a_body_that_says_it_is_too_large_is_not_read(local: httpx.Client) -> None:
    head = (
        b"POST /v1/rerank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100001\r\n\r\n"
    )
    answer = raw(local, head)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"body-too-large" in answer


@pytest.mark.parametrize("path", ["/v1/rerank", "/v1/search", "/v1/session"])
def test_a_body_without_a_length_is_counted(local: httpx.Client, path: str) -> None:
    chunks = iter([b" " * 10_000] * 11)
    answer = local.post(path, content=chunks, headers={"Content-Type": "application/json"})
    assert (answer.status_code, kind(answer)) == (413, "body-too-large")


def test_an_endless_body_is_cut_off(local: httpx.Client) -> None:
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        while sent < 200_000_000:
            sent += 1_000_000
            yield b" " * 1_000_000

    with contextlib.suppress(httpx.TransportError):  # it hung up before all was sent
        local.post("/v1/rerank", content=chunks(), headers={"Content-Type": "application/json"})
    assert sent < 50_000_000


def test_a_body_within_the_limit_is_read(local: httpx.Client) -> None:
    content = b'{"query": "x", "documents": []}'.ljust(100_000)
    json = {"Content-Type": "application/json"}
    assert local.post("/v1/rerank", content=content, headers=json).status_code == 422
    assert local.post("/v1/rerank", content=content + b" ", headers=json).status_code == 413


def test_uploads_have_a_limit_of_their_own(local: httpx.Client) -> None:
    answer = local.post("/v1/uploads", content=b"x" * 200_000)
    assert answer.status_code not in (413, 415)


def test_headers_and_addresses_have_limits(local: httpx.Client) -> None:
    many = {f"X-{number}": "x" for number in range(101)}
    answer = local.get("/healthz", headers=many)
    assert (answer.status_code, kind(answer)) == (431, "headers-too-large")
    answer = local.get("/healthz", headers={"X-Long": "x" * 33_000})
    assert answer.status_code == 431
    answer = local.get("/healthz", params={"x": "y" * 9000})
    assert (answer.status_code, kind(answer)) == (414, "address-too-long")


# Headers of answers


@pytest.mark.parametrize(
    ("path", "status"), [("/healthz", 200), ("/none", 404), ("/v1/rerank", 405), ("/docs", 200)]
)
def test_every_answer_has_the_headers(local: httpx.Client, path: str, status: int) -> None:
    answer = local.get(path)
    assert answer.status_code == status
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-store"
    assert "camera=()" in answer.headers["permissions-policy"]
    assert "server" not in answer.headers
    assert "strict-transport-security" not in answer.headers


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/healthz", {"Host": "evil.example"}, 421),
        ("/metrics", {}, 401),
        ("/metrics", {"X": "x" * 33_000}, 401),
        ("/healthz", {"X": "x" * 33_000}, 431),
    ],
)
def test_refusals_have_them_too(
    locked: httpx.Client, path: str, headers: dict[str, str], status: int
) -> None:
    answer = locked.get(path, headers=headers)
    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-request-id"]


def test_a_route_may_have_a_policy_of_its_own(empty: Library) -> None:
    import asyncio

    from starlette.responses import Response

    from secondglance.server.middleware import SecurityHeaders

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    inner = Response("", headers={"Content-Security-Policy": "sandbox allow-scripts"})
    scope = {"type": "http", "method": "GET", "path": "/v1/reports/a", "headers": []}
    asyncio.run(SecurityHeaders(inner)(scope, receive, send))
    headers = dict(sent[0]["headers"])
    policy = headers[b"content-security-policy"]
    assert policy == b"sandbox allow-scripts; frame-ancestors 'self'"
    assert sum(name == b"content-security-policy" for name, _ in sent[0]["headers"]) == 1


def test_the_description_has_a_page_without_anything_from_elsewhere(local: httpx.Client) -> None:
    page = local.get("/docs").text
    for needed in ("POST /v1/rerank", "two dogs on a beach", "RerankResponse"):
        assert needed in page
    assert "http://" not in page
    assert "https://" not in page.replace("https:// URL", "").replace("`https://`", "")
    assert "<script" not in page
    assert local.get("/redoc").status_code == 404
