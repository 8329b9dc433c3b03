"""The reranker behind a cache: what it asks for, what it keeps, and what it counts."""

from __future__ import annotations

import math
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from secondglance.rerank.answers import answer
from secondglance.rerank.digests import content_digest
from secondglance.rerank.score_cache import CachedReranker, ScoreCache, counting
from secondglance.types import Content, PairScore
from tests.media import picture

QUERY = Content(texts=("a dog",))
HOUR_NS = 3600 * 10**9


class Judge:
    """A reranker that gives a new score at each call, and an error for what is not there."""

    name = "judge"

    def __init__(self) -> None:
        self.calls: list[list[Content]] = []
        self._given = 0
        self.between: Callable[[], object] = lambda: None

    def score(
        self, query: Content, documents: Sequence[Content], *, instruction: str | None = None
    ) -> list[PairScore]:
        self.calls.append(list(documents))
        self.between()
        return [self._one(document) for document in documents]

    def _one(self, document: Content) -> PairScore:
        paths = [source for source in document.images if isinstance(source, Path)]
        if any(not path.exists() for path in paths):
            return PairScore(score=None, error="no such file")
        self._given += 1
        return answer(0.1 * self._given)


def _images(paths: Sequence[Path]) -> list[Content]:
    return [Content(images=(path,)) for path in paths]


def test_only_what_is_missing_is_scored_in_one_call_and_order_stays(
    cache: ScoreCache, photos: list[Path]
) -> None:
    judge = Judge()
    reranker = CachedReranker(judge, cache, fingerprint="f")
    first, second, third = _images(photos)
    with counting() as use:
        [middle] = reranker.score(QUERY, [second])
    assert (use.hits, use.misses) == (0, 1)
    with counting() as use:
        found = reranker.score(QUERY, [first, second, third])
    assert (use.hits, use.misses) == (1, 2)
    assert found[1] == middle
    assert judge.calls == [[second], [first, third]]
    with counting() as use:
        assert reranker.score(QUERY, [third, second, first]) == found[::-1]
        assert reranker.score(QUERY, [first]) == found[:1]
    assert (use.hits, use.misses) == (4, 0)
    assert len(judge.calls) == 2
    assert reranker.score(QUERY, []) == []
    assert reranker.name == "judge"


def test_scores_outlive_the_process_to_the_last_bit(tmp_path: Path, photos: list[Path]) -> None:
    for _ in range(2):
        cache = ScoreCache(tmp_path / "kept.sqlite", max_mb=1)
        judge = Judge()
        found = CachedReranker(judge, cache, fingerprint="f").score(QUERY, _images(photos))
        assert [pair.log_odds for pair in found] == [0.1 * n for n in (1, 2, 3)]
        assert [pair.score for pair in found] == [answer(0.1 * n).score for n in (1, 2, 3)]
        cache.close()
    assert judge.calls == []


def test_each_thread_counts_for_itself(cache: ScoreCache, photos: list[Path]) -> None:
    reranker = CachedReranker(Judge(), cache, fingerprint="f")
    reranker.score(QUERY, _images(photos))
    together = threading.Barrier(3)

    def hits(count: int) -> int:
        with counting() as use:
            together.wait()
            reranker.score(QUERY, _images(photos[:count]))
            together.wait()
        return use.hits

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(hits, (1, 2, 3))) == [1, 2, 3]


def test_query_instruction_and_fingerprint_are_part_of_the_key(
    cache: ScoreCache, photos: list[Path]
) -> None:
    judge = Judge()
    document = _images(photos)[:1]
    scores = [
        CachedReranker(judge, cache, fingerprint=mark).score(
            Content(texts=(text,)), document, instruction=instruction
        )[0]
        for text, instruction, mark in [
            ("a", None, "f"),
            ("b", None, "f"),
            ("a", "find moments", "f"),
            ("a", None, "g"),
            ("a", "", "f"),  # the default instruction, as none
        ]
    ]
    assert len({score.log_odds for score in scores}) == 4
    assert scores[0] == scores[4]


