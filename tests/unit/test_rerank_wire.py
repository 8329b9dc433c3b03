"""What is sent to each kind of server, and what is made of answers."""

from __future__ import annotations

import base64
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from secondglance.errors import MediaError
from secondglance.rerank import wire
from secondglance.rerank.limits import Limits
from secondglance.rerank.wire_media import frame_urls, picture_url
from secondglance.types import Content, VideoClip
from tests.media import picture, write_clip
from tests.rerank_server import results

LIMITS = Limits(max_pixels=96 * 96)
ORIENTATION = 0x0112


def sent(url: str) -> tuple[str, bytes]:
    head, _, encoded = url.partition(",")
    return head, base64.b64decode(encoded, validate=True)


def saved(folder: Path, image: Image.Image, suffix: str, **options: Any) -> Path:
    path = folder / f"picture.{suffix}"
    image.save(path, **options)
    return path


@pytest.mark.parametrize(
    ("suffix", "mime"), [("jpg", "image/jpeg"), ("png", "image/png"), ("webp", "image/webp")]
)
def test_a_picture_that_fits_is_sent_as_its_own_bytes(
    tmp_path: Path, suffix: str, mime: str
) -> None:
    path = saved(tmp_path, picture(1), suffix)
    assert sent(picture_url(path, LIMITS)) == (f"data:{mime};base64", path.read_bytes())


def test_large_foreign_and_animated_pictures_are_encoded_anew(tmp_path: Path) -> None:
    large = picture(1, width=400, height=300)
    others = [
        (large, saved(tmp_path, large, "png")),
        (picture(1), saved(tmp_path, picture(1), "bmp")),
        (
            picture(1),
            saved(tmp_path, picture(1), "webp", save_all=True, append_images=[picture(2)]),
        ),
    ]
    for source, path in others:
        head, content = sent(picture_url(path, LIMITS))
        again = Image.open(io.BytesIO(content))
        assert (head, again.format) == ("data:image/jpeg;base64", "JPEG")
        assert again.width * again.height <= LIMITS.max_pixels
        assert again.width % 32 == again.height % 32 == 0  # no server resizes it again
        true = np.asarray(source.resize(again.size), np.float32)
        assert np.abs(np.asarray(again, np.float32) - true).mean() < 6


def test_a_turned_photo_is_sent_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (96, 64), "red")
    image.paste("blue", (0, 0, 48, 64))  # left half; upright (turned by 90 degrees) the top
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    path = saved(tmp_path, image, "jpg", exif=exif)
    _, content = sent(picture_url(path, LIMITS))
    again = Image.open(io.BytesIO(content))
    assert again.height > again.width
    red, _, blue = np.asarray(again, np.float32)[: again.height // 3].mean((0, 1))
    assert blue > 200 > 60 > red
    assert again.getexif().get(ORIENTATION, 1) == 1


def test_a_damaged_picture_fails_here_and_not_at_the_server(tmp_path: Path) -> None:
    whole = saved(tmp_path, picture(1), "png").read_bytes()
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MediaError, match=r"damaged\.png"):
        picture_url(damaged, LIMITS)
    with pytest.raises(MediaError, match=r"nowhere\.png: no such file"):
        picture_url(tmp_path / "nowhere.png", LIMITS)


def test_a_stretch_is_sent_as_frames_with_their_true_times(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", [1, 2], scene_s=3, fps=10)
    clip = VideoClip(path=path, start_s=2.0, end_s=6.0, keyframe_s=4.5)
    urls, times_s = frame_urls(clip, Limits(fps=1.0))
    assert times_s is not None
    assert len(urls) == len(times_s) == 4
    assert times_s[0] == pytest.approx(2.0, abs=0.11)
    assert times_s[-1] == pytest.approx(5.9, abs=0.11)
    assert any(abs(time_s - 4.5) < 1e-3 for time_s in times_s)
    frames = [Image.open(io.BytesIO(sent(url)[1])) for url in urls]
    for frame, time_s in zip(frames, times_s, strict=True):
        expected = [np.asarray(picture(seed).resize(frame.size), np.float32) for seed in (1, 2)]
        far = [np.abs(np.asarray(frame, np.float32) - each).mean() for each in expected]
        assert far.index(min(far)) == (0 if time_s < 3 else 1)


def test_frames_without_times_are_sent_without() -> None:
    clip = VideoClip(frames=(picture(1), picture(2)))
    assert frame_urls(clip, LIMITS)[1] is None
    [video] = [wire.encode(Content(videos=(clip,)), "secondglance", LIMITS)]
    assert isinstance(video, dict)
    assert set(video["video"]) == {"frames"}


def test_own_shape(tmp_path: Path) -> None:
    path = saved(tmp_path, picture(1), "png")
    url = picture_url(path, LIMITS)
    clip = VideoClip(frames=(picture(1), picture(2)), times_s=(0.5, 1.5))
    frames, _ = frame_urls(clip, LIMITS)

    def encoded(**parts: Any) -> wire.Side:
        return wire.encode(Content(**parts), "secondglance", LIMITS)

    assert encoded(texts=("words",)) == "words"
    assert encoded(texts=("a", "b"), images=(path,)) == {"text": ["a", "b"], "image": url}
    assert encoded(images=(path, path)) == {"image": [url, url]}
    assert encoded(videos=(clip,)) == {"video": {"frames": frames, "times_s": [0.5, 1.5]}}


def test_vllm_shape(tmp_path: Path) -> None:
    path = saved(tmp_path, picture(1), "png")
    clip = VideoClip(frames=(picture(1), picture(2)), times_s=(0.5, 1.5))
    frames, _ = frame_urls(clip, LIMITS)
    joined = ",".join(frame.partition(",")[2] for frame in frames)
    content = Content(texts=("words",), images=(path,), videos=(clip,))
    assert wire.encode(content, "vllm", LIMITS) == {
        "content": [
            {"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{joined}"}},
            {"type": "image_url", "image_url": {"url": picture_url(path, LIMITS)}},
            {"type": "text", "text": "words"},
        ]
    }
    assert wire.encode(Content(texts=("words",)), "vllm", LIMITS) == "words"


