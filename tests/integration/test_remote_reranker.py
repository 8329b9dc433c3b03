"""The remote reranker over a real socket: scores, parts, faults, and a search without it."""

from __future__ import annotations

import io
import json
import logging
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pydantic import SecretStr

from secondglance.errors import InputError, MediaError, RerankError
from secondglance.pipelines.build import open_reranker
from secondglance.pipelines.builtin import starter_folder
from secondglance.rerank import Qwen3VLReranker, RemoteReranker, wire_media
from secondglance.rerank.asking import retry_after_s
from secondglance.rerank.coarse import coarse_view
from secondglance.rerank.wire import Dialect
from secondglance.sections import RerankSettings
from secondglance.types import Content, VideoClip
from tests.libraries import Open
from tests.media import picture, write_clip, write_pictures
from tests.rerank_server import (
    Reply,
    RerankServer,
    answering,
    by_length,
    closed_url,
    results,
    serving,
)

KEY = "sk-very-secret-12345"
QUERY = Content(texts=("a red ball",))
JPEG_LOG_ODDS = 0.5
"""Quality 95 moves the starter model's log-odds by 0.01 for most of these clips and pictures, and
by 0.3 for the one it is least sure of."""
WORDS = [Content(texts=("word " * n,)) for n in range(1, 8)]


@pytest.fixture
def server() -> Iterator[RerankServer]:
    with serving() as made:
        yield made


@pytest.fixture(scope="module")
def starter() -> Qwen3VLReranker:
    return Qwen3VLReranker(starter_folder("reranker"), device="cpu")


def remote(url: str | list[str], **options: Any) -> RemoteReranker:
    return RemoteReranker(url, **{"timeout_s": 10.0, **options})


def png_url(pixels: torch.Tensor) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(file, "PNG")
    return wire_media.data_url("image/png", file.getvalue())


def lengths(documents: list[Content]) -> list[float]:
    return [1 / (1 + len(json.dumps(d.texts[0]))) for d in documents]


def scores(reranker: RemoteReranker, documents: list[Content] = WORDS) -> list[float | None]:
    return [pair.score for pair in reranker.score(QUERY, documents)]


# Scores


