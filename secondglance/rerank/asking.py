"""One question to one server over HTTP, and what its answer or its silence means.

Asked from a loop of its own, so that a question whose answer nobody waits for any more can be
broken off: the connection is closed, and a server that looks (as secondglance's own does) stops
working.
"""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import os
import time
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from secondglance.errors import InputError
from secondglance.rerank import wire
from secondglance.types import PairScore

RETRIED = frozenset({429, 502, 503, 504})
SICK = 500
"""Statuses from here on count against a server's health; a 4xx is about the request."""
REMEDIES = {
    401: "check rerank.api_key",
    403: "check rerank.api_key",
    404: "check rerank.url: it names the rerank endpoint, such as http://host:8000/v1/rerank",
    405: "check rerank.url: it names the rerank endpoint, such as http://host:8000/v1/rerank",
    413: "lower the pixels (rerank.max_pixels), or raise the server's limit",
    415: "check rerank.dialect",
    422: "check rerank.dialect and rerank.model",
    400: "check rerank.dialect and rerank.model",
    429: "ask less often, or give it more capacity",
}
HEALTH_S = 2.0
"""Longest wait for what a server says of its own health."""
UNTOLD = frozenset({401, 403, 404, 405, 501})
"""Answers to that question which say nothing: it knows no such page, or shows it to others."""


