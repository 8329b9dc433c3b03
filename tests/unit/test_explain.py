"""Explanations: effects of a scorer that is known, and the ways to get it wrong."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from secondglance.errors import InputError, MediaError, StoppedError
from secondglance.pipelines.explain import BATCH, explain_pair
from secondglance.pipelines.explanation import (
    Explanation,
    Regions,
    WordEffect,
    marked,
    overlay,
    strongest,
    write_overlay,
)
from secondglance.rerank.leave_out import NOTHING, spans, without, word_costs
from secondglance.rerank.occlusion import grid_shape, hide, mean_cost, too_weak, windows
from secondglance.rerank.passthrough import PassthroughReranker
from secondglance.rerank.stopping import stoppable
from secondglance.types import Content, PairScore, VideoClip

QUERY = Content(texts=("a red square",))


class Known:
    """Log-odds from what is there: red pixels of a picture or clip, and points for words."""

    name = "known"

    def __init__(self, points: dict[str, float] | None = None, *, scale: float = 10.0) -> None:
        self.points = points or {}
        self.scale = scale
        self.calls: list[int] = []
        self.seen: list[Content] = []

    def score(
        self, query: Content, documents: Sequence[Content], *, instruction: str | None = None
    ) -> list[PairScore]:
        self.calls.append(len(documents))
        self.seen += documents
        return [self._pair(query, document) for document in documents]

    def _pair(self, query: Content, document: Content) -> PairScore:
        clips = [frame for clip in document.videos for frame in clip.frames]
        frames = [image for image in (*document.images, *clips) if isinstance(image, Image.Image)]
        odds = self.scale * float(np.mean([_red(frame) for frame in frames])) if frames else 0.0
        for text in (*document.texts, *query.texts):
            odds += sum(value for word, value in self.points.items() if word in text)
        return PairScore(score=1 / (1 + math.exp(-odds)), log_odds=odds)


class Guessing(Known):
    """Tells probabilities only."""

    def _pair(self, query: Content, document: Content) -> PairScore:
        return replace(super()._pair(query, document), log_odds=None)


class Broken(Known):
    """Fails for the first candidate of each call but the first."""

    def score(
        self, query: Content, documents: Sequence[Content], *, instruction: str | None = None
    ) -> list[PairScore]:
        found = super().score(query, documents, instruction=instruction)
        if len(self.calls) > 1:
            found[0] = PairScore(score=None, error="out of memory")
        return found


def _red(frame: Image.Image) -> float:
    """How much of the square is red that red squares here fill."""
    pixels = np.asarray(frame.convert("RGB"), dtype=np.float64)
    return float(((pixels[..., 0] > 200) & (pixels[..., 1] < 60)).mean()) * 36


def square(column: int, row: int, *, side: int = 120, cells: int = 6) -> Image.Image:
    """A red cell on grey."""
    picture = Image.new("RGB", (side, side), (90, 110, 100))
    cell = side // cells
    picture.paste((255, 0, 0), (column * cell, row * cell, (column + 1) * cell, (row + 1) * cell))
    return picture


def effects(found: Explanation) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    assert found.regions is not None
    return np.array(found.regions.effects)


def test_the_cell_that_the_score_needs_has_all_of_the_effect() -> None:
    reranker = Known()
    found = explain_pair(reranker, QUERY, Content(images=(square(4, 1),)))
    expected = np.zeros((6, 6))
    expected[1, 4] = 10
    assert effects(found) == pytest.approx(expected)
    assert found.regions is not None
    assert found.regions.peak == (4.5 / 6, 1.5 / 6)
    assert (found.regions.width, found.regions.height, found.regions.at_s) == (120, 120, None)
    assert found.kind == "image"
    assert found.log_odds == pytest.approx(10)
    assert found.score == pytest.approx(1 / (1 + math.exp(-10)))
    assert found.pairs == sum(reranker.calls) == 37
    assert max(reranker.calls) <= BATCH
    assert found.warnings == ()


def test_a_thing_across_four_cells_is_found_by_wider_windows() -> None:
    picture = Image.new("RGB", (120, 120), (90, 110, 100))
    picture.paste((255, 0, 0), (30, 50, 50, 70))  # its middle is the corner of four cells
    found = explain_pair(Known(), QUERY, Content(images=(picture,)))
    assert found.pairs == 1 + 36 + 49
    peaks = np.argwhere(effects(found) == effects(found).max())
    assert {tuple(peak) for peak in peaks.tolist()} == {(2, 1), (2, 2), (3, 1), (3, 2)}
    # A cell alone takes a quarter, a window over it one or all: the mean over four windows.
    assert effects(found).max() == pytest.approx((2.5 + (10 + 5 + 5 + 2.5) / 4) / 2)


def test_cells_are_nearly_square_whatever_the_picture() -> None:
    assert grid_shape(1600, 1000, 8) == (5, 8)
    assert grid_shape(1000, 1600, 8) == (8, 5)
    assert grid_shape(3000, 20, 6) == (1, 6)
    found = explain_pair(Known(), QUERY, Content(images=(Image.new("RGB", (300, 100)),)), grid=3)
    assert effects(found).shape == (1, 3)


def test_every_cell_is_hidden_equally_often() -> None:
    masks = windows(3, 4, 2)
    assert masks.shape == (20, 3, 4)
    assert (masks.sum(axis=0) == 4).all()


def test_hiding_changes_the_cell_and_nothing_else() -> None:
    picture, behind = square(0, 0), Image.new("RGB", (120, 120), (1, 2, 3))
    mask = np.zeros((6, 6), dtype=np.bool_)
    mask[5, 2] = True
    changed = (np.asarray(hide(picture, behind, mask)) != np.asarray(picture)).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (100, 119, 40, 59)
    assert changed.sum() == 400


def test_costs_that_are_not_known_count_nowhere() -> None:
    masks = np.array([[True, True, False], [False, True, True], [True, False, False]])
    assert mean_cost(masks, [4.0, math.nan, 2.0]).tolist() == [3.0, 4.0, 0.0]
    assert not too_weak([math.nan, 3.0], 5.0)
    assert too_weak([math.nan, 2.0], 5.0)
    assert too_weak([math.nan], -3.0)


def test_a_clip_is_hidden_in_all_frames_and_shown_at_its_keyframe() -> None:
    frames = [square(2, 3) for _ in range(4)]
    clip = VideoClip(frames=frames, times_s=(8.0, 8.5, 9.0, 9.5), keyframe_s=9.1)
    reranker = Known()
    found = explain_pair(reranker, QUERY, Content(videos=(clip,)))
    assert found.kind == "video"
    assert found.regions is not None
    assert found.regions.at_s == 9.0
    assert found.regions.peak == (2.5 / 6, 3.5 / 6)
    [hidden] = [
        seen.videos[0]
        for seen in reranker.seen
        if all(_red(f) == 0 for f in seen.videos[0].frames if isinstance(f, Image.Image))
    ]
    assert hidden.times_s == [8.0, 8.5, 9.0, 9.5]


def test_words_have_the_effect_they_are_worth() -> None:
    reranker = Known({"dog": 3.0, "beach": 2.0, "rain": -1.0})
    text = "A dog, on the beach, in rain."
    found = explain_pair(reranker, Content(texts=("x",)), Content(texts=(text,)))
    assert found.kind == "text"
    assert [(w.text, w.effect) for w in found.words] == [
        ("A", 0), ("dog", 3), ("on", 0), ("the", 0), ("beach", 2), ("in", 0), ("rain", -1),
    ]  # fmt: skip
    assert all(text[w.start : w.end] == w.text for w in found.words)
    assert found.regions is None
    assert found.query_words == ()


def test_words_of_the_query_are_left_out_when_asked() -> None:
    reranker = Known({"dogs": 4.0})
    found = explain_pair(
        reranker, Content(texts=("two dogs",)), Content(texts=("x",)), query_words=True
    )
    assert [(w.text, w.effect) for w in found.query_words] == [("two", 0), ("dogs", 4)]
    assert found.query == "two dogs"


def test_chinese_is_taken_apart_into_characters_that_share_what_a_pair_costs() -> None:
    reranker = Known({"海滩": 4.0})
    found = explain_pair(reranker, Content(texts=("x",)), Content(texts=("狗在海滩上",)))
    assert [w.text for w in found.words] == list("狗在海滩上")
    # Pairs 在海, 海滩, 滩上 break the word: a character is worth the mean of the pairs over it.
    assert [w.effect for w in found.words] == [0, 2, 4, 4, 4]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("it's a well-known cafe\u0301", ["it's", "a", "well-known", "cafe\u0301"]),
        ("IMG_2041.jpg", ["IMG_2041.jpg"]),
        ("สวัสดี", ["ส", "วั", "ส", "ดี"]),
        ("한국 해변", ["한국", "해변"]),
        ("2匹の犬 dogs", ["2", "匹", "の", "犬", "dogs"]),
        ("... !", []),
        ("", []),
    ],
)
def test_words_of_many_scripts(text: str, words: list[str]) -> None:
    assert [text[span.start : span.end] for span in spans(text)] == words


def test_leaving_out_keeps_the_text_readable() -> None:
    assert without("a red dog", 2, 5) == "a dog"
    assert without("red dog", 0, 3) == "dog"
    assert without("a red, old dog", 2, 5) == "a , old dog"
    assert without("dog!", 0, 3) == NOTHING


def test_long_texts_are_narrowed_down_to_the_words_within_the_budget() -> None:
    words = [f"w{number:03}" for number in range(600)]
    text = " ".join(words)
    reranker = Known({"w417": 5.0, "w100": 2.0})
    found = explain_pair(reranker, Content(texts=("x",)), Content(texts=(text,)), max_words=64)
    assert found.pairs <= 65
    best = max(found.words, key=lambda word: word.effect)
    assert (best.text, best.effect) == ("w417", 5)
    assert " ".join(word.text for word in found.words) == text


def test_a_budget_holds_for_any_number_of_texts() -> None:
    tried: list[tuple[int, int, int]] = []

    def cost(asked: Sequence[tuple[int, int, int]]) -> list[float]:
        tried.extend(asked)
        return [1.0] * len(asked)

    found = word_costs(["a b c d"] * 30, cost, most=40)
    assert len(tried) <= 40
    assert {part for part, *_ in found} == set(range(30))
    assert word_costs([], cost, most=5) == []
    assert word_costs(["..."], cost, most=5) == []


def test_picture_and_text_are_both_explained_and_other_pictures_named() -> None:
    document = Content(images=(square(0, 0), square(1, 1)), texts=("old", "a dog"))
    found = explain_pair(Known({"dog": 2.0}), QUERY, document)
    assert effects(found).argmax() == 0
    assert [(w.part, w.text, w.effect) for w in found.words] == [
        (0, "old", 0), (1, "a", 0), (1, "dog", 2),
    ]  # fmt: skip
    assert found.warnings == ("of 2 pictures and clips only the first picture is explained",)


def test_large_pictures_are_reduced_and_told_of_if_the_score_moves() -> None:
    picture = square(3, 3, side=1200)
    reranker = Known()
    found = explain_pair(reranker, QUERY, Content(images=(picture,)))
    assert found.regions is not None
    assert (found.regions.width, found.regions.height) == (512, 512)
    assert found.regions.peak == (3.5 / 6, 3.5 / 6)
    assert found.warnings == ()
    dots = np.full((1200, 1200, 3), 255, dtype=np.uint8)
    dots[::2, ::2] = (255, 0, 0)
    moved = explain_pair(Known(), QUERY, Content(images=(Image.fromarray(dots),)))
    assert moved.warnings[0].startswith("a reduced copy was looked at")


def test_what_is_in_doubt_is_said() -> None:
    nothing = explain_pair(Known(), QUERY, Content(images=(Image.new("RGB", (60, 60)),)))
    assert any("hardly depends on any single region" in line for line in nothing.warnings)
    unmatched = explain_pair(Known({"cat": -3.0}), QUERY, Content(texts=("a cat",)))
    assert "no match (score 0.05)" in unmatched.warnings[0]
    assert any("single word" in line for line in unmatched.warnings)


def test_probabilities_become_log_odds() -> None:
    found = explain_pair(Guessing({"dog": 3.0}), QUERY, Content(texts=("a dog",)))
    assert [w.effect for w in found.words] == pytest.approx([0, 3])
    assert "probabilities only" in found.warnings[-1]


def test_pairs_that_fail_are_left_out_and_counted() -> None:
    found = explain_pair(Broken(), QUERY, Content(images=(square(3, 4),)))
    assert effects(found)[4, 3] == pytest.approx(10)
    assert any(line.startswith("3 of 37 pairs could not be scored") for line in found.warnings)


class Stopping(Known):
    """Is told to stop while it works on its second call."""

    def __init__(self, event: threading.Event) -> None:
        super().__init__()
        self._event = event

    def score(
        self, query: Content, documents: Sequence[Content], *, instruction: str | None = None
    ) -> list[PairScore]:
        if len(self.calls) == 1:
            self._event.set()
        return super().score(query, documents, instruction=instruction)


def test_it_stops_between_calls() -> None:
    event = threading.Event()
    reranker = Stopping(event)
    with stoppable(event), pytest.raises(StoppedError):
        explain_pair(reranker, QUERY, Content(images=(square(0, 0),)))
    assert len(reranker.calls) == 2


@pytest.mark.parametrize(
    ("query", "document", "options", "message"),
    [
        (Content(), Content(texts=("x",)), {}, "the query is empty"),
        (QUERY, Content(texts=("",)), {}, "the candidate is empty"),
        (QUERY, Content(texts=("x",)), {"grid": 1}, "grid is 1; it must be 2 to 16"),
        (QUERY, Content(texts=("x",)), {"grid": 17}, "grid is 17"),
        (QUERY, Content(texts=("x",)), {"max_words": 0}, "max_words is 0"),
    ],
)
def test_unusable_arguments(
    query: Content, document: Content, options: dict[str, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        explain_pair(Known(), query, document, **options)  # type: ignore[arg-type]


def test_no_second_pass_and_unreadable_media(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the reranker is passthrough"):
        explain_pair(PassthroughReranker(), QUERY, Content(texts=("x",)))
    broken = tmp_path / "broken.jpg"
    broken.write_text("no picture")
    with pytest.raises(MediaError, match=r"broken.jpg"):
        explain_pair(Known(), QUERY, Content(images=(broken,)))


def regions(*rows: tuple[float, ...]) -> Explanation:
    found = Regions(rows=len(rows), cols=len(rows[0]), effects=rows, width=40, height=40, at_s=65.0)
    return Explanation(
        kind="video", score=0.9, log_odds=2.2, regions=found, id="abc", pairs=5, ms=1.0
    )


def test_an_overlay_is_strong_where_the_effect_is_and_nowhere_else(tmp_path: Path) -> None:
    picture = Image.new("RGB", (80, 80), (10, 200, 10))
    found = regions((4.0, 0.0), (0.0, -4.0))
    drawn = np.asarray(overlay(picture, found)).astype(int)
    assert drawn.shape == (80, 80, 3)
    changed = np.abs(drawn - (10, 200, 10)).sum(axis=2)
    assert changed[5, 5] > 250
    assert changed[75, 75] == 0
    both = np.asarray(overlay(picture, found, negative=True)).astype(int)
    assert both[5, 5, 0] > both[5, 5, 2]  # red for what raises
    assert both[75, 75, 2] > both[75, 75, 0]  # blue for what lowers
    flat = overlay(picture, regions((0.0, 0.0)))
    assert flat.tobytes() == picture.tobytes()
    written = write_overlay(picture, found, tmp_path / "new")
    assert written.name == "abc-why.png"
    with Image.open(written) as saved:
        assert saved.size == (80, 80)
    with pytest.raises(InputError, match="cannot write"):
        write_overlay(picture, found, written)
    with pytest.raises(InputError, match="no regions to draw"):
        overlay(picture, replace(found, regions=None))


def test_an_explanation_in_words_and_as_json() -> None:
    found = regions((4.0, 0.5), (0.0, -4.0))
    assert strongest(found) == [
        "+4.00  around 25% from the left, 25% from the top of the frame at 1:05",
        "+0.50  around 75% from the left, 25% from the top of the frame at 1:05",
    ]
    assert found.to_dict()["regions"]["effects"] == ((4.0, 0.5), (0.0, -4.0))
    words = (
        WordEffect(start=2, end=5, text="dog", effect=3.0),
        WordEffect(start=6, end=9, text="ran", effect=-0.1),
        WordEffect(start=10, end=13, text="off", effect=-2.0),
    )
    text = marked("a dog ran off", words)
    assert [(s.start, s.end, str(s.style).split()[-1]) for s in text.spans] == [
        (2, 5, "green3"), (10, 13, "indian_red1"),
    ]  # fmt: skip
    assert strongest(replace(found, regions=None, words=words)) == ["+3.00  dog"]
