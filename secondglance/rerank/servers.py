"""The servers behind a remote reranker: which one to ask next, and how one question is put."""

from __future__ import annotations

import datetime
import email.utils
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from secondglance.errors import InputError, RerankError
from secondglance.rerank import wire
from secondglance.rerank.breaker import Breaker, Permit
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


@dataclass(slots=True)
class Server:
    """One URL, how it has been doing, and what went wrong last."""

    url: str
    breaker: Breaker
    problem: str = ""


class Servers:
    """Takes turns among servers, and passes over those that keep failing.

    Args:
        urls: Checked, see `checked_url`.
        api_key: Sent as a bearer token; never shown.
        timeout_s: For one answer, from the first byte sent to the last received.
        connect_timeout_s: For a connection.
        failures: In a row, after which a server is left alone.
        pause_s: For how long.
        max_answer_bytes: Larger answers are refused.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        api_key: SecretStr | None,
        timeout_s: float,
        connect_timeout_s: float,
        failures: int,
        pause_s: float,
        max_answer_bytes: int,
    ) -> None:
        self._servers = [Server(url, Breaker(failures=failures, pause_s=pause_s)) for url in urls]
        self._lock = threading.Lock()
        self._turn = 0
        self._api_key = api_key
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._max_answer_bytes = max_answer_bytes
        self._client = httpx.Client(follow_redirects=False)

    @property
    def client(self) -> httpx.Client:
        """What holds the connections."""
        return self._client

    @property
    def awake(self) -> int:
        """How many may be asked now."""
        return sum(server.breaker.left_s == 0 for server in self._servers)

    def ask(self, body: bytes, count: int, *, deadline_s: float) -> list[PairScore]:
        """Puts one question to the server whose turn it is.

        Args:
            body: Of the request, JSON.
            count: Documents in it.
            deadline_s: On the monotonic clock; later is too late.

        Raises:
            FailedError: It was not answered.
            RerankError: No server may be asked now.
        """
        server, permit = self._next()
        healthy: bool | None = None
        try:
            scores = self._post(server.url, body, count, deadline_s)
            healthy = True
        except FailedError as error:
            healthy = not error.sick
            server.problem = error.problem
            raise
        finally:
            server.breaker.leave(permit, healthy=healthy)
        return scores

    def _next(self) -> tuple[Server, Permit]:
        with self._lock:
            first, self._turn = self._turn, self._turn + 1
        for offset in range(len(self._servers)):
            server = self._servers[(first + offset) % len(self._servers)]
            if (permit := server.breaker.enter()) is not None:
                return server, permit
        resting = "; ".join(
            f"{server.problem}, {server.breaker.failed} failures in a row"
            for server in self._servers
        )
        soonest = min(server.breaker.left_s for server in self._servers)
        raise RerankError(
            f"no reranker is asked for a while: {resting}",
            remedy=f"see whether it runs; it is tried again in {math.ceil(soonest)} s",
        )

    def _post(self, url: str, body: bytes, count: int, deadline_s: float) -> list[PairScore]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._api_key is not None:
            headers["Authorization"] = f"Bearer {self._api_key.get_secret_value()}"
        left_s = max(min(self._timeout_s, deadline_s - time.monotonic()), 1e-3)
        until_s = time.monotonic() + left_s
        timeout = httpx.Timeout(left_s, connect=min(self._connect_timeout_s, left_s))
        try:
            with self._client.stream(
                "POST", url, content=body, headers=headers, timeout=timeout
            ) as response:
                content = self._read(url, response, until_s)
        except httpx.ConnectTimeout:
            raise FailedError(f"the reranker {url} cannot be reached in time", again=True) from None
        except httpx.TimeoutException:
            raise FailedError(
                f"the reranker {url} did not answer within {left_s:.3g} s",
                remedy="raise rerank.timeout_s, or lower --recall",
                again=False,
            ) from None
        except httpx.TransportError as error:
            reason = wire.shown(str(error)) or type(error).__name__
            raise FailedError(
                f"the reranker {url} cannot be reached: {reason}", again=True
            ) from None
        except httpx.DecodingError:
            raise FailedError(
                f"the reranker {url} sent an answer that cannot be decompressed", again=False
            ) from None
        except RuntimeError:  # httpx has no type of its own for a closed client
            raise FailedError(
                "the reranker is closed", remedy="open it again", again=False, sick=False
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

    def _read(self, url: str, response: httpx.Response, until_s: float) -> bytes:
        """The body, within the limits of size and time."""
        content = bytearray()
        for block in response.iter_bytes():
            content += block
            if len(content) > self._max_answer_bytes:
                raise FailedError(
                    f"the reranker {url} sent an answer of over {self._max_answer_bytes} bytes",
                    remedy="check rerank.url",
                    again=False,
                )
            if time.monotonic() > until_s:  # one that drips meets no timeout of its own
                raise httpx.ReadTimeout("the answer takes too long")
        return bytes(content)

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