def test_jina_and_cohere_shapes(tmp_path: Path) -> None:
    path = saved(tmp_path, picture(1), "png")
    words = Content(texts=("a", "b"))
    image = {"image": base64.b64encode(path.read_bytes()).decode()}
    assert wire.encode(words, "jina", LIMITS) == {"text": "a\nb"}
    assert wire.encode(Content(images=(path,)), "jina", LIMITS) == image
    assert wire.encode(words, "cohere", LIMITS) == "a\nb"
    body = wire.request(
        {"text": "q"}, [image], dialect="jina", model="jina-reranker-m0", instruction=None
    )
    assert body == {
        "model": "jina-reranker-m0",
        "query": "q",
        "documents": [image],
        "top_n": 1,
        "return_documents": False,
    }
    body = wire.request("q", ["d", "e"], dialect="cohere", model="rerank-v3.5", instruction=None)
    assert body == {"model": "rerank-v3.5", "query": "q", "documents": ["d", "e"], "top_n": 2}


@pytest.mark.parametrize("dialect", ["jina", "cohere"])
def test_what_a_dialect_cannot_carry_is_an_error(dialect: wire.Dialect) -> None:
    image, clip = picture(1), VideoClip(frames=(picture(1), picture(2)))
    refused = [Content(texts=("a",), images=(image,)), Content(videos=(clip,))]
    refused += [Content(images=(image,))] if dialect == "cohere" else []
    for content in refused:
        with pytest.raises(MediaError, match=f"dialect {dialect} takes no"):
            wire.encode(content, dialect, LIMITS)


@pytest.mark.parametrize("dialect", wire.DIALECTS)
def test_nothing_is_not_sent_as_empty_words(dialect: wire.Dialect) -> None:
    for content in (Content(), Content(texts=("", " \n"))):
        with pytest.raises(MediaError, match="nothing in it"):
            wire.encode(content, dialect, LIMITS)


def test_answers_are_read_in_any_order_with_their_errors() -> None:
    body = results([0.25, None, 1.0, 0.0])
    body["results"][2]["error"] = "cannot be read\n\x1b[31m" + "x" * 1000
    first, broken, one, zero = wire.answer(json.dumps(body).encode(), 4)
    assert first.score == 0.25
    assert first.log_odds == pytest.approx(math.log(0.25 / 0.75))
    assert broken.score is None
    assert broken.error is not None
    assert broken.error.startswith("cannot be read [31mxxx")
    assert len(broken.error) <= wire.SHOWN_CHARS
    assert (one.score, one.log_odds) == (1.0, 30.0)
    assert (zero.score, zero.log_odds) == (0.0, -30.0)


GARBAGE = [
    (b"<html><body>It works!</body></html>", "not JSON; it begins with '<html>"),
    (b'{"results": [', "not JSON"),
    (b"[" * 100_000, "not JSON"),
    (b"\xff\xfe", "not JSON"),
    (b'{"data": []}', 'no list of "results"'),
    (b"[]", 'no list of "results"'),
    (b'{"results": [1, 2]}', "no index"),
    (b'{"results": [{"relevance_score": 0.5}]}', "no index"),
    (b'{"results": [{"index": true, "relevance_score": 0.5}]}', "no index"),
    (b'{"results": [{"index": -1, "relevance_score": 0.5}]}', "index -1; 2 documents"),
    (b'{"results": [{"index": 2, "relevance_score": 0.5}]}', "index 2; 2 documents"),
    (json.dumps(results([0.1])).encode(), "2 documents were sent, 1 were answered"),
    (json.dumps(results([0.1, math.nan])).encode(), "document 1 has the relevance_score nan"),
    (json.dumps(results([0.1, -math.inf])).encode(), "relevance_score -inf"),
    (json.dumps(results([0.1, 7.5])).encode(), "relevance_score 7.5, which is no probability"),
    (json.dumps(results([0.1, -0.5])).encode(), "relevance_score -0.5"),
    (b'{"results": [{"index": 0, "relevance_score": 1' + b"0" * 400 + b"}]}", "no probability"),
    (json.dumps(results([0.1, None])).encode(), "neither a relevance_score nor an error"),
    (b'{"results": [{"index": 0, "relevance_score": "0.5"}]}', "neither a relevance_score"),
    (
        b'{"results": [{"index": 0, "relevance_score": 0.5}, {"index": 0, "relevance_score": 1}]}',
        "two results have the index 0",
    ),
]


@pytest.mark.parametrize(("content", "problem"), GARBAGE)
def test_answers_that_are_none(content: bytes, problem: str) -> None:
    with pytest.raises(wire.BadAnswerError) as caught:
        wire.answer(content, 2)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ({"type": "about:blank", "title": "Queue full", "detail": "try later"},
         "Queue full: try later"),
        ({"error": {"message": "no such model"}}, "no such model"),
        ({"message": "invalid api token"}, "invalid api token"),
        ({"detail": [{"loc": ["query"], "msg": "missing"}]},
         '[{"loc": ["query"], "msg": "missing"}]'),
        (["x"], ""),
    ],
)  # fmt: skip
def test_what_servers_say_of_their_errors(body: Any, line: str) -> None:
    content = json.dumps(body).encode()
    assert wire.refusal(content, "application/problem+json") == line
    assert wire.refusal(content, "text/html") == ""
