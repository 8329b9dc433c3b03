"""Results as one HTML file that needs no network: thumbnails are inside it.

Videos play in the page, from the file where it lies: the page must be opened from disk for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secondglance.errors import MediaError
from secondglance.ingest import images, video
from secondglance.ingest.frame_choice import frames_at
from secondglance.media.pictures import jpeg_uri, open_picture
from secondglance.pipelines import render, shown
from secondglance.types import Hit, Moment, Query, SearchResult, clock, utf8_text

if TYPE_CHECKING:
    from PIL import Image

THUMBNAIL = 400
DRAFT = (2 * THUMBNAIL, 2 * THUMBNAIL)
SMALL = 128
"""Side of the pictures of further moments."""

PLAYABLE = {".mp4", ".m4v", ".mov", ".webm", ".ogv", ".mkv", ".3gp"}
"""What some browser plays. For the others the keyframe is a link to the file."""


def contact_sheet(result: SearchResult) -> str:
    """The page; files that cannot be shown any more keep their place, with the reason."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("contact_sheet.html").render(
        title=utf8_text(render.describe(result)),
        query_picture=_query_picture(result.query),
        timings=render.timings(result),
        warnings=[utf8_text(warning) for warning in result.warnings],
        message=utf8_text(result.message),
        cards=[_card(hit) for hit in result.hits],
    )


def _card(hit: Hit) -> dict[str, Any]:
    path = Path(hit.path)
    card: dict[str, Any] = {
        "hit": hit,
        "name": utf8_text(path.name),
        "folder": utf8_text(str(path.parent)),
        "link": path.as_uri(),
        "change": hit.recall_rank - hit.rank,
        "facts": shown.facts(hit.metadata, camera=True),
        "tags": hit.metadata.get("tags", []),
        "moments": [],
    }
    if hit.kind == "video":
        card |= _video(path, hit.moments)
    elif hit.kind == "image":
        try:
            with open_picture(path) as opened:
                card["thumbnail"] = _data_uri(images.load_rgb(opened, draft_size=DRAFT), THUMBNAIL)
        except (MediaError, OSError) as error:
            card["problem"] = utf8_text(str(error))
    return card


def _video(path: Path, moments: Sequence[Moment]) -> dict[str, Any]:
    """What a card shows of a video: its first moment large, and all of them as small pictures."""
    found: dict[str, Any] = {
        "plays": bool(moments) and path.suffix.lower() in PLAYABLE,
        "moments": [
            {
                "link": _at(path, moment),
                "text": render.stretch(moment),
                "at": clock(moment.start_s),
                "moment": moment,
            }
            for moment in moments
        ],
    }
    if moments:
        found["link"] = found["moments"][0]["link"]
    times_s = sorted({moment.keyframe_s for moment in moments})
    try:
        pictures = dict(frames_at(path, times_s))
    except (MediaError, OSError) as error:
        return found | {"problem": utf8_text(str(error)), "plays": False}
    for number, moment in enumerate(moments):
        picture = pictures.get(moment.keyframe_s)
        if picture is None:
            continue
        if number == 0:
            found["thumbnail"] = _data_uri(picture, THUMBNAIL)
        found["moments"][number]["thumbnail"] = _data_uri(picture, SMALL)
    if "thumbnail" not in found:
        found["problem"] = "its frame is damaged"
    return found


def _at(path: Path, moment: Moment) -> str:
    """The file with a media fragment (https://www.w3.org/TR/media-frags/): where to play."""
    return f"{path.as_uri()}#t={moment.start_s:.3f},{moment.end_s:.3f}"


def _query_picture(query: Query) -> str | None:
    """The picture or the first frame of the clip that was looked for, if it is still there."""
    try:
        if query.image is not None:
            with open_picture(Path(query.image).expanduser()) as opened:
                return _data_uri(images.load_rgb(opened, draft_size=DRAFT), THUMBNAIL)
        if query.video is not None:
            return _data_uri(video.read_frame_at(Path(query.video).expanduser(), 0.0), THUMBNAIL)
    except (MediaError, OSError):
        pass
    return None


def _data_uri(picture: Image.Image, side: int) -> str:
    smaller = picture.copy()
    smaller.thumbnail((side, side))
    return jpeg_uri(smaller, quality=82)
