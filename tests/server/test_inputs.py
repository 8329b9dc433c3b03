"""References in queries and documents: they score as the files themselves, or say why not."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from secondglance.library import Library
from secondglance.server import inputs as inputs_module
from secondglance.server import intake
from secondglance.server.inputs import Inputs
from secondglance.server.options import ServerOptions
from secondglance.server.schemas import Clip, Parts, QueryParts
from secondglance.types import Content, Query, VideoClip
from tests import hazards
from tests.media import picture, write_clip
from tests.served import client

WORDS = "a red square"


@pytest.fixture(scope="module")
def http(library: Library) -> Iterator[httpx.Client]:
    with client(library, ServerOptions(decode_workers=1)) as found:
        yield found


@pytest.fixture(scope="module")
def inputs(library: Library) -> Iterator[Inputs]:
    options = ServerOptions(decode_workers=1, url_hosts=("media.example",), max_upload_mb=1)
    found = Inputs(library, options)
    yield found
    found.close()


@pytest.fixture(scope="module")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that clients have: pictures of all sorts, and clips."""
    folder = tmp_path_factory.mktemp("brought")
    shown = picture(70, width=200, height=120)
    shown.save(folder / "rgb.png")
    shown.save(folder / "photo.jpg", quality=80)
    turned = Image.Exif()
    turned[0x0112] = 8
    shown.save(folder / "turned.jpg", exif=turned)
    shown.convert("CMYK").save(folder / "print.jpg")
    alpha = Image.linear_gradient("L").resize(shown.size)
    clear = shown.copy()
    clear.putalpha(alpha)
    clear.save(folder / "clear.png")
    clear.save(folder / "clear.webp", lossless=True)
    shown.convert("P").save(folder / "palette.png", transparency=3)
    shown.convert("LA").save(folder / "grey-clear.png")
    Image.fromarray(np.asarray(shown.convert("L")).astype(np.uint16) * 200).save(
        folder / "deep.png"
    )
    shown.save(
        folder / "moving.gif", save_all=True, append_images=[picture(71, width=200, height=120)]
    )
    write_clip(folder / "clip.mp4", [30, 31, 32], scene_s=3.0)
    return folder


def data(path: Path) -> str:
    return "data:application/x-nonsense;base64," + base64.b64encode(path.read_bytes()).decode()


def upload(http: httpx.Client, path: Path) -> str:
    answer = http.post("/v1/uploads", content=path.read_bytes())
    assert answer.status_code == 201, answer.text
    return str(answer.json()["reference"])


def scores(http: httpx.Client, query: Any, documents: list[Any]) -> list[float]:
    answer = http.post("/v1/rerank", json={"query": query, "documents": documents})
    assert answer.status_code == 200, answer.text
    found = sorted(answer.json()["results"], key=lambda result: result["index"])
    assert [result["error"] for result in found] == [None] * len(documents)
    return [float(result["relevance_score"]) for result in found]


def ids(library: Library, path: Path) -> list[str]:
    catalog = library._parts.catalog
    file = catalog.file(path)
    assert file is not None
    assert file.hash is not None
    return catalog.record_ids(file.hash)


def local(library: Library, query: Content, *documents: Content) -> list[float]:
    return [float(pair.score or -1) for pair in library.rerank(query, documents)]


def test_pictures_score_as_their_files(http: httpx.Client, library: Library, brought: Path) -> None:
    paths = sorted(path for path in brought.iterdir() if path.suffix not in (".mp4", ".gif"))
    assert len(paths) == 9
    expected = local(library, Content(texts=(WORDS,)), *(Content(images=(p,)) for p in paths))
    assert len({round(score, 6) for score in expected}) > 4
    uploaded = [{"image": upload(http, path)} for path in paths]
    sent = [{"image": data(path)} for path in paths]
    assert scores(http, WORDS, uploaded) == pytest.approx(expected, abs=1e-5)
    assert scores(http, WORDS, sent) == pytest.approx(expected, abs=1e-5)


