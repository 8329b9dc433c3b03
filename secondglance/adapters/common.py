"""What the adapters share: other frameworks' documents as contents, and the order of these."""

from __future__ import annotations

import base64
import binascii
import logging
import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from PIL import Image

from secondglance.errors import InputError, MediaError, MissingExtraError
from secondglance.rerank.base import Reranker
from secondglance.rerank.wire_media import picture_of
from secondglance.types import Content, PairScore, VideoClip

logger = logging.getLogger(__name__)

SCORE_KEY = "rerank_score"
ERROR_KEY = "rerank_error"
IMAGE_KEYS = ("image", "image_path")
VIDEO_KEYS = ("video", "video_path")
FILE_KEY = "file_path"
"""Where LlamaIndex' and Haystack's converters say what a document was made of."""
NAMED = 5


@dataclass(frozen=True, slots=True)
class Ranked:
    """One document: its place in what was given, from 0, and its score."""

    index: int
    pair: PairScore

    @property
    def metadata(self) -> dict[str, Any]:
        """What is added to the document's own metadata."""
        if self.pair.error is None:
            return {SCORE_KEY: self.pair.score}
        return {SCORE_KEY: None, ERROR_KEY: self.pair.error}


def missing(package: str, extra: str) -> MissingExtraError:
    """The error for an adapter whose framework is not installed."""
    return MissingExtraError(
        f"{package} is not installed", remedy=f'pip install "secondglance[{extra}]"'
    )


def check_top_n(top_n: int | None) -> None:
    """Refuses a number of results that cannot be.

    Raises:
        InputError: It is below 1.
    """
    if top_n is not None and top_n < 1:
        raise InputError(f"top_n is {top_n}; it must be at least 1, or None for all")


def rank(
    reranker: Reranker,
    query: Content,
    documents: Sequence[Content | MediaError],
    *,
    top_n: int | None,
    instruction: str | None,
) -> list[Ranked]:
    """Documents by their scores, best first; those without a score follow in the order given.

    Args:
        reranker: What scores.
        query: What is looked for.
        documents: A MediaError stands for one that cannot be used; it is its error.
        top_n: At most so many; None for all.
        instruction: Replaces the reranker's default.

    Raises:
        MediaError: The query cannot be read.
        RerankError: The reranker failed as a whole.
    """
    check_top_n(top_n)
    if not query:
        raise InputError("the query is empty", remedy="give words or a picture to look for")
    usable = [document for document in documents if isinstance(document, Content)]
    scored = iter(reranker.score(query, usable, instruction=instruction) if usable else ())
    pairs = [
        next(scored) if isinstance(each, Content) else PairScore(score=None, error=str(each))
        for each in documents
    ]
    unscored = [str(pair.error) for pair in pairs if pair.score is None]
    if unscored:
        logger.warning(
            "%d of %d documents were not scored and come last: %s",
            len(unscored),
            len(pairs),
            "; ".join(unscored[:NAMED]),
        )

    def place(ranked: Ranked) -> tuple[bool, float]:
        score = ranked.pair.score
        return score is None, -(score or 0.0)

    found = [Ranked(index, pair) for index, pair in enumerate(pairs)]
    return sorted(found, key=place)[:top_n]


def content_of(
    text: str | None,
    metadata: Mapping[str, Any],
    *,
    images: Sequence[Path | Image.Image] = (),
) -> Content | MediaError:
    """A framework's document as the reranker reads it: words, pictures and clips together.

    Pictures stand in `metadata["image"]` or `["image_path"]`: a path, a `data:` URL, bytes, or a
    Pillow picture. A clip stands in `["video"]` or `["video_path"]`, a path, with the seconds of a
    stretch in `start_s` and `end_s`. Without these, `["file_path"]` counts if it is a picture.

    Args:
        text: The document's words.
        metadata: The document's own.
        images: Pictures that the framework keeps elsewhere; `metadata` is then asked for none.
    """
    try:
        pictures = [*images]
        if not pictures:
            given = [metadata[key] for key in IMAGE_KEYS if metadata.get(key) is not None][:1]
            named = metadata.get(FILE_KEY)
            if not given and isinstance(named, str | Path) and is_picture(named):
                given = [named]
            pictures = [opened(each) for each in given]
        clips = [
            VideoClip(
                path=_path(metadata[key]),
                start_s=_seconds(metadata, "start_s"),
                end_s=_seconds(metadata, "end_s"),
            )
            for key in VIDEO_KEYS
            if metadata.get(key) is not None
        ][:1]
    except MediaError as error:
        return error
    texts = (text,) if text and text.strip() else ()
    content = Content(texts=texts, images=tuple(pictures), videos=tuple(clips))
    return content if content else MediaError("it has no words, no picture and no clip")


def opened(source: object) -> Path | Image.Image:
    """A picture: a path as it is; a data URL or bytes decoded.

    Raises:
        MediaError: It is none of these, or an address on the network, which is never fetched.
    """
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, bytes | bytearray):
        return picture_of(bytes(source))
    if isinstance(source, str) and source.startswith("data:"):
        return picture_of(_data(source))
    return _path(source)


def is_picture(name: str | Path) -> bool:
    """Whether a file's name is that of a picture."""
    return (mimetypes.guess_type(str(name))[0] or "").startswith("image/")


def _data(url: str) -> bytes:
    head, comma, body = url.partition(",")
    try:
        if not comma:
            raise ValueError
        if head.endswith(";base64"):
            return base64.b64decode(body, validate=True)
        return unquote_to_bytes(body)
    except (ValueError, binascii.Error):
        raise MediaError(f"the data URL {url[:40]!r}... cannot be decoded") from None


def _path(source: object) -> Path:
    if isinstance(source, str) and "://" in source:
        raise MediaError(
            f"{source[:100]!r} is not fetched", remedy="download it, and give its path or bytes"
        )
    if not isinstance(source, str | Path):
        raise MediaError(f"a {type(source).__name__} is neither a path nor a picture")
    return Path(source).expanduser()


def _seconds(metadata: Mapping[str, Any], key: str) -> float | None:
    value = metadata.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MediaError(f"{key} is {value!r}; it must be a number of seconds")
    return float(value)
