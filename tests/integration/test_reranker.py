"""The reranker on the untrained checkpoint: batches, media, budgets, errors."""

from __future__ import annotations

import http.server
import math
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from secondglance.errors import InputError, MediaError, RerankError
from secondglance.rerank import Qwen3VLReranker
from secondglance.rerank.passthrough import PassthroughReranker
from secondglance.types import Content, VideoClip
from tests.media import picture, write_clip, write_pictures

TOLERANCE = 1e-4
"""Log-odds in float32: batches of other shapes round differently."""
QUERY = Content(texts=["two dogs on a beach"])


@pytest.fixture(scope="module")
def reranker(untrained_reranker: Path) -> Qwen3VLReranker:
    return Qwen3VLReranker(untrained_reranker, device="cpu")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> list[Content]:
    """Candidates of every kind and of very different lengths."""
    folder = tmp_path_factory.mktemp("mixed")
    photos = write_pictures(folder, 3)
    video = write_clip(folder / "clip.mp4", [1, 2], scene_s=3)
    return [
        Content(texts=["two dogs"]),
        Content(images=[photos[0]]),
        Content(images=[picture(9, width=400, height=300)]),
        Content(videos=[VideoClip(path=video)]),
        Content(videos=[VideoClip(path=video, start_s=1.0, end_s=2.0)], texts=["a clip"]),
        Content(images=photos, texts=["three pictures"]),
        Content(
            videos=[VideoClip(frames=[picture(1), picture(2), picture(3)], times_s=[0, 4, 9])],
            images=[photos[1]],
            texts=["all", "of it"],
        ),
        Content(),
        Content(texts=["dog " * 500]),
    ]


# Batches


def test_a_batch_scores_as_its_members_alone(
    reranker: Qwen3VLReranker, mixed: list[Content], monkeypatch: pytest.MonkeyPatch
) -> None:
    query = Content(texts=["dogs"], images=[picture(5)])
    alone = [reranker.log_odds(query, [document])[0] for document in mixed]
    assert len(set(alone)) == len(mixed)
    for batch_tokens in (1, 2_000, 8_192, 1 << 20):
        monkeypatch.setattr(reranker, "batch_tokens", batch_tokens)
        together = reranker.log_odds(query, mixed)
        assert together == pytest.approx(alone, abs=TOLERANCE)


def test_order_of_candidates_does_not_matter(
    reranker: Qwen3VLReranker, mixed: list[Content]
) -> None:
    forward = reranker.log_odds(QUERY, mixed)
    backward = reranker.log_odds(QUERY, mixed[::-1])
    assert backward[::-1] == pytest.approx(forward, abs=TOLERANCE)


def test_repeating_is_identical(reranker: Qwen3VLReranker, mixed: list[Content]) -> None:
    assert reranker.score(QUERY, mixed) == reranker.score(QUERY, mixed)


def test_score_is_the_sigmoid_of_the_log_odds(
    reranker: Qwen3VLReranker, mixed: list[Content]
) -> None:
    for answer in reranker.score(QUERY, mixed):
        assert answer.error is None
        assert answer.log_odds is not None
        assert answer.score == pytest.approx(1 / (1 + math.exp(-answer.log_odds)))


def test_no_documents(reranker: Qwen3VLReranker) -> None:
    assert reranker.score(QUERY, []) == []


def test_instruction_and_every_part_count(reranker: Qwen3VLReranker) -> None:
    image = picture(3)
    odds = [
        reranker.log_odds(QUERY, [Content(images=[image])])[0],
        reranker.log_odds(QUERY, [Content(images=[image])], instruction="Find cats.")[0],
        reranker.log_odds(QUERY, [Content(images=[image, image])])[0],
        reranker.log_odds(QUERY, [Content(images=[image], texts=["a dog"])])[0],
        reranker.log_odds(QUERY, [Content(videos=[VideoClip(frames=[image, image])])])[0],
    ]
    assert len({round(value, 5) for value in odds}) == len(odds)