class FailedError(Exception):
    """One question that was not answered.

    Attributes:
        problem: Why, naming the server.
        remedy: What the user can do.
        again: Whether another try may go better.
        sick: Whether it speaks against the server; else it is about the request.
        wait_s: What the server asked for, in seconds; None if it did not.
    """

    def __init__(
        self,
        problem: str,
        *,
        remedy: str = "see whether it runs, and check rerank.url",
        again: bool,
        sick: bool = True,
        wait_s: float | None = None,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy
        self.again = again
        self.sick = sick
        self.wait_s = wait_s


class Asker:
    """Puts questions; everything but the constructor belongs to one event loop.

    Args:
        api_key: Sent as a bearer token; never shown.
        timeout_s: For one answer, from the first byte sent to the last received.
        connect_timeout_s: For a connection.
        max_answer_bytes: Larger answers are refused.
    """

    def __init__(
        self,
        *,
        api_key: SecretStr | None,
        timeout_s: float,
        connect_timeout_s: float,
        max_answer_bytes: int,
    ) -> None:
        self._api_key = api_key
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._max_answer_bytes = max_answer_bytes
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
        self._client = httpx.AsyncClient(follow_redirects=False, limits=limits)

    async def close(self) -> None:
        """Lets go of the connections."""
        await self._client.aclose()

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json"}
        if self._api_key is not None:
            headers["Authorization"] = f"Bearer {self._api_key.get_secret_value()}"
        return headers

    async def ready(self, url: str) -> bool | None:
        """Whether a server says that it can work; None if it does not say.

        Args:
            url: Of its health check, see `wire.health_url`.
        """
        timeout = httpx.Timeout(HEALTH_S, connect=min(self._connect_timeout_s, HEALTH_S))
        try:
            async with self._client.stream(
                "GET", url, headers=self._headers(), timeout=timeout
            ) as response:
                if response.status_code in UNTOLD:
                    return None
                return bool(response.status_code == httpx.codes.OK)
        except httpx.HTTPError:
            return False

    async def ask(self, url: str, body: bytes, count: int, *, deadline_s: float) -> list[PairScore]:
        """Puts one question.

        Args:
            url: Of the rerank endpoint.
            body: Of the request, JSON.
            count: Documents in it.
            deadline_s: On the monotonic clock; later is too late.

        Raises:
            FailedError: It was not answered.
        """
        headers = {"Content-Type": "application/json", **self._headers()}
        left_s = max(min(self._timeout_s, deadline_s - time.monotonic()), 1e-3)
        timeout = httpx.Timeout(left_s, connect=min(self._connect_timeout_s, left_s))
        try:
            # An answer that drips meets no timeout of httpx's.
            response, content = await asyncio.wait_for(
                self._exchange(url, body, headers, timeout), left_s
            )
        except httpx.ConnectTimeout:
            raise FailedError(f"the reranker {url} cannot be reached in time", again=True) from None
        except (httpx.TimeoutException, asyncio.TimeoutError):
            raise FailedError(
                f"the reranker {url} did not answer within {left_s:.3g} s",
                remedy="raise rerank.timeout_s, or lower --recall",
                again=False,
            ) from None
        except httpx.TransportError as error:
            reason = wire.shown(_reason(error)) or type(error).__name__
            raise FailedError(
                f"the reranker {url} cannot be reached: {reason}", again=True
            ) from None
        except httpx.DecodingError:
            raise FailedError(
                f"the reranker {url} sent an answer that cannot be decompressed", again=False
            ) from None
        if response.status_code != httpx.codes.OK:
            raise self._refused(url, response, content)
        try:
            return wire.answer(content, count)
        except wire.BadAnswerError as error:
            raise FailedError(
                f"the reranker {url} gave an answer that cannot be used: {error}",
                remedy="check rerank.url and rerank.dialect",
                again=False,
            ) from None

    async def _exchange(
        self, url: str, body: bytes, headers: dict[str, str], timeout: httpx.Timeout
    ) -> tuple[httpx.Response, bytes]:
        async with self._client.stream(
            "POST", url, content=body, headers=headers, timeout=timeout
        ) as response:
            content = bytearray()
            async for block in response.aiter_bytes():
                content += block
                if len(content) > self._max_answer_bytes:
                    raise FailedError(
                        f"the reranker {url} sent an answer of over {self._max_answer_bytes} bytes",
                        remedy="check rerank.url",
                        again=False,
                    )
        return response, bytes(content)

    def _refused(self, url: str, response: httpx.Response, content: bytes) -> FailedError:
        status = response.status_code
        phrase = response.reason_phrase
        if response.is_redirect:
            return FailedError(
                f"the reranker {url} answered {status} {phrase}: redirects are not followed",
                remedy="name the address it moved to in rerank.url",
                again=False,
                sick=False,
            )
        said = wire.refusal(content, response.headers.get("content-type", ""))
        key = self._api_key.get_secret_value() if self._api_key is not None else ""
        if key and key in said:
            said = said.replace(key, "***")
        return FailedError(
            f"the reranker {url} answered {status} {phrase}" + (f" ({said})" if said else ""),
            remedy=REMEDIES.get(status, "look at the server's log"),
            again=status in RETRIED,
            sick=status >= SICK,
            wait_s=retry_after_s(response.headers.get("retry-after")),
        )


def _reason(error: BaseException) -> str:
    """What the operating system said; anyio's own words are that all attempts failed."""
    deepest = error
    while (cause := deepest.__cause__ or deepest.__context__) is not None:
        deepest = cause
    if not isinstance(deepest, OSError):
        return str(error)
    number = deepest.errno or 0
    return f"[Errno {number}] {os.strerror(number)}" if number > 0 else str(deepest)


def retry_after_s(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3); None if it cannot be read."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        then = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=datetime.timezone.utc)
    return max((then - datetime.datetime.now(datetime.timezone.utc)).total_seconds(), 0.0)


def checked_url(url: str, path: str) -> str:
    """A URL that may be asked and shown: http or https, without secrets.

    Args:
        url: As the user wrote it.
        path: Taken where it names none.

    Raises:
        InputError: It is of another kind, or holds a password, a query or a fragment.
    """
    try:
        parts = urlsplit(url.strip())
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host:
        # What stands before an @ may be a password.
        raise InputError(
            f"{url.rpartition('@')[2]!r} is no URL of a reranker",
            remedy="give http://host:port/v1/rerank",
        )
    if parts.username is not None or parts.query or parts.fragment:
        raise InputError(
            f"the URL of the reranker at {host} holds a name, a password, a query or a fragment",
            remedy="give the key as rerank.api_key",
        )
    return parts._replace(path=parts.path if parts.path.strip("/") else path).geturl()


def checked_key(api_key: SecretStr | str | None) -> SecretStr | None:
    """A key that fits a header; None if there is none.

    Raises:
        InputError: It is empty, or has characters that no header holds. The key is not shown.
    """
    if api_key is None:
        return None
    key = api_key.get_secret_value() if isinstance(api_key, SecretStr) else api_key
    if not key.strip() or not key.strip().isascii() or not key.strip().isprintable():
        raise InputError(
            "the API key of the reranker is empty or has characters that a header cannot hold",
            remedy="set rerank.api_key, for instance by SECONDGLANCE_RERANK__API_KEY",
        )
    return SecretStr(key.strip())
