"""Texts in any encoding, cut into passages; manifests in CSV and JSONL."""

from __future__ import annotations

from pathlib import Path

import pytest

from secondglance.errors import MediaError
from secondglance.ingest.text import ManifestRow, manifest_rows, passages, read_text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030", "cp1252"])
def test_reads_any_encoding(tmp_path: Path, encoding: str) -> None:
    words = {
        "gb18030": "一只黑色的狗在海滩上奔跑，旁边有一个穿红色衣服的小女孩。" * 5,
        "cp1252": (
            "Un chien noir court sur la plage, près d'une fillette habillée en rouge. Été à Nîmes."
        )
        * 3,
    }.get(encoding, "a black dog 黑狗 runs")
    path = tmp_path / "text.txt"
    path.write_bytes(words.encode(encoding))
    assert read_text(path, max_bytes=10_000) == words


def test_refuses_binary_and_oversized_text(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(bytes(range(256)) * 20)
    with pytest.raises(MediaError, match="not a text"):
        read_text(path, max_bytes=10_000)
    with pytest.raises(MediaError, match=r"5120 bytes is over the limit of 100.*max_text_mb"):
        read_text(path, max_bytes=100)


def test_passages_break_at_paragraphs_then_sentences() -> None:
    text = (
        "One.\n\nTwo is short.\n\n"
        + "Three is a long sentence of many words. " * 5
        + "\n\n"
        + "x" * 250
    )
    found = passages(text, max_chars=100)
    assert all(0 < len(passage) <= 100 for passage in found)
    assert found[0].startswith("One. Two is short.")
    assert "".join("".join(found).split()) == "".join(text.split())
    assert passages(" \n\n ", max_chars=100) == []


def test_passages_break_at_chinese_full_stops() -> None:
    found = passages("狗在跑。" * 30, max_chars=40)
    assert all(passage.endswith("。") for passage in found)


def rows(path: Path, content: str) -> list[ManifestRow]:
    path.write_text(content, "utf-8")
    return list(manifest_rows(path, max_bytes=10_000))


def test_csv_pairs_media_with_captions(tmp_path: Path) -> None:
    found = rows(
        tmp_path / "m.csv", 'File,Caption\na.jpg,"a dog, running"\n,only words\nb.jpg,\n,\n'
    )
    assert [(r.number, r.media, r.text) for r in found[:3]] == [
        (1, "a.jpg", "a dog, running"),
        (2, "", "only words"),
        (3, "b.jpg", ""),
    ]
    assert found[3].problem == "neither a media file nor words"


def test_csv_with_semicolons_and_without_a_known_column(tmp_path: Path) -> None:
    assert rows(tmp_path / "m.csv", "image;title\na.jpg;chat\n")[0].media == "a.jpg"
    with pytest.raises(MediaError, match=r"no column to index; found: x, y.*caption"):
        rows(tmp_path / "n.csv", "x,y\n1,2\n")


def test_jsonl_takes_lists_of_captions_and_reports_bad_lines(tmp_path: Path) -> None:
    found = rows(
        tmp_path / "m.jsonl",
        '{"file": "a.jpg", "captions": ["one", "two", "one"]}\n\n'
        'not json\n[1]\n{"text": "words"}\n',
    )
    assert found[0] == ManifestRow(number=1, media="a.jpg", text="one\ntwo")
    assert found[1].problem.startswith("not JSON")
    assert found[2].problem == "not a JSON object"
    assert found[3] == ManifestRow(number=4, text="words")
