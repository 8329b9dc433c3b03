"""What servers of the Jina / Cohere / vLLM rerank shape are sent, and what they answer.

The shapes: vLLM `/v1/rerank` (`RerankRequest` in vllm/entrypoints/pooling/score/protocol.py, with
documents that are strings or `{"content": [parts]}`), Jina `/v1/rerank` (documents that are
strings, `{"text"}` or `{"image"}`), Cohere `/v2/rerank` (strings). secondglance's own takes any
mixture: `{"text", "image", "video"}`, each a value or a list.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

from secondglance.errors import MediaError
from secondglance.rerank.limits import Limits
from secondglance.rerank.wire_media import frame_urls, picture_url
from secondglance.types import Content, PairScore, VideoClip

Dialect = Literal["secondglance", "vllm", "jina", "cohere"]
DIALECTS: tuple[Dialect, ...] = get_args(Dialect)
PATHS: Mapping[Dialect, str] = {
    "secondglance": "/v1/rerank",
    "vllm": "/v1/rerank",
    "jina": "/v1/rerank",
    "cohere": "/v2/rerank",
}
"""Where each server listens, for a URL that names none."""
HEALTH_PATHS: Mapping[Dialect, str] = {"secondglance": "/readyz", "vllm": "/health"}
"""Where those that have one's own machine as their home say whether they can work."""
NEEDS_MODEL: frozenset[Dialect] = frozenset({"jina", "cohere"})
TAKES_INSTRUCTION: frozenset[Dialect] = frozenset({"secondglance", "vllm"})
TAKES_RETURN_DOCUMENTS: frozenset[Dialect] = frozenset({"secondglance", "jina"})

Side: TypeAlias = str | dict[str, Any]

EDGE = 1e-6
"""By so much may a probability pass 0 or 1: servers round."""
FARTHEST = 30.0
"""Log-odds of a probability that was rounded to 0 or 1."""
SHOWN_CHARS = 300


class BadAnswerError(Exception):
    """What came back is no answer to what was asked; its message says why."""


def health_url(url: str, dialect: Dialect) -> str | None:
    """Where the server of a rerank URL says whether it can work; None if that is not known."""
    path = HEALTH_PATHS.get(dialect)
    origin = url.removesuffix(PATHS[dialect])
    return None if path is None or origin == url else origin + path


def encode(content: Content, dialect: Dialect, limits: Limits) -> Side:
    """One side of a pair, as JSON.

    Raises:
        MediaError: It is empty, a part cannot be read, or the dialect cannot carry it.
    """
    texts = [text for text in content.texts if text.strip()]
    if not (texts or content.images or content.videos):
        raise MediaError("there is nothing in it: no words, no picture, no clip")
    if dialect == "secondglance":
        return _own(texts, content, limits)
    if dialect == "vllm":
        return _vllm(texts, content, limits)
    if content.videos:
        raise _not_carried("clips", dialect)
    if dialect == "cohere":
        if content.images:
            raise _not_carried("pictures", dialect)
        return "\n".join(texts)
    if not content.images:
        return {"text": "\n".join(texts)}
    if texts or len(content.images) > 1:
        raise _not_carried("several pictures in one, and no picture with words", dialect)
    # Jina takes the base64 of a picture, without what a data URL puts before it.
    return {"image": picture_url(content.images[0], limits).partition(",")[2]}


def _not_carried(what: str, dialect: Dialect) -> MediaError:
    return MediaError(
        f"a server of the dialect {dialect} takes no {what}",
        remedy="use a secondglance or a vLLM server",
    )


def _own(texts: Sequence[str], content: Content, limits: Limits) -> Side:
    if len(texts) == 1 and not content.images and not content.videos:
        return texts[0]
    parts: dict[str, list[Any]] = {
        "text": list(texts),
        "image": [picture_url(source, limits) for source in content.images],
        "video": [_own_clip(clip, limits) for clip in content.videos],
    }
    return {name: found[0] if len(found) == 1 else found for name, found in parts.items() if found}


def _own_clip(clip: VideoClip, limits: Limits) -> dict[str, Any]:
    frames, times_s = frame_urls(clip, limits)
    return {"frames": frames} if times_s is None else {"frames": frames, "times_s": times_s}


