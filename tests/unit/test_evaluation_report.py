"""The page of an evaluation: what it says, shows, escapes, and how large it may be."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from secondglance.errors import InputError
from secondglance.evaluation import report
from secondglance.evaluation.changes import changes_of, differences, largest
from secondglance.evaluation.plots import curves_svg, differences_svg, knee, stages_of
from secondglance.evaluation.report import render, write_report
from secondglance.evaluation.thumbnails import SIDE, Thumbnails
from secondglance.evaluation.types import Cost, Curve, CurvePoint, Evaluation, Interval, Timing
from tests.evaluations import made_up
from tests.media import picture, write_clip, write_pictures

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Elements with their attributes, text, and whether every element is closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.grades: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += f" {data}"
        if self.elements and self.elements[-1][1].get("class") == "grade" and data.strip():
            self.grades.append(data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    text = tmp_path / "note.txt"
    text.write_text("Snow falls on the harbour.", "utf-8")
    clip = write_clip(tmp_path / "clip.mp4", [3], scene_s=2.0)
    return [*write_pictures(tmp_path / "pictures", 4), broken, clip, text, tmp_path / "gone.png"]


def test_the_page_needs_nothing_from_outside(files: list[Path]) -> None:
    page = render(made_up(files=files))
    parsed = Page(page)
    assert not parsed.open
    assert not parsed.all("script")
    assert not parsed.all("link")
    assert "@import" not in page
    assert "url(http" not in page
    for _, attributes in parsed.elements:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:image/jpeg;base64,")), (name, value[:40])
    assert all(image["alt"] for image in parsed.all("img"))
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {(attributes.get("href") or "#")[1:] for _, attributes in parsed.elements}
    assert targets - {""} <= set(ids)


def test_every_text_is_escaped() -> None:
    evil = "<script>alert('x')</script>-->&\"<b onload=1>"
    plain = made_up(3, systems=("clip", evil), baseline="clip")
    queries = {
        id_: dataclasses.replace(
            query,
            language=evil,
            query=dataclasses.replace(query.query, text=evil, not_text=evil),
        )
        for id_, query in plain.queries.items()
    }
    runs = tuple(
        dataclasses.replace(
            run,
            description=evil,
            rankings={
                id_: tuple(
                    dataclasses.replace(r, document=evil, kind="text", text=evil) for r in rs
                )
                for id_, rs in run.rankings.items()
            },
        )
        for run in plain.systems
    )
    curves = tuple(dataclasses.replace(curve, system=evil) for curve in plain.curves)
    page = render(
        dataclasses.replace(
            plain,
            library=evil,
            created=evil,
            settings={evil: evil},
            queries=queries,
            systems=runs,
            curves=curves,
            warnings=(evil,),
            costs=(Cost(system=evil, stages={evil: Timing(median_ms=1.0, p95_ms=2.0)}),),
        )
    )
    assert "<script" not in page
    assert "<b onload" not in page
    parsed = Page(page)
    assert not parsed.open
    assert parsed.text.count("alert('x')") > 20
    assert html.escape("<script>alert(")[:20] in page


def test_the_numbers_are_those_given() -> None:
    evaluation = made_up()
    text = " ".join(Page(render(evaluation)).text.split())
    for summary in evaluation.summaries:
        value = summary.value
        shown = f"{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]"
        assert shown in text, (summary, text[:2000])
    for difference in evaluation.differences:
        low, high = (
            f"{x:+.3f}".replace("-", "−") for x in (difference.value.low, difference.value.high)
        )
        assert f"{low} to {high}" in text
    for depth, share in evaluation.ceiling.items():
        assert f"{depth} {share.mean:.3f} {share.low:.3f} to {share.high:.3f}" in text
    for cost in evaluation.costs:
        assert cost.peak_memory_mb is not None
        assert f"{cost.peak_memory_mb:,.0f} MB" in text
    assert "840 ms 1.3 s" in text
    assert "System embed recall words rerank total Pairs scored" in text
    assert "By number of words 4-8 12" in text
    assert "preset starter" in text
    assert "fit -" in text


def test_only_what_the_test_confirms_is_marked() -> None:
    confirmed, open_ = made_up(p=0.001), made_up(p=0.2)
    second = [d for d in confirmed.differences if d.system in ("rerank", "fusion")]
    gains = sum(d.value.mean > 0 for d in second)
    marks = Page(render(confirmed)).text
    assert 0 < gains < len(second) == 2 * 4 * len({d.group for d in second})
    assert marks.count("▲ better") == gains + 1  # and the legend
    assert marks.count("▼ worse") == len(second) - gains + 1
    unmarked = Page(render(open_)).text
    assert unmarked.count("▲ better") == unmarked.count("▼ worse") == 1


def test_wins_and_losses_are_the_largest_changes() -> None:
    evaluation = made_up(40)
    values = evaluation.values
    found = differences(evaluation, "fusion", "nDCG@10")
    expected = {
        id_: values["fusion"]["nDCG@10"][id_] - values["clip"]["nDCG@10"][id_]
        for id_ in evaluation.queries
    }
    assert found == expected
    wins, losses = largest(found, 3)
    ordered = sorted(expected, key=lambda id_: expected[id_])
    assert losses == ordered[:3]
    assert wins == ordered[:-4:-1]
    assert largest({"same": 0.0, "gain": 0.5}, 10) == (["gain"], [])
    assert largest({"loss": -0.5}, 0) == ([], [])


def test_a_change_shows_both_top_fives_with_ranks_grades_and_scores() -> None:
    evaluation = made_up(1)
    [change] = changes_of(evaluation, "fusion", "nDCG@10", ["q0"], Thumbnails())
    old, new = (
        next(run for run in evaluation.systems if run.name == name).rankings["q0"]
        for name in ("clip", "fusion")
    )
    assert [tile.ranked for tile in change.old] == list(old[:5])
    assert [tile.ranked for tile in change.new] == list(new[:5])
    ranks = {ranked.document: ranked.rank for ranked in old}
    assert [tile.other_rank for tile in change.new] == [ranks.get(r.document) for r in new[:5]]
    assert dict(change.new[1].scores) == {
        "score": 0.5,
        "rerank": 0.45,
        "cosine": pytest.approx(0.28),
    }
    graded = [ranked.rank for ranked in old if (ranked.grade or 0) > 0]
    assert change.old_first == (graded[0] if graded else None)
    assert change.relevant == sum(grade > 0 for grade in evaluation.qrels["q0"].values())


def test_relevance_is_said_in_words_too(files: list[Path]) -> None:
    parsed = Page(render(made_up(6, files=files)))
    rings = [attributes.get("class") == "good" for attributes in parsed.all("li")]
    assert any(rings)
    assert not all(rings)
    assert [words.startswith("relevant") for words in parsed.grades] == rings
    assert set(parsed.grades) == {"relevant", "relevant, grade 2", "not relevant", "not judged"}


def test_pictures_frames_and_what_cannot_be_shown(files: list[Path]) -> None:
    parsed = Page(render(made_up(9, files=files, results=8)))
    alts = {image["alt"] for image in parsed.all("img")}
    assert {"picture-0000.jpg", "clip.mp4"} <= alts
    assert not {"broken.jpg", "gone.png", "note.txt"} & alts
    for words in ("broken.jpg", "gone.png", "Snow falls on the harbour.", "0:00-0:05"):
        assert words in parsed.text
    assert any((alt or "").startswith("Picture of the query:") for alt in alts)


def test_thumbnails_are_small_upright_jpegs(tmp_path: Path) -> None:
    wide = picture(1, width=900, height=300)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    wide.save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGBA", (40, 30), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("I;16", (40, 30), 65535).save(tmp_path / "deep.png")
    thumbnails = Thumbnails()

    def opened(name: str) -> Image.Image:
        uri = thumbnails.picture(tmp_path / name)
        assert uri is not None
        head, _, data = uri.partition(",")
        assert head == "data:image/jpeg;base64"
        return Image.open(io.BytesIO(base64.b64decode(data)))

    assert opened("turned.jpg").size == (SIDE // 3, SIDE)
    assert opened("clear.png").getpixel((20, 15)) == (255, 255, 255)
    assert opened("deep.png").getpixel((20, 15)) == (255, 255, 255)


def test_a_frame_is_that_of_its_time(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "two.mp4", [1, 2], scene_s=2.0)
    thumbnails = Thumbnails()
    assert thumbnails.frame(clip, 0.5) != thumbnails.frame(clip, 3.0)
    assert thumbnails.frame(tmp_path / "none.mp4", 0.5) is None
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    assert thumbnails.frame(tmp_path / "bad.mp4", 0.5) is None
    assert thumbnails.left_out == 0


def test_thumbnails_stop_at_their_limit(tmp_path: Path) -> None:
    [one] = write_pictures(tmp_path, 1)
    uri = Thumbnails().picture(one)
    assert uri is not None
    bounded = Thumbnails(max_bytes=2 * len(uri) + 10)
    assert [bounded.picture(one) for _ in range(4)] == [uri, uri, None, None]
    assert bounded.left_out == 2


def test_many_queries_make_no_huge_page(tmp_path: Path) -> None:
    files = write_pictures(tmp_path, 12)
    texts = {f"q{number}": "many words " * 300 for number in range(5000)}
    evaluation = made_up(5000, files=files, texts=texts, results=5, curves=False)
    page = render(evaluation)
    assert len(page.encode()) < 15_000_000
    assert "the 1000 queries that change most, of 5000" in page
    svg = differences_svg(list(differences(evaluation, "fusion", "nDCG@10").values()), "nDCG@10")
    assert len(svg) < 60_000


def test_the_page_says_how_many_pictures_were_left_out(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "Thumbnails", lambda: Thumbnails(max_bytes=5_000))
    parsed = Page(render(made_up(files=files)))
    assert re.search(r"\d+ results are shown without a picture", parsed.text)
    assert len(parsed.all("img")) < 5


def test_an_evaluation_without_curves_and_costs() -> None:
    parsed = Page(render(made_up(curves=False, costs=False)))
    assert not parsed.open
    assert len(parsed.all("figure")) == 1
    assert "Costs" not in parsed.text
    full = Page(render(made_up()))
    assert len(full.all("figure")) == 5


def test_one_query_and_none() -> None:
    one = Page(render(made_up(1)))
    assert "One query is too few to tell." in one.text
    assert not one.open
    empty = Evaluation(
        library="empty", created="", settings={}, queries={}, qrels={}, measures=(),
        baseline="clip", systems=(), values={}, summaries=(), differences=(),
    )  # fmt: skip
    parsed = Page(render(empty))
    assert "No query was evaluated" in parsed.text
    assert not parsed.open


def test_the_page_can_be_made_for_another_system_and_again() -> None:
    evaluation = made_up()
    assert render(evaluation) == render(evaluation)
    page = Page(render(evaluation, system="bm25"))
    assert "Difference of each query, bm25 to clip" in page.text
    with pytest.raises(InputError, match=r"no system 'bm26' .*bm25, clip"):
        render(evaluation, system="bm26")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write the report to"):
        write_report(made_up(1), tmp_path / "file")


def points(*means: float) -> Curve:
    made = tuple(
        CurvePoint(x=10.0 * 2**i, values={"MRR": Interval(mean=m, low=m - 0.1, high=m + 0.1)})
        for i, m in enumerate(means)
    )
    return Curve(system="rerank", over="candidates", points=made)


def test_the_knee_brings_almost_all_of_the_gain() -> None:
    def at(*means: float) -> float:
        found = knee(points(*means), "MRR")
        assert found is not None
        return found.x

    assert at(0.4, 0.5, 0.596, 0.6) == 40
    assert at(0.4, 0.5, 0.58, 0.6) == 80
    assert at(0.6, 0.5, 0.4) == 10
    assert at(0.5, 0.5) == 10
    assert knee(points(0.4), "AP") is None


def test_plots_take_the_colours_of_the_page_and_keep_their_text() -> None:
    svg = curves_svg(made_up(), [points(0.1, 0.4)], "MRR")
    assert svg.startswith("<svg viewBox=")
    assert not re.search(r"#[0-9a-f]{6}\b(?!\")", svg)
    assert "var(--s1)" in svg
    assert "candidates for the second pass (K)" in svg
    sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", svg)]
    assert sizes
    assert min(sizes) >= 9


def test_stages_add_up_to_the_total() -> None:
    def timing(ms: float) -> Timing:
        return Timing(median_ms=ms, p95_ms=ms)

    stages = {"embed": timing(10), "rerank": timing(80), "total": timing(100)}
    found = stages_of(Cost(system="rerank", stages=stages))
    assert found == {"embed": 10, "rerank": 80, "other": 10}
    assert math.isclose(sum(found.values()), 100)
