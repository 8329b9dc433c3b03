"""The second pass on another machine: any server of the Jina / Cohere / vLLM rerank shape."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from secondglance.errors import InputError, MediaError, RerankError
from secondglance.rerank import wire
from secondglance.rerank.answers import failed
from secondglance.rerank.asking import FailedError, checked_key, checked_url
from secondglance.rerank.batching import READERS
from secondglance.rerank.limits import FPS, MAX_FRAMES, MAX_PIXELS, MIN_PIXELS, TOTAL_PIXELS, Limits
from secondglance.rerank.servers import Servers
from secondglance.rerank.wire import Dialect
from secondglance.types import Content, PairScore

if TYPE_CHECKING:
    from pydantic import SecretStr
    from tenacity import RetryCallState

logger = logging.getLogger(__name__)

FIRST_WAIT_S = 0.25
"""Before the first retry, at most; doubled for each further one, and drawn at random up to that."""
LONGEST_WAIT_S = 8.0
LONGEST_RETRY_AFTER_S = 30.0
"""A server that asks for a longer pause is asked again after this one all the same."""


class RemoteReranker:
    """A reranker behind HTTP, as a `Reranker`. May be called from several threads.

    Pictures and clips are read here and sent along, reduced to what the model looks at; see
    `wire_media`. What a dialect cannot carry gets an `error` of its own. Scores are the server's
    probabilities, `log_odds` their logits.

    A call is split into parts, which are sent side by side. A part that cannot be delivered
    (connection refused or lost, 429, 502, 503, 504) is tried again, after what `Retry-After` asks
    for, else after a pause that grows. Other refusals are final. If a part stays without an
    answer, the call fails.

    With several URLs the one with the fewest parts under way is asked, and another one where one
    fails, be it by a fault of its own or by taking too long. After `breaker_failures` failures in
    a row a URL is left alone for `breaker_pause_s`; then it is asked for its health (`/readyz`,
    vLLM: `/health`) where it has such a page, else for one part.

    Args:
        url: Of the endpoint, or several that serve the same model. One without a path gets that
            of the dialect.
        model: The server's name for its model; None where the server has only one.
        dialect: `secondglance`, `vllm` (text, pictures, clips without their times), `jina` (text
            or one picture) or `cohere` (text).
        api_key: Sent as `Authorization: Bearer`.
        timeout_s: For the answer to one part.
        connect_timeout_s: For a connection.
        retries: Further tries of a part.
        default_instruction: What candidates are judged by where a call does not say; None leaves
            it to the server.
        min_pixels: Pixels of an image that is sent in another size, at least.
        max_pixels: Pixels of an image, at most.
        total_pixels: Pixels of a clip, at most; two frames count once.
        fps: Frames a second taken from a video file.
        max_frames: Frames of a clip, at most.
        max_documents: Candidates in a part.
        max_request_bytes: Of a part.
        max_answer_bytes: Of the answer to it.
        concurrency: Parts under way at once.
        breaker_failures: In a row, of one URL.
        breaker_pause_s: Seconds it is then left alone.
        hedge_share: Share of parts that may be sent to a second URL while the first takes longer
            than 95 % of recent answers of the others; the first answer counts. 0: none.

    Raises:
        InputError: A URL, the key, the dialect or a number cannot be used.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        model: str | None = None,
        dialect: Dialect = "secondglance",
        api_key: SecretStr | str | None = None,
        timeout_s: float = 60.0,
        connect_timeout_s: float = 5.0,
        retries: int = 2,
        default_instruction: str | None = None,
        min_pixels: int = MIN_PIXELS,
        max_pixels: int = MAX_PIXELS,
        total_pixels: int = TOTAL_PIXELS,
        fps: float = FPS,
        max_frames: int = MAX_FRAMES,
        max_documents: int = 32,
        max_request_bytes: int = 16 << 20,
        max_answer_bytes: int = 4 << 20,
        concurrency: int = 4,
        breaker_failures: int = 5,
        breaker_pause_s: float = 30.0,
        hedge_share: float = 0.1,
    ) -> None:
        if dialect not in wire.DIALECTS:
            raise InputError(
                f"the dialect {dialect!r} is not known",
                remedy=f"choose one of {', '.join(wire.DIALECTS)}",
            )
        if model is None and dialect in wire.NEEDS_MODEL:
            raise InputError(
                f"a server of the dialect {dialect} must be told its model",
                remedy="set rerank.model, for instance jina-reranker-m0 or rerank-v3.5",
            )
        urls = [url] if isinstance(url, str) else list(url)
        if not urls:
            raise InputError("there is no URL of a reranker", remedy="set rerank.url")
        self.urls = tuple(dict.fromkeys(checked_url(each, wire.PATHS[dialect]) for each in urls))
        for name, value, least in (
            ("timeout_s", timeout_s, 1e-3),
            ("connect_timeout_s", connect_timeout_s, 1e-3),
            ("retries", retries, 0),
            ("max_documents", max_documents, 1),
            ("max_request_bytes", max_request_bytes, 1024),
            ("max_answer_bytes", max_answer_bytes, 1024),
            ("concurrency", concurrency, 1),
            ("breaker_failures", breaker_failures, 1),
            ("breaker_pause_s", breaker_pause_s, 0),
            ("hedge_share", hedge_share, 0),
        ):
            if not least <= value < math.inf:
                raise InputError(f"{name} is {value}; it must be at least {least:g}")
        if hedge_share > 1:
            raise InputError(f"hedge_share is {hedge_share}; it is a share, at most 1")
        self._check_instruction(default_instruction, dialect)
        self.model = model
        self.dialect: Dialect = dialect
        self.default_instruction = default_instruction
        self._limits = Limits(
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            total_pixels=total_pixels,
            fps=fps,
            max_frames=max_frames,
            max_listed_frames=max_frames,
        )
        self._retries = retries
        self._max_documents = max_documents
        self._max_request_bytes = max_request_bytes
        self._concurrency = concurrency
        self._servers = Servers(
            [(each, wire.health_url(each, dialect)) for each in self.urls],
            api_key=checked_key(api_key),
            timeout_s=timeout_s,
            connect_timeout_s=connect_timeout_s,
            failures=breaker_failures,
            pause_s=breaker_pause_s,
            max_answer_bytes=max_answer_bytes,
            hedge_share=hedge_share,
        )
        self._finalizer = weakref.finalize(self, self._servers.close)

    @staticmethod
    def _check_instruction(instruction: str | None, dialect: Dialect) -> None:
        if instruction is not None and dialect not in wire.TAKES_INSTRUCTION:
            raise InputError(
                f"a server of the dialect {dialect} takes no instruction",
                remedy="leave the instruction out, or use a secondglance or a vLLM server",
            )

    def __repr__(self) -> str:
        return f"RemoteReranker({', '.join(self.urls)}, dialect={self.dialect!r})"

    @property
    def name(self) -> str:
        """The model, if it was named, and where it is served."""
        where = ", ".join(self.urls)
        return f"{self.model} at {where}" if self.model else where

    def close(self) -> None:
        """Lets go of the connections. Scoring then raises RerankError. May be called twice."""
        self._finalizer()

    def score(
        self,
        query: Content,
        documents: Sequence[Content],
        *,
        instruction: str | None = None,
        timeout_s: float | None = None,
    ) -> list[PairScore]:
        """Scores every document against the query, in the order given.

        A document that cannot be read, here or by the server, has an `error` instead; so has one
        that the dialect cannot carry.

        Args:
            query: What is looked for.
            documents: The candidates.
            instruction: Replaces the default instruction.
            timeout_s: For the whole call, retries included, in seconds; None bounds only each
                part.

        Raises:
            MediaError: The query cannot be read.
            InputError: The dialect knows no instructions.
            RerankError: A server did not answer, or gave no usable answer; names it.
        """
        self._check_instruction(instruction, self.dialect)
        instruction = instruction or self.default_instruction
        if not documents:
            return []
        deadline_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
        try:
            asked = wire.encode(query, self.dialect, self._limits)
        except MediaError as error:
            raise MediaError(f"the query: {error.problem}", remedy=error.remedy) from error
        results: list[PairScore | None] = [None] * len(documents)
        stop = threading.Event()
        senders = ThreadPoolExecutor(self._concurrency, thread_name_prefix="rerank-sender")
        try:
            under_way: set[Future[None]] = set()

            def settle(*, most: int) -> None:
                """Waits until no more than `most` parts are under way; raises what they did."""
                while len(under_way) > most:
                    done, _ = wait(under_way, return_when=FIRST_COMPLETED)
                    under_way.difference_update(done)
                    for future in done:
                        future.result()

            for part in self._parts(asked, instruction, documents, results):
                under_way.add(
                    senders.submit(
                        self._send, part, instruction, asked, results, deadline_s, stop
                    )
                )  # fmt: skip
                settle(most=self._concurrency - 1)
            settle(most=0)
        finally:
            stop.set()  # after a failure, the others need not go on trying
            senders.shutdown(wait=False, cancel_futures=True)
        return [result for result in results if result is not None]

    def _parts(
        self,
        query: wire.Side,
        instruction: str | None,
        documents: Sequence[Content],
        results: list[PairScore | None],
    ) -> Iterator[_Part]:
        """What is sent together; notes in `results` what cannot be sent at all."""
        besides = OVERHEAD_BYTES + len(_json(instruction)) + len(_json(self.model))
        room = self._max_request_bytes - len(_json(query)) - besides
        if room <= 0:
            raise RerankError(
                f"the query takes more than {self._max_request_bytes} bytes",
                remedy="send a smaller picture or a shorter clip, or raise max_request_bytes",
            )
        part, used = _Part([], []), 0
        with ThreadPoolExecutor(READERS, thread_name_prefix="rerank-reader") as readers:
            # A few at a time: hundreds of photos need not lie in memory at once.
            for start in range(0, len(documents), self._max_documents):
                some = documents[start : start + self._max_documents]
                for place, side in enumerate(readers.map(self._encoded, some), start=start):
                    if isinstance(side, MediaError):
                        results[place] = failed(side)
                        continue
                    size = len(_json(side)) + 1
                    if size > room:
                        results[place] = PairScore(
                            score=None,
                            error=f"takes {size} bytes, with the query more than the "
                            f"{self._max_request_bytes} of a request",
                        )
                        continue
                    if part.places and (
                        used + size > room or len(part.places) == self._max_documents
                    ):
                        yield part
                        part, used = _Part([], []), 0
                    part.places.append(place)
                    part.sides.append(side)
                    used += size
        if part.places:
            yield part

    def _encoded(self, document: Content) -> wire.Side | MediaError:
        try:
            return wire.encode(document, self.dialect, self._limits)
        except MediaError as error:
            return error

    def _send(
        self,
        part: _Part,
        instruction: str | None,
        query: wire.Side,
        results: list[PairScore | None],
        deadline_s: float,
        stop: threading.Event,
    ) -> None:
        """Asks about one part until it is answered, and notes the scores."""
        body = _json(
            wire.request(
                query, part.sides, dialect=self.dialect, model=self.model, instruction=instruction
            )
        )
        failed: set[str] = set()
        ask = partial(
            self._servers.ask, body, len(part.places), deadline_s=deadline_s, avoid=failed
        )
        for place, score in zip(
            part.places, self._with_retries(ask, failed, deadline_s, stop), strict=True
        ):
            results[place] = score

    def _with_retries(
        self,
        ask: Callable[[], list[PairScore]],
        failed: Collection[str],
        deadline_s: float,
        stop: threading.Event,
    ) -> list[PairScore]:
        from tenacity import Retrying, retry_if_exception, wait_random_exponential

        growing = wait_random_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S)
        tries = max(self._retries + 1, len(self.urls) if self._retries else 1)

        def pause_s(state: RetryCallState) -> float:
            error = _error_of(state)
            if self._servers.awake_besides(failed):
                return 0.0  # another server is next
            if error.wait_s is not None:
                return min(error.wait_s, LONGEST_RETRY_AFTER_S)
            return growing(state)

        def again(error: BaseException) -> bool:
            if not isinstance(error, FailedError):
                return False
            # What is wrong with one server need not be wrong with another.
            return error.again or (error.sick and self._servers.awake_besides(failed) > 0)

        def enough(state: RetryCallState) -> bool:
            late = time.monotonic() + state.upcoming_sleep >= deadline_s
            return late or stop.is_set() or state.attempt_number >= tries

        def note(state: RetryCallState) -> None:
            logger.info("%s; tried again in %.2f s", _error_of(state).problem, state.upcoming_sleep)

        def sleep(seconds: float) -> None:
            stop.wait(seconds)

        retrying = Retrying(
            wait=pause_s,
            stop=enough,
            retry=retry_if_exception(again),
            before_sleep=note,
            sleep=sleep,
            reraise=True,
        )
        try:
            return retrying(ask)
        except FailedError as error:
            made = retrying.statistics.get("attempt_number", 1)
            times = f" ({made} tries)" if made > 1 else ""
            raise RerankError(f"{error.problem}{times}", remedy=error.remedy) from None


OVERHEAD_BYTES = 512
"""Of a request besides query, documents, model and instruction."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Documents that are sent together, and their places in the call."""

    places: list[int]
    sides: list[wire.Side]


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8",
        "replace",  # half of a surrogate pair is no character
    )


def _error_of(state: RetryCallState) -> FailedError:
    error = state.outcome.exception() if state.outcome is not None else None
    assert isinstance(error, FailedError)  # nothing else is retried
    return error