def test_clips_score_as_their_files(http: httpx.Client, library: Library, brought: Path) -> None:
    path = brought / "clip.mp4"
    stretch: dict[str, Any] = {"start_s": 2.0, "end_s": 7.5, "keyframe_s": 6.1}
    expected = local(
        library,
        Content(texts=(WORDS,)),
        Content(videos=(VideoClip(path=path),)),
        Content(videos=(VideoClip(path=path, **stretch),)),
    )
    assert expected[0] != pytest.approx(expected[1], abs=1e-6)
    for reference in (upload(http, path), data(path)):
        asked = [{"video": reference}, {"video": {"url": reference, **stretch}}]
        assert scores(http, WORDS, asked) == pytest.approx(expected, abs=1e-5)


def test_records_score_as_their_files(http: httpx.Client, library: Library, media: Path) -> None:
    shown = media / "photos" / "picture-0001.jpg"
    (picture_id,) = ids(library, shown)
    film_id = ids(library, media / "clip.mp4")[0]
    text_id = ids(library, media / "notes.txt")[0]
    film, text = library.located(film_id), library.located(text_id)
    assert film is not None
    assert text is not None
    start_s, end_s, keyframe_s = film.stretch()
    clip = VideoClip(path=media / "clip.mp4", start_s=start_s, end_s=end_s, keyframe_s=keyframe_s)
    words = str(text.payload["text"])
    expected = local(
        library,
        Content(texts=(WORDS,)),
        Content(images=(shown,)),
        Content(videos=(clip,)),
        Content(texts=(words,)),
        Content(texts=("with words", words), images=(shown,)),
    )
    parts = [
        {"type": "text", "text": "with words"},
        {"type": "image_url", "image_url": {"url": f"id:{picture_id}"}},
        {"type": "image_url", "image_url": {"url": f"id:{text_id}"}},
    ]
    asked = [
        {"image": f"id:{picture_id}"},
        {"video": f"id:{film_id}"},
        {"image": f"id:{text_id}"},
        {"content": parts},
    ]
    assert scores(http, WORDS, asked) == pytest.approx(expected, abs=1e-5)
    as_query = local(library, Content(images=(shown,)), Content(texts=("one",)))
    assert scores(http, {"image": f"id:{picture_id}"}, ["one"]) == pytest.approx(as_query, abs=1e-5)


