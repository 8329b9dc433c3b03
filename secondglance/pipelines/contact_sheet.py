"""Results as one HTML file that needs nothing else: thumbnails are inside it."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from secondglance.errors import MediaError
from secondglance.ingest import images, video
from secondglance.media.pictures import open_picture
from secondglance.pipelines import render, shown
from secondglance.types import Hit, SearchResult

THUMBNAIL = 320


def contact_sheet(result: SearchResult) -> str:
    """The page; files that cannot be shown any more keep their place, with the reason."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True
    )
    query = result.query
    return environment.get_template("contact_sheet.html").render(
        title=render.describe(result),
        query_image=_data_uri(Path(query.image)) if query.image is not None else None,
        timings=render.timings(result),
        warnings=result.warnings,
        cards=[_card(hit) for hit in result.hits],
    )


def _card(hit: Hit) -> dict[str, Any]:
    path = Path(hit.path)
    fragment = "" if hit.start_s is None else f"#t={hit.start_s:g},{hit.end_s:g}"
    card: dict[str, Any] = {
        "hit": hit,
        "name": path.name,
        "folder": str(path.parent),
        "link": path.as_uri() + fragment,
        "moments": [
            {
                "link": f"{path.as_uri()}#t={m.start_s:g},{m.end_s:g}",
                "text": f"{render.clock(m.start_s)}-{render.clock(m.end_s)}",
            }
            for m in hit.moments
        ],
        "change": hit.recall_rank - hit.rank,
        "facts": shown.facts(hit.metadata, camera=True),
        "tags": hit.metadata.get("tags", []),
    }
    if hit.kind != "text":
        try:
            card["thumbnail"] = _data_uri(path, time_s=hit.keyframe_s)
        except (MediaError, OSError) as error:
            card["problem"] = str(error)
    return card


def _data_uri(path: Path, *, time_s: float | None = None) -> str:
    if time_s is None:
        with open_picture(path.expanduser()) as opened:
            picture = images.load_rgb(opened, draft_size=(2 * THUMBNAIL, 2 * THUMBNAIL))
    else:
        picture = video.read_frame_at(path, time_s)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