@pytest.mark.parametrize("encoding", ["lossless", "jpeg"])
def test_scores_through_the_wire_are_the_local_ones(
    encoding: str, starter: Qwen3VLReranker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes and times are those of the local engine: without JPEG, nothing differs."""
    if encoding == "lossless":
        monkeypatch.setattr(wire_media, "_jpeg_url", png_url)
    images = [tmp_path / f"{seed}.png" for seed in range(3)]
    for seed, path in enumerate(images):
        picture(seed, width=128, height=96).save(path)
    clip = write_clip(tmp_path / "clip.mp4", [1, 2], scene_s=2)
    stretch = VideoClip(path=clip, start_s=0.5, end_s=3.5, keyframe_s=2.5)
    listed = VideoClip(frames=tuple(map(picture, (1, 2, 3))), times_s=(0, 2, 4))
    exact = [
        Content(texts=("a red ball on a table",)),
        *(Content(images=(path,)) for path in images),
        Content(texts=("a", "caption"), images=(images[0], images[1])),
    ]
    unreadable = Content(images=(tmp_path / "nowhere.png",))
    as_jpeg = [
        Content(videos=(stretch,)),
        Content(videos=(listed,)),
        Content(images=(picture(5, width=100, height=80),)),
    ]
    documents = [*exact, unreadable, *as_jpeg]
    cases: list[tuple[Content, str | None]]
    cases = [(Content(images=(images[2],)), "Find the same.")]
    if encoding == "lossless":
        cases.append((Content(texts=QUERY.texts, videos=(stretch,)), None))
    with serving(answering(starter)) as server:
        reranker = remote(server.url, timeout_s=120, max_documents=4)
        for query, instruction in cases:
            here = starter.score(query, documents, instruction=instruction)
            there = reranker.score(query, documents, instruction=instruction)
            for place, (one, two) in enumerate(zip(here, there, strict=True)):
                if place == len(exact):
                    assert one.score is two.score is None
                    assert "nowhere.png" in str(two.error)
                    continue
                exactly = not query.videos and place < len(exact)
                within = 1e-3 if exactly or encoding == "lossless" else JPEG_LOG_ODDS
                assert two.log_odds == pytest.approx(one.log_odds, abs=within)
                assert two.score == pytest.approx(one.score, abs=within)


@pytest.mark.parametrize("dialect", ["secondglance", "vllm", "jina", "cohere"])
def test_each_dialect_over_the_socket(server: RerankServer, dialect: Dialect) -> None:
    model = "some-model"
    reranker = remote(server.origin, dialect=dialect, model=model)
    server.answer = lambda body: Reply(results([0.9, 0.1][: len(body["documents"])]))
    clip = Content(videos=(VideoClip(frames=(picture(1), picture(2))),))
    found = reranker.score(QUERY, [WORDS[0], clip])
    assert found[0].score == 0.9
    assert found[0].log_odds == pytest.approx(math.log(9))
    if dialect in ("jina", "cohere"):
        assert found[1].score is None
        assert f"dialect {dialect} takes no clips" in str(found[1].error)
        with pytest.raises(MediaError, match=r"the query: .* takes no clips"):
            reranker.score(clip, WORDS)
        with pytest.raises(InputError, match="takes no instruction"):
            reranker.score(QUERY, WORDS, instruction="x")
    else:
        assert found[1].score == 0.1
        reranker.score(QUERY, WORDS[:1], instruction="x")
        assert server.seen[-1].body["instruction"] == "x"
    assert server.seen[0].path == ("/v2/rerank" if dialect == "cohere" else "/v1/rerank")
    assert server.seen[0].body["model"] == model
    assert server.seen[0].body["query"] == QUERY.texts[0]
    assert server.seen[0].headers["Content-Type"] == "application/json"


def test_no_documents_ask_nobody(server: RerankServer) -> None:
    assert remote(server.url).score(QUERY, []) == []
    assert server.seen == []


def test_it_has_no_coarse_view(server: RerankServer) -> None:
    assert coarse_view(remote(server.url), 0.5) is None


# Parts


def test_parts_are_bounded_and_go_side_by_side(server: RerankServer) -> None:
    def slowly(body: dict[str, Any]) -> Reply:
        reply = by_length(body)
        reply.after_s = 0.1
        return reply

    server.answer = slowly
    documents = [Content(texts=("x" * n,)) for n in range(1, 21)]
    reranker = remote(server.url, max_documents=3, concurrency=2)
    assert scores(reranker, documents) == pytest.approx(lengths(documents))
    assert [len(seen.body["documents"]) for seen in server.seen].count(3) == 6
    assert len(server.seen) == 7
    assert server.most_at_once == 2


def test_parts_hold_few_enough_bytes(server: RerankServer) -> None:
    documents = [Content(texts=("x" * 900,)) for _ in range(10)]
    reranker = remote(server.url, max_request_bytes=4096)
    found = reranker.score(QUERY, [*documents, Content(texts=("y" * 5000,)), WORDS[0]])
    assert [pair.score for pair in found[:10]] == pytest.approx(lengths(documents))
    assert "takes 5003 bytes" in str(found[10].error)
    assert found[11].score is not None
    assert max(seen.size for seen in server.seen) <= 4096
    assert len(server.seen) == 4
    with pytest.raises(RerankError, match="the query takes more than 4096 bytes"):
        reranker.score(Content(texts=("z" * 5000,)), WORDS)


def test_what_cannot_be_read_fails_alone_and_is_not_sent(
    server: RerankServer, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(b"\xff\xd8\xff" + b"0" * 100)
    bad = [Content(images=(damaged,)), Content(), Content(images=(tmp_path / "gone.png",))]
    found = remote(server.url).score(QUERY, [WORDS[0], *bad, WORDS[1]])
    assert [pair.score is None for pair in found] == [False, True, True, True, False]
    assert [pair.score for pair in (found[0], found[4])] == pytest.approx(lengths(WORDS[:2]))
    assert all(name in str(pair.error) for name, pair in zip(
        ("damaged.jpg", "nothing in it", "gone.png"), found[1:4], strict=True))  # fmt: skip
    assert len(server.seen[0].body["documents"]) == 2
    count = len(server.seen)
    assert all(pair.score is None for pair in remote(server.url).score(QUERY, bad))
    assert len(server.seen) == count  # nothing left to ask about
    with pytest.raises(MediaError, match=r"the query: .*gone\.png"):
        remote(server.url).score(bad[2], WORDS)


# Faults

PASSING = [
    Reply(reset=True),
    Reply(results([0.5]), half=True),
    Reply({}, status=502),
    Reply({}, status=503, headers={"Retry-After": "0"}),
    Reply({}, status=504),
    Reply({}, status=429, headers={"Retry-After": "0"}),
]


@pytest.mark.parametrize("fault", PASSING, ids=lambda f: f"{f.status}{f.reset}{f.half}")
def test_passing_faults_are_tried_again(server: RerankServer, fault: Reply) -> None:
    server.faults = [fault]
    assert scores(remote(server.url)) == pytest.approx(lengths(WORDS))
    assert len(server.seen) == 2
    assert server.seen[0].body == server.seen[1].body


@pytest.mark.parametrize("fault", PASSING, ids=lambda f: f"{f.status}{f.reset}{f.half}")
def test_faults_that_stay_end_in_an_error(server: RerankServer, fault: Reply) -> None:
    server.faults = [fault] * 9
    with pytest.raises(RerankError) as caught:
        remote(server.url, retries=1).score(QUERY, WORDS)
    assert server.url in caught.value.problem
    assert "(2 tries)" in caught.value.problem
    assert caught.value.remedy
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    ("reply", "problem", "remedy"),
    [
        (Reply({"message": f"no {KEY}"}, status=401), "answered 401 .*no \\*\\*\\*", "api_key"),
        (Reply(b"<h1>no</h1>", status=404, content_type="text/html"), "answered 404", "rerank.url"),
        (
            Reply(
                {"title": "Bad request", "detail": "documents[0] is no picture"},
                status=400,
                content_type="application/problem+json",
            ),
            r"\(Bad request: documents\[0\] is no picture\)",
            "dialect",
        ),
        (Reply({"detail": "x"}, status=422), "answered 422", "dialect"),
        (Reply({}, status=500), "answered 500", "log"),
        (
            Reply({}, status=307, headers={"Location": "http://127.0.0.1:9/v1/rerank"}),
            "answered 307 .*redirects are not followed",
            "moved",
        ),
        (Reply(b"<html>hello</html>"), "not JSON", "rerank.url"),
        (Reply(results([0.5])), "7 documents were sent, 1 were answered", "dialect"),
        (Reply(results([math.nan] * 7)), "nan, which is no probability", "dialect"),
        (Reply(b"[" + b"0," * 3000), "over 4096 bytes", "rerank.url"),
        (
            Reply(b"not gzip", headers={"Content-Encoding": "gzip"}),
            "cannot be decompressed",
            "rerank.url",
        ),
    ],
)
def test_other_refusals_and_bad_answers_are_final(
    server: RerankServer, reply: Reply, problem: str, remedy: str
) -> None:
    server.faults = [reply]
    with pytest.raises(RerankError, match=problem) as caught:
        remote(server.url, api_key=KEY, max_answer_bytes=4096).score(QUERY, WORDS)
    assert server.url in caught.value.problem
    assert remedy in str(caught.value.remedy)
    assert KEY not in str(caught.value)
    assert len(server.seen) == 1
    assert server.seen[0].headers["Authorization"] == f"Bearer {KEY}"


def test_a_server_that_is_not_there() -> None:
    url = closed_url()
    with pytest.raises(RerankError, match=r"cannot be reached: .*refused.* \(2 tries\)") as caught:
        remote(url, retries=1).score(QUERY, WORDS)
    assert url in caught.value.problem


@pytest.mark.parametrize("slow", [{"after_s": 1.0}, {"drip_s": 0.05}])
def test_slow_answers_end_in_time_and_are_not_tried_again(
    server: RerankServer, slow: dict[str, float]
) -> None:
    server.faults = [Reply(results([0.5] * 7), **slow)]  # type: ignore[arg-type]
    started = time.monotonic()
    with pytest.raises(RerankError, match=r"did not answer within 0\.3 s"):
        remote(server.url, timeout_s=0.3).score(QUERY, WORDS)
    assert time.monotonic() - started < 0.9
    assert len(server.seen) == 1


def test_a_call_has_a_time_of_its_own(server: RerankServer) -> None:
    server.faults = [Reply({}, status=503, headers={"Retry-After": "20"})] * 5
    started = time.monotonic()
    with pytest.raises(RerankError, match="answered 503"):
        remote(server.url).score(QUERY, WORDS, timeout_s=0.5)
    assert time.monotonic() - started < 0.5  # it does not wait for what would come too late
    server.faults = [Reply({}, after_s=1.0)]
    with pytest.raises(RerankError, match="did not answer within"):
        remote(server.url).score(QUERY, WORDS, timeout_s=0.2)


def test_retry_after_is_honoured_and_capped(
    server: RerankServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.faults = [Reply({}, status=429, headers={"Retry-After": "1"})]
    started = time.monotonic()
    scores(remote(server.url))
    assert 1.0 <= time.monotonic() - started < 3
    monkeypatch.setattr("secondglance.rerank.remote.LONGEST_RETRY_AFTER_S", 0.1)
    server.faults = [Reply({}, status=429, headers={"Retry-After": "86400"})]
    started = time.monotonic()
    scores(remote(server.url))
    assert 0.1 <= time.monotonic() - started < 3


def test_retry_after_values() -> None:
    assert retry_after_s("120") == 120
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after_s("soon") is retry_after_s("-5") is retry_after_s(None) is None
    assert 3e8 < (retry_after_s("Fri, 31 Dec 2060 23:59:59 GMT") or 0) < 2e9


def test_the_breaker_opens_and_closes(server: RerankServer) -> None:
    reranker = remote(server.url, retries=0, breaker_failures=3, breaker_pause_s=0.3)
    server.faults = [Reply({}, status=500)] * 4
    for _ in range(3):
        with pytest.raises(RerankError, match="answered 500"):
            scores(reranker)
    with pytest.raises(RerankError, match=r"answered 500.*3 failures in a row") as caught:
        scores(reranker)
    assert "tried again in 1 s" in str(caught.value.remedy)
    assert len(server.seen) == 3  # it was not asked
    time.sleep(0.3)
    with pytest.raises(RerankError, match="answered 500"):
        scores(reranker)  # the trial fails, and the next pause begins
    with pytest.raises(RerankError, match="for a while"):
        scores(reranker)
    assert len(server.seen) == 4
    time.sleep(0.3)
    assert scores(reranker) == pytest.approx(lengths(WORDS))
    assert scores(reranker) == pytest.approx(lengths(WORDS))


def test_refusals_of_a_request_do_not_open_the_breaker(server: RerankServer) -> None:
    reranker = remote(server.url, retries=0, breaker_failures=2)
    server.faults = [Reply({}, status=s) for s in (400, 429, 422, 401)]
    for _ in range(4):
        with pytest.raises(RerankError, match="answered 4"):
            scores(reranker)
    assert scores(reranker) == pytest.approx(lengths(WORDS))


def test_several_servers_share_the_work_and_stand_in_for_each_other() -> None:
    gone = closed_url()
    with serving() as one, serving() as two:
        reranker = remote([one.url, gone, two.url], max_documents=1, concurrency=1,
                          breaker_failures=2, breaker_pause_s=60)  # fmt: skip
        started = time.monotonic()
        assert scores(reranker) == pytest.approx(lengths(WORDS))
        assert scores(reranker) == pytest.approx(lengths(WORDS))
        assert time.monotonic() - started < 2
        counts = len(one.seen), len(two.seen)
        assert sum(counts) == 2 * len(WORDS)
        assert min(counts) >= 4
        one.faults = [Reply({}, status=503)]
        assert scores(reranker) == pytest.approx(lengths(WORDS))


def test_threads_share_one_client(server: RerankServer) -> None:
    reranker = remote(server.url, max_documents=2)
    found: list[list[float | None]] = []
    threads = [threading.Thread(target=lambda: found.append(scores(reranker))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [pytest.approx(lengths(WORDS))] * 6


def test_a_closed_one_says_so(server: RerankServer) -> None:
    reranker = remote(server.url)
    scores(reranker)
    reranker.close()
    reranker.close()
    with pytest.raises(RerankError, match="closed"):
        scores(reranker)


# Mistakes


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ([], "no URL"),
        ("localhost:8000", "no URL of a reranker"),
        ("ftp://host/rerank", "no URL of a reranker"),
        ("http://", "no URL of a reranker"),
        ("http://host:port/", "no URL of a reranker"),
        (f"http://me:{KEY}@host/", "holds a name, a password"),
        (f"me:{KEY}@host", "no URL of a reranker"),
        (f"https://host/v1/rerank?key={KEY}", "a query"),
    ],
)
def test_unusable_urls(url: str | list[str], problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        RemoteReranker(url)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"dialect": "openai"}, "the dialect 'openai' is not known"),
        ({"dialect": "cohere"}, "must be told its model"),
        ({"dialect": "jina", "model": "m", "default_instruction": "x"}, "takes no instruction"),
        ({"timeout_s": 0}, "timeout_s is 0"),
        ({"timeout_s": math.nan}, "timeout_s is nan"),
        ({"retries": -1}, "retries is -1"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"api_key": " "}, "the API key .* is empty"),
        ({"api_key": f"{KEY}\nX-Evil: 1"}, "characters that a header cannot hold"),
        ({"api_key": f"{KEY}é"}, "characters that a header cannot hold"),
    ],
)
def test_unusable_options(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        RemoteReranker("http://host", **options)
    assert KEY not in str(caught.value)


def test_the_key_is_nowhere_to_be_seen(
    server: RerankServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.faults = [Reply({"message": KEY}, status=503, headers={"Retry-After": "0"})]
    reranker = remote(server.url, api_key=KEY)
    scores(reranker)
    assert server.seen[0].headers["Authorization"] == f"Bearer {KEY}"
    assert "tried again in 0.00 s" in caplog.text
    assert KEY not in caplog.text
    assert KEY not in f"{reranker!r} {reranker.name} {vars(reranker)}"
    settings = RerankSettings(backend="remote", url=server.url, api_key=SecretStr(KEY))
    assert KEY not in f"{settings!r} {settings.model_dump_json()}"
    assert isinstance(open_reranker(settings), RemoteReranker)


def test_half_characters_are_no_reason_to_fail(server: RerankServer) -> None:
    assert scores(remote(server.url), [Content(texts=("\ud83d",))]) != [None]


# In a library


def test_a_search_over_a_remote_reranker_and_without_it(
    tmp_path: Path, open_library: Open, starter: Qwen3VLReranker
) -> None:
    write_pictures(tmp_path / "photos", 5)
    with serving(answering(starter)) as server:
        settings = {
            "backend": "remote",
            "url": server.url,
            "api_key": KEY,
            "retries": 0,
            "timeout_s": 120,
            "model": "builtin:starter",
        }
        library = open_library(rerank=settings)
        library.index([tmp_path / "photos"])
        found = library.search("a red ball", k=5)
        assert found.warnings == ()
        expected = starter.score(
            Content(texts=("a red ball",)), [Content(images=(Path(h.path),)) for h in found.hits]
        )
        assert [hit.rerank_score for hit in found.hits] == pytest.approx(
            [pair.score for pair in expected], abs=1e-3
        )
        within = library.search("a red ball", k=5, budget_ms=60_000)
        assert [hit.rerank_score for hit in within.hits] == pytest.approx(
            [hit.rerank_score for hit in found.hits]
        )
        assert not (library.folder / "scores.sqlite").exists()
        assert all("model" not in seen.body for seen in server.seen)
        stamp = (library.folder / "library.json").read_text()
        assert server.url in stamp
        assert KEY not in stamp
        assert not any(
            KEY.encode() in path.read_bytes()
            for path in library.folder.rglob("*")
            if path.is_file()
        )
        server.faults = [Reply(b"<html>", status=500, content_type="text/html")]
        fallen = library.search("a red ball", k=5)
    assert [hit.recall_rank for hit in fallen.hits] == [1, 2, 3, 4, 5]
    assert all(hit.rerank_score is None for hit in fallen.hits)
    [warning] = fallen.warnings
    assert warning.startswith("the second pass failed, results are in recall order: the reranker ")
    assert f"{server.url} answered 500" in warning
    [warning] = library.search("a red ball", k=5).warnings  # the server is gone by now
    assert "cannot be reached" in warning
    library.close()


def test_settings_of_a_remote_one(open_library: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    from secondglance.config import load_settings, read_preset
    from secondglance.errors import ConfigError

    cluster = open_reranker(load_settings(base=read_preset("cluster")).rerank)
    assert cluster.name == "Qwen/Qwen3-VL-Reranker-8B at http://localhost:7860/v1/rerank"
    with pytest.raises(ConfigError, match=r"there is no rerank\.url"):
        open_library("without", rerank={"backend": "remote"})
    monkeypatch.setenv("SECONDGLANCE_RERANK__URL", '["http://a", "http://b/rank"]')
    monkeypatch.setenv("SECONDGLANCE_RERANK__API_KEY", KEY)
    settings = load_settings(flags={"rerank": {"backend": "remote", "model": "m"}}).rerank
    made = open_reranker(settings)
    assert isinstance(made, RemoteReranker)
    assert made.urls == ("http://a/v1/rerank", "http://b/rank")
    assert made.name == "m at http://a/v1/rerank, http://b/rank"
    monkeypatch.setenv("SECONDGLANCE_RERANK__URL", "http://a")
    assert load_settings().rerank.url == "http://a"
    with pytest.raises(ConfigError) as caught:
        load_settings(flags={"rerank": {"api_key": [KEY]}})
    assert KEY not in str(caught.value)
    with pytest.raises(ConfigError, match="dialect"):
        load_settings(flags={"rerank": {"dialect": "openai"}})


def test_doctor_asks_the_server(server: RerankServer) -> None:
    from secondglance.pipelines.doctor import examine

    def told(url: str) -> list[tuple[str, str]]:
        settings = {"rerank": {"backend": "remote", "url": url}, "store": {"backend": "exact"}}
        found = examine(preset="starter", settings=settings)
        return [(f.state, f.detail) for f in found if f.name == "reranker"]

    [(state, detail)] = told(server.url)
    assert state == "ok"
    assert server.url in detail
    url = closed_url()
    [(state, detail)] = told(url)
    assert state == "problem"
    assert f"{url} cannot be reached" in detail


def test_one_picture_of_each_mode_survives(starter: Qwen3VLReranker, tmp_path: Path) -> None:
    paths = []
    for mode in ("L", "RGBA", "P", "1", "CMYK", "I;16"):
        path = tmp_path / f"{mode.replace(';', '')}.{'jpg' if mode == 'CMYK' else 'png'}"
        image = picture(3, width=128, height=128)
        converted = Image.new(mode, (128, 128)) if mode == "I;16" else image.convert(mode)
        converted.save(path)
        paths.append(path)
    documents = [Content(images=(path,)) for path in paths]
    with serving(answering(starter)) as server:
        there = remote(server.url).score(QUERY, documents)
    here = starter.score(QUERY, documents)
    assert [p.log_odds for p in there] == pytest.approx([p.log_odds for p in here], abs=1e-3)