def test_a_batch_beyond_memory_is_halved(
    reranker: Qwen3VLReranker, mixed: list[Content], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = reranker.score(QUERY, mixed)
    engine = reranker._engine
    log_odds = engine.forward.log_odds
    sizes: list[int] = []

    def small_memory(batch: Any, prefix: Any = None) -> torch.Tensor:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if len(batch[0]) > 1500:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return log_odds(batch, prefix)

    monkeypatch.setattr(engine.forward, "log_odds", small_memory)
    monkeypatch.setattr(engine, "batch_tokens", 1 << 20)
    answers = reranker.score(QUERY, mixed)
    assert max(sizes) == len(mixed)
    assert answers[-1].score is None
    assert "do not fit in the memory of cpu" in str(answers[-1].error)
    for answer, other in zip(answers[:-1], expected[:-1], strict=True):
        assert answer.log_odds == pytest.approx(other.log_odds, abs=TOLERANCE)


def test_a_failing_model_is_a_rerank_error(
    reranker: Qwen3VLReranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(batch: Any, prefix: Any = None) -> torch.Tensor:
        raise RuntimeError("device-side assert")

    monkeypatch.setattr(reranker._engine.forward, "log_odds", broken)
    with pytest.raises(RerankError, match="device-side assert"):
        reranker.score(QUERY, [Content(texts=["a"])])


def test_concurrent_calls_agree(reranker: Qwen3VLReranker, mixed: list[Content]) -> None:
    expected = reranker.log_odds(QUERY, mixed)
    results: list[list[float]] = []
    threads = [
        threading.Thread(target=lambda: results.append(reranker.log_odds(QUERY, mixed)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 3


# What cannot be read


@pytest.fixture
def broken(tmp_path: Path) -> dict[str, Content]:
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "text.mp4").write_text("no video" * 100)
    (tmp_path / "empty.png").touch()
    picture(1, width=400, height=400).save(tmp_path / "torn.jpg")
    torn = (tmp_path / "torn.jpg").read_bytes()
    (tmp_path / "torn.jpg").write_bytes(torn[: len(torn) // 2])
    Image.new("1", (20_000, 10_000)).save(tmp_path / "bomb.png")
    images = ["missing.png", "text.jpg", "empty.png", "torn.jpg", "bomb.png"]
    return {name: Content(images=[tmp_path / name]) for name in images} | {
        "missing.mp4": Content(videos=[VideoClip(path=tmp_path / "missing.mp4")]),
        "text.mp4": Content(videos=[VideoClip(path=tmp_path / "text.mp4")]),
        "2 times": Content(videos=[VideoClip(frames=[picture(1)], times_s=[0.0, 1.0])]),
        "without frames": Content(videos=[VideoClip()]),
        "1 frames": Content(videos=[VideoClip(frames=[tmp_path / "text.jpg"])]),
        "ratio": Content(images=[Image.new("RGB", (9000, 3))]),
    }


def test_an_unreadable_candidate_fails_alone(
    reranker: Qwen3VLReranker, broken: dict[str, Content]
) -> None:
    good = Content(images=[picture(1)])
    [alone] = reranker.score(QUERY, [good])
    answers = reranker.score(QUERY, [good, *broken.values(), good])
    for name, answer in zip(broken, answers[1:-1], strict=True):
        assert answer.score is None
        assert answer.log_odds is None
        assert answer.error
        assert name in answer.error or name == "1 frames"
        assert "\n" not in answer.error
    for answer in (answers[0], answers[-1]):
        assert answer.log_odds == pytest.approx(alone.log_odds, abs=TOLERANCE)


def test_an_unreadable_query_raises(reranker: Qwen3VLReranker, broken: dict[str, Content]) -> None:
    for query in broken.values():
        with pytest.raises(MediaError, match="the query: "):
            reranker.score(query, [Content(texts=["a"])])


# The official call


def test_process_takes_the_official_forms(reranker: Qwen3VLReranker, tmp_path: Path) -> None:
    first, second = write_pictures(tmp_path, 2)
    video = write_clip(tmp_path / "clip.mp4", [1, 2], scene_s=4)
    frames: list[Path | Image.Image] = [first, second]
    documents: list[dict[str, Any]] = [
        {"text": "a dog"},
        {"text": ["a", "dog"], "image": str(first)},
        {"image": [str(first), picture(1)]},
        {"video": str(video)},
        {"video": [str(first), str(second)], "text": ""},
        {"video": [[str(first), str(second)], str(video)]},
        {"image": f"file://{first}"},
        {},
    ]
    expected = [
        Content(texts=["a dog"]),
        Content(texts=["a", "dog"], images=[first]),
        Content(images=[first, picture(1)]),
        Content(videos=[VideoClip(path=video)]),
        Content(videos=[VideoClip(frames=frames)], texts=[""]),
        Content(videos=[VideoClip(frames=frames), VideoClip(path=video)]),
        Content(images=[first]),
        Content(),
    ]
    inputs = {"instruction": "Find.", "query": {"text": "dogs"}, "documents": documents}
    answers = reranker.score(Content(texts=["dogs"]), expected, instruction="Find.")
    assert reranker.process(inputs) == [answer.score for answer in answers]
    assert reranker.process({**inputs, "query": {"text": ("Find.", "dogs")}}) == [
        answer.score for answer in answers
    ]
    [more] = reranker.process(
        {"query": {"text": "dogs"}, "documents": [documents[3]], "fps": 4, "max_frames": 32}
    )
    assert more != answers[3].score


@pytest.mark.parametrize(
    "inputs",
    [{}, {"query": {}, "documents": [{"text": "a"}]}, {"query": {"text": "a"}, "documents": []}],
)
def test_process_without_work(reranker: Qwen3VLReranker, inputs: dict[str, Any]) -> None:
    assert reranker.process(inputs) == []


def test_process_marks_the_unreadable(reranker: Qwen3VLReranker, tmp_path: Path) -> None:
    documents = [{"text": "a"}, {"image": str(tmp_path / "missing.jpg")}, {"text": "b"}]
    with pytest.warns(UserWarning, match=r"document 1 was not scored: .*missing\.jpg"):
        scores = reranker.process({"query": {"text": "q"}, "documents": documents})
    assert [math.isnan(score) for score in scores] == [False, True, False]
    with pytest.raises(MediaError, match=r"missing\.jpg"):
        reranker.process({"query": documents[1], "documents": [{"text": "a"}]})
    with pytest.raises(InputError, match="not <class 'int'>"):
        reranker.process({"query": {"text": "q"}, "documents": [{"image": 3}]})


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    handler = partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_process_fetches_urls(reranker: Qwen3VLReranker, tmp_path: Path, web: str) -> None:
    [path] = write_pictures(tmp_path, 1)
    query = {"text": "dogs"}
    documents = [{"image": f"{web}/{path.name}?x=1"}, {"image": str(path)}]
    remote, local = reranker.process({"query": query, "documents": documents})
    assert remote == pytest.approx(local, abs=TOLERANCE)
    with pytest.warns(UserWarning, match="cannot be fetched: File not found"):
        [score] = reranker.process({"query": query, "documents": [{"image": f"{web}/none.jpg"}]})
    assert math.isnan(score)


def test_passthrough_keeps_the_order() -> None:
    answers = PassthroughReranker().score(QUERY, [Content(texts=[word]) for word in "abc"])
    assert [(answer.score, answer.log_odds, answer.error) for answer in answers] == [
        (0.5, 0.0, None)
    ] * 3