def _vllm(texts: Sequence[str], content: Content, limits: Limits) -> Side:
    if len(texts) == 1 and not content.images and not content.videos:
        return texts[0]
    parts: list[dict[str, Any]] = []
    for clip in content.videos:
        frames, _ = frame_urls(clip, limits)
        # vLLM reads a list of frames as one "video/jpeg", base64 with commas between; times have
        # no place in it.
        joined = ",".join(frame.partition(",")[2] for frame in frames)
        parts.append(
            {"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{joined}"}}
        )
    parts += [
        {"type": "image_url", "image_url": {"url": picture_url(source, limits)}}
        for source in content.images
    ]
    parts += [{"type": "text", "text": text} for text in texts]
    return {"content": parts}


def request(
    query: Side,
    documents: Sequence[Side],
    *,
    dialect: Dialect,
    model: str | None,
    instruction: str | None,
) -> dict[str, Any]:
    """The body of a request; every document is to be answered."""
    body: dict[str, Any] = {"query": query, "documents": list(documents), "top_n": len(documents)}
    if dialect == "jina" and isinstance(query, dict) and "text" in query:
        body["query"] = query["text"]
    if model is not None:
        body["model"] = model
    if instruction is not None and dialect in TAKES_INSTRUCTION:
        body["instruction"] = instruction
    if dialect in TAKES_RETURN_DOCUMENTS:
        body["return_documents"] = False
    return body


def answer(content: bytes, count: int) -> list[PairScore]:
    """The scores of an answer, in the order of the request.

    `log_odds` is the logit of `relevance_score`, at most 30 either way. A document that the
    server could not read (`relevance_score` null, with an `error`) carries that error.

    Args:
        content: The body.
        count: Documents that were asked about.

    Raises:
        BadAnswerError: It is not JSON, lacks a document, names one twice or one that was not asked
            about, or has a score that is no probability.
    """
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        start = " ".join(content[:80].decode("utf-8", "replace").split())
        raise BadAnswerError(f"the answer is not JSON; it begins with {start!r}") from None
    results = body.get("results") if isinstance(body, dict) else None
    if not isinstance(results, list):
        raise BadAnswerError('the answer has no list of "results"')
    scores: dict[int, PairScore] = {}
    for result in results:
        index = result.get("index") if isinstance(result, dict) else None
        if not isinstance(index, int) or isinstance(index, bool):
            raise BadAnswerError("a result has no index")
        if not 0 <= index < count:
            raise BadAnswerError(f"a result has the index {index}; {count} documents were sent")
        if index in scores:
            raise BadAnswerError(f"two results have the index {index}")
        scores[index] = _score(result, index)
    if len(scores) != count:
        raise BadAnswerError(f"{count} documents were sent, {len(scores)} were answered")
    return [scores[index] for index in range(count)]


def _score(result: Mapping[str, Any], index: int) -> PairScore:
    score = result.get("relevance_score")
    if score is None and (error := result.get("error")):
        return PairScore(score=None, error=shown(error))
    if not isinstance(score, int | float) or isinstance(score, bool):
        raise BadAnswerError(f"document {index} has neither a relevance_score nor an error")
    if not -EDGE <= score <= 1 + EDGE:  # also catches NaN
        raise BadAnswerError(
            f"document {index} has the relevance_score {str(score)[:20]}, which is no probability"
        )
    probability = min(max(float(score), 0.0), 1.0)
    return PairScore(score=probability, log_odds=logit(probability))


def logit(probability: float) -> float:
    """Log-odds of a probability, at most 30 either way."""
    if probability in (0.0, 1.0):
        return math.copysign(FARTHEST, probability - 0.5)
    odds = math.log(probability) - math.log1p(-probability)
    return min(max(odds, -FARTHEST), FARTHEST)


def refusal(content: bytes, content_type: str) -> str:
    """What a server says of its own error, in one short line; empty if nothing can be told.

    Reads problem details (RFC 9457) and the forms of vLLM, FastAPI, Jina and Cohere.
    """
    if "json" not in content_type:
        return ""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(body, dict):
        return ""
    error = body.get("error")
    if isinstance(error, dict):
        error = error.get("message")
    found = [body.get("title"), body.get("detail") or error or body.get("message")]
    return ": ".join(shown(part) for part in found if isinstance(part, str | list) and part)


def shown(value: object) -> str:
    """Words of a server, for a message: one line, without control characters, bounded."""
    words = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    line = " ".join(words.split())
    return "".join(char for char in line if char.isprintable())[:SHOWN_CHARS]