def test_errors_and_numbers_that_are_none_are_not_kept(cache: ScoreCache, tmp_path: Path) -> None:
    judge = Judge()
    reranker = CachedReranker(judge, cache, fingerprint="f")
    gone = Content(images=(tmp_path / "later.png",))
    assert reranker.score(QUERY, [gone])[0].error == "no such file"
    picture(1).save(tmp_path / "later.png")
    assert reranker.score(QUERY, [gone])[0].score is not None
    bad = [
        PairScore(score=None, error="unreadable"),
        PairScore(score=math.nan, log_odds=math.nan),
        PairScore(score=1.0, log_odds=math.inf),
    ]
    keys = [secrets.token_bytes(32) for _ in bad]
    cache.put(dict(zip(keys, bad, strict=True)))
    assert cache.get(keys) == {}


def test_a_score_without_log_odds_is_kept_as_such(cache: ScoreCache) -> None:
    cache.put({b"k" * 32: PairScore(score=0.25)})
    assert cache.get([b"k" * 32, b"other"]) == {b"k" * 32: PairScore(score=0.25)}


def test_the_same_bytes_under_another_name_are_known(cache: ScoreCache, photos: list[Path]) -> None:
    reranker = CachedReranker(Judge(), cache, fingerprint="f")
    copy = photos[0].with_name("copy.png")
    shutil.copy(photos[0], copy)
    assert reranker.score(QUERY, _images(photos[:1])) == reranker.score(QUERY, _images([copy]))


def test_other_bytes_in_a_file_of_the_same_size_and_time_are_not(
    cache: ScoreCache, tmp_path: Path
) -> None:
    judge = Judge()
    reranker = CachedReranker(judge, cache, fingerprint="f")
    path = tmp_path / "a.bin"
    found = []
    for content in (b"first", b"other"):
        path.write_bytes(content)
        os.utime(path, ns=(HOUR_NS, HOUR_NS))
        found += reranker.score(QUERY, _images([path]))
    assert found[0] != found[1]


def test_a_file_that_changes_while_it_is_scored_lends_its_score_to_nobody(
    cache: ScoreCache, photos: list[Path]
) -> None:
    judge = Judge()
    reranker = CachedReranker(judge, cache, fingerprint="f")
    before = photos[0].read_bytes()
    judge.between = lambda: photos[0].write_bytes(photos[1].read_bytes())
    reranker.score(QUERY, _images(photos[:1]))
    judge.between = lambda: None
    photos[0].write_bytes(before)
    with counting() as use:
        reranker.score(QUERY, _images(photos[:1]))
    assert use.misses == 1


def test_what_cannot_be_hashed_goes_to_the_reranker(cache: ScoreCache, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with Image.open(_truncated(tmp_path / "cut.png")) as damaged:
        documents = _images([tmp_path, tmp_path / "pipe", tmp_path / "none", Path("nul\0")])
        documents.append(Content(images=(damaged,)))
        assert [content_digest(document, cache) for document in documents] == [None] * 5
        judge = Judge()
        CachedReranker(judge, cache, fingerprint="f").score(QUERY, documents[-1:])
        CachedReranker(judge, cache, fingerprint="f").score(documents[0], [QUERY])
    assert judge.calls == [documents[-1:], [QUERY]]


def _truncated(path: Path) -> Path:
    picture(1).save(path)
    path.write_bytes(path.read_bytes()[:-60])
    return path


def test_a_folder_that_cannot_be_written_costs_one_warning(
    tmp_path: Path, photos: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    cache = ScoreCache(tmp_path / "file" / "scores.sqlite", max_mb=1)
    judge = Judge()
    reranker = CachedReranker(judge, cache, fingerprint="f")
    for _ in range(2):
        assert all(pair.score for pair in reranker.score(QUERY, _images(photos)))
    assert len(judge.calls) == 2
    [record] = caplog.records
    assert "rerank.score_cache_mb" in record.message