def test_frames_score_as_a_list_of_frames(
    http: httpx.Client, library: Library, brought: Path, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{seed}.png" for seed in range(4)]
    for seed, path in enumerate(paths):
        picture(seed).save(path)
    clip = VideoClip(frames=paths, times_s=(0.0, 1.0, 2.0, 3.0))
    expected = local(library, Content(texts=(WORDS,)), Content(videos=(clip,)))
    asked = {"video": {"frames": [data(path) for path in paths], "times_s": [0, 1, 2, 3]}}
    assert scores(http, WORDS, [asked]) == pytest.approx(expected, abs=1e-5)


def found(http: httpx.Client, query: dict[str, Any]) -> list[tuple[str, float, float | None]]:
    answer = http.post("/v1/search", json={"query": query, "k": 10})
    assert answer.status_code == 200, answer.text
    return [(h["id"], h["recall_score"], h["rerank_score"]) for h in answer.json()["hits"]]


def expected_hits(library: Library, query: Query) -> list[tuple[str, Any, Any]]:
    def near(score: float | None) -> Any:
        return pytest.approx(score, abs=1e-5)

    hits = library.search(query, k=10).hits
    return [(hit.id, near(hit.recall_score), near(hit.rerank_score)) for hit in hits]


@pytest.mark.parametrize("name", ["rgb.png", "turned.jpg", "clear.png"])
def test_a_search_by_picture(
    http: httpx.Client, library: Library, brought: Path, name: str
) -> None:
    expected = expected_hits(library, Query(image=brought / name))
    assert found(http, {"image": upload(http, brought / name)}) == expected


def test_a_search_by_clip(http: httpx.Client, library: Library, brought: Path) -> None:
    path = brought / "clip.mp4"
    expected = expected_hits(library, Query(text="red", video=path))
    assert found(http, {"text": "red", "video": upload(http, path)}) == expected
    assert found(http, {"text": "red", "video": data(path)}) == expected


def test_a_search_by_record(http: httpx.Client, library: Library, media: Path) -> None:
    film_id = ids(library, media / "clip.mp4")[0]
    film = library.located(film_id)
    assert film is not None
    from secondglance.ingest.video import read_frame_at

    (shown,) = ids(library, media / "photos" / "picture-0001.jpg")
    assert found(http, {"image": f"id:{shown}"}) == expected_hits(
        library, Query(image=media / "photos" / "picture-0001.jpg")
    )
    keyframe = media.parent / "keyframe.png"
    read_frame_at(media / "clip.mp4", film.stretch()[2]).save(keyframe)
    assert found(http, {"image": f"id:{film_id}"}) == expected_hits(library, Query(image=keyframe))
    hits = found(http, {"video": f"id:{film_id}"})
    assert len(hits) > 1
    text_id = ids(library, media / "notes.txt")[0]
    text = library.located(text_id)
    assert text is not None
    assert found(http, {"image": f"id:{text_id}"}) == expected_hits(
        library, Query(text=str(text.payload["text"]))
    )


BAD = [
    ("/etc/passwd", "not a reference"),
    ("../../etc/passwd", "not a reference"),
    ("file:///etc/passwd", "not a reference"),
    ("picture-0001.jpg", "not a reference"),
    ("C:\\windows\\win.ini", "not a reference"),
    ("concat:/etc/passwd|/etc/hosts", "not a reference"),
    ("javascript:alert(1)", "not a reference"),
    ("upload:../../etc/passwd", "no such upload"),
    ("upload:" + "A" * 32, "no such upload"),
    ("id:/etc/passwd", "no record"),
    ("id:../../x", "no record"),
    ("id:" + "0" * 32, "no record"),
    ("https://example.org/a.png", "not allowed"),
    ("http://169.254.169.254/latest/meta-data/", "not allowed"),
    ("http://127.0.0.1/x", "not allowed"),
    ("data:image/png,abc", "form data:"),
    ("data:image/png;base64,@@@", "not base64"),
    ("data:image/png;base64,AAAA AAAA", "not base64"),
    ("data:image/png;base64,AAA", "not base64"),
    ("data:image/png;base64,é", "not base64"),
    ("data:;base64,", "empty"),
    ("data:image/svg+xml;base64," + base64.b64encode(b"<svg/>").decode(), "picture that can be"),
]


@pytest.mark.parametrize(("reference", "said"), BAD)
def test_a_bad_query_is_422(http: httpx.Client, reference: str, said: str) -> None:
    for url, asked in (
        ("/v1/search", {"query": {"image": reference}}),
        ("/v1/rerank", {"query": {"image": reference}, "documents": ["x"]}),
    ):
        answer = http.post(url, json=asked)
        assert answer.status_code == 422, answer.text
        assert said in answer.json()["detail"]


def test_a_bad_document_is_its_own_error(http: httpx.Client) -> None:
    documents = ["good", *({"image": reference} for reference, _ in BAD), "good as well"]
    answer = http.post("/v1/rerank", json={"query": WORDS, "documents": documents}).json()
    results = sorted(answer["results"], key=lambda result: result["index"])
    assert [result["relevance_score"] is None for result in results] == (
        [False] + [True] * len(BAD) + [False]
    )
    for result, (_, said) in zip(results[1:-1], BAD, strict=True):
        assert said in result["error"]
    assert answer["warnings"] == [f"{len(BAD)} of {len(documents)} documents could not be scored"]


def test_a_document_that_kills_its_worker(
    library: Library, brought: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crafted = "data:;base64," + base64.b64encode(b"kills it").decode()
    good = data(brought / "rgb.png")
    with client(library, ServerOptions(decode_workers=1)) as http:
        with monkeypatch.context() as patch:
            patch.setattr(intake, "take", hazards.hazardous_take)
            asked = {"query": WORDS, "documents": [{"image": crafted}, "words"]}
            answer = http.post("/v1/rerank", json=asked)
        assert answer.status_code == 200
        first, second = sorted(answer.json()["results"], key=lambda result: result["index"])
        assert "crashed" in first["error"]
        assert second["relevance_score"] is not None
        assert len(scores(http, WORDS, [{"image": good}])) == 1


def refused(inputs: Inputs, side: Parts) -> str:
    from secondglance.errors import MediaError

    with inputs.scope() as scope, pytest.raises(MediaError) as caught:
        scope.content(side)
    return str(caught.value)


def test_kinds_that_do_not_fit(
    inputs: Inputs, library: Library, brought: Path, media: Path
) -> None:
    (shown,) = ids(library, media / "photos" / "picture-0001.jpg")
    assert "picture, not a clip" in refused(inputs, Parts(video=data(brought / "rgb.png")))
    assert "no picture" in refused(inputs, Parts(image=data(brought / "clip.mp4")))
    assert "picture, not a clip" in refused(inputs, Parts(video=f"id:{shown}"))


@pytest.mark.parametrize(
    ("clip", "said"),
    [
        (Clip(), "either"),
        (Clip(url="data:;base64,AAAA", frames=["data:;base64,AAAA"]), "either"),
        (Clip(url="data:;base64,AAAA", start_s=3, end_s=2), "before it begins"),
        (Clip(frames=["data:;base64,AAAA"], times_s=[1, 2]), "1 frames with 2 times"),
    ],
)
def test_clips_that_make_no_sense(inputs: Inputs, clip: Clip, said: str) -> None:
    assert said in refused(inputs, Parts(video=clip))


def test_an_animation_is_a_picture_or_a_clip_as_asked(inputs: Inputs, brought: Path) -> None:
    with inputs.scope() as scope:
        moving = data(brought / "moving.gif")
        assert isinstance(scope.image(moving), Path)
        assert len(scope.video(moving).frames) == 2


def test_the_size_of_a_data_url(inputs: Inputs) -> None:
    large = "data:;base64," + base64.b64encode(bytes(1_000_010)).decode()
    assert "over the limit of 1 MB" in refused(inputs, Parts(image=large))


def test_so_many_in_a_request(
    inputs: Inputs, brought: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs_module, "MAX_MEDIA", 2)
    monkeypatch.setattr(inputs_module, "MAX_REMOTE", 1)
    names = ("rgb.png", "photo.jpg", "clear.png")
    same = [data(brought / "rgb.png")] * 5
    with inputs.scope() as scope:
        assert len(set(scope.content(Parts(image=same)).images)) == 1
    assert "more than 2" in refused(inputs, Parts(image=[data(brought / n) for n in names]))

    def nothing(url: str, into: Path) -> None:
        into.write_bytes((brought / "rgb.png").read_bytes())

    monkeypatch.setattr(inputs.remote, "fetch", nothing)
    addresses = ["https://media.example/1", "https://media.example/2"]
    assert "more than 1 addresses" in refused(inputs, Parts(image=addresses))


def test_what_is_fetched_goes_the_same_way(
    inputs: Inputs, brought: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetched(url: str, into: Path) -> None:
        into.write_bytes((brought / "turned.jpg").read_bytes())

    monkeypatch.setattr(inputs.remote, "fetch", fetched)
    with inputs.scope() as scope:
        path = scope.image("https://media.example/a.jpg")
        with Image.open(path) as opened:
            assert (opened.format, opened.size) == ("PNG", (120, 200))


def test_room_for_all_requests_together(inputs: Inputs, brought: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG", quality=10)
    sent = "data:;base64," + base64.b64encode(buffer.getvalue()).decode()
    room, inputs._room = inputs._room, 250_000
    try:
        with inputs.scope() as first:
            path = first.image(sent)
            assert path.stat().st_size < 250_000 < 2 * path.stat().st_size
            assert "take more than" in refused(inputs, Parts(image=sent))
        assert not path.exists()
        with inputs.scope() as after:
            assert after.image(sent).exists()
    finally:
        inputs._room = room
    assert inputs._used == 0


def test_a_query_of_a_clip_has_frames_for_both_passes(inputs: Inputs, brought: Path) -> None:
    with inputs.scope() as scope:
        query = scope.query(QueryParts(video=data(brought / "clip.mp4")))
        assert query.video is None
        assert query.clip is not None
        assert len(query.clip.glances) == 8
        assert query.clip.clip.sampled
        assert query.clip.clip.path is None
        kept = [path for path in query.clip.clip.frames if isinstance(path, Path)]
        assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in kept)
