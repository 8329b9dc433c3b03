"""Vectors out to Parquet, and embeddings in: nothing embedded again, nothing taken on trust."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from secondglance.errors import (
    EmbedderMismatchError,
    InputError,
    LibraryBusyError,
    LibraryError,
)
from secondglance.library import Library
from secondglance.pipelines import copying
from secondglance.pipelines.import_rows import Imported
from secondglance.pipelines.importing import embedder_settings
from secondglance.pipelines.locking import writing
from secondglance.retrieve.columns import batch_of, payload_of, schema_of
from secondglance.types import Record, join_tags
from tests.contract.stores import records
from tests.libraries import Open, counts, stored_ids, verify
from tests.media import picture, write_pictures

pytestmark = pytest.mark.usefixtures("one_embedder")

Vectors = npt.NDArray[np.float32]


def all_records(library: Library) -> dict[str, Record]:
    store = library._parts.store()
    return {record.id: record for record in store.get(sorted(store.ids()))}


# ---- export


def test_an_export_holds_every_record_in_typed_columns(
    media: Path, open_library: Open, tmp_path: Path
) -> None:
    library = open_library()
    library.index([media])
    done = library.export(tmp_path / "out")
    held = all_records(library)
    assert done.records == len(held)
    assert done.files == ("part-00000.parquet",)
    table = pq.read_table(tmp_path / "out" / "part-00000.parquet")
    dim = library._parts.store().dim
    assert table.schema.field("vector").type == pa.list_(pa.float32(), dim)
    assert table.schema.field("modified").type == pa.timestamp("us", tz="UTC")
    assert table.schema.field("size").type == pa.float64()
    assert table.schema.field("tags").type == pa.list_(pa.string())
    for row in table.to_pylist():
        record = held.pop(row["id"])
        np.testing.assert_array_equal(np.float32(row["vector"]), record.vector)
        path = Path(row["root"]) / row["path"]
        [file] = [f.path for f in library._parts.catalog.files_with(row["item"])]
        assert str(path) == file
        payload = payload_of(row)
        assert payload.keys() == record.payload.keys()
        for key, value in record.payload.items():
            assert payload[key] == (pytest.approx(value) if key == "modified" else value)
    assert not held
    about = json.loads(table.schema.metadata[b"secondglance"])
    assert about["fingerprint"] == library._parts.catalog.get_meta("fingerprint")
    assert about["embedder"] == library.status()["embedder"]
    manifest = json.loads((tmp_path / "out" / "export.json").read_text())
    assert manifest["records"] == done.records
    assert list(manifest["files"]) == list(done.files)


def test_odd_payloads_come_back(tmp_path: Path) -> None:
    written = [
        *records(40),
        Record(id="extra", vector=records(1)[0].vector, payload={"mine": "x", "count": 3}),
        Record(id="bare", vector=records(1)[0].vector, payload={}),
        Record(id="tags", vector=records(1)[0].vector, payload={"tags": join_tags(["a", "b c"])}),
    ]
    schema = schema_of("both", dim=24, metadata={})
    rows = batch_of(written, "both", schema).to_pylist()
    for record, row in zip(written, rows, strict=True):
        back = payload_of(row)
        assert back.keys() == record.payload.keys()
        for key, value in record.payload.items():
            if isinstance(value, str):
                clean = value.encode("utf-8", "replace").decode().replace("\x00", "?")
                assert str(back[key]).replace("\ufffd", "?") == clean
            else:
                assert back[key] == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    ("what", "has", "lacks"),
    [
        ("vectors", {"vector", "path", "item"}, {"text", "extra"}),
        ("metadata", {"text"}, {"vector"}),
    ],
)
def test_what_is_written_can_be_chosen(
    media: Path, open_library: Open, tmp_path: Path, what: Any, has: set[str], lacks: set[str]
) -> None:
    library = open_library()
    library.index([media / "notes.txt"])
    library.export(tmp_path / "out", what=what)
    names = set(pq.read_schema(tmp_path / "out" / "part-00000.parquet").names)
    assert has <= names
    assert not lacks & names


def test_large_exports_are_split_and_streamed(
    open_library: Open, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from secondglance.pipelines import export

    library = open_library()
    library.index([media])
    monkeypatch.setattr(export, "MAX_GROUP_ROWS", 2)
    writer = export._Writer

    def tiny(*arguments: Any, **options: Any) -> Any:
        return writer(*arguments, **{**options, "part_bytes": 2000})

    monkeypatch.setattr(export, "_Writer", tiny)
    done = library.export(tmp_path / "out")
    assert done.records == 11
    tables = [pq.ParquetFile(tmp_path / "out" / name) for name in done.files]
    assert len(tables) > 2
    assert sum(table.metadata.num_rows for table in tables) == 11
    ids = [id_ for table in tables for id_ in table.read(["id"])["id"].to_pylist()]
    assert set(ids) == stored_ids(library)


def test_an_export_appears_whole_or_not_at_all(
    media: Path, open_library: Open, tmp_path: Path
) -> None:
    library = open_library()
    with pytest.raises(LibraryError, match="holds no vectors yet"):
        library.export(tmp_path / "out")
    library.index([media / "photos"])

    def broken(done: int, total: int) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        library.export(tmp_path / "out", on_progress=broken)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / f".out.{gone.pid}.x.partial").mkdir()
    (tmp_path / f".out.{os.getpid()}.x.partial").mkdir()
    library.export(tmp_path / "out")
    assert [p.name for p in tmp_path.glob(".out*")] == [f".out.{os.getpid()}.x.partial"]
    with pytest.raises(InputError, match=r"holds an export already.*--overwrite"):
        library.export(tmp_path / "out")
    assert library.export(tmp_path / "out", overwrite=True).records == 6
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files already"):
        library.export(tmp_path / "out", overwrite=True)
    with pytest.raises(InputError, match="is a file, not a folder"):
        library.export(tmp_path / "out" / "mine.txt")
    with writing(library.folder, wait=False), pytest.raises(LibraryBusyError):
        library.export(tmp_path / "other")


# ---- import of an export


def test_an_export_becomes_a_library_that_embeds_nothing(
    media: Path, open_library: Open, tmp_path: Path
) -> None:
    first = open_library("first")
    first.index([media])
    first.export(tmp_path / "out")
    second = open_library("second", store="faiss")
    done = second.import_embeddings(tmp_path / "out")
    assert (done.rows, done.imported, done.files, done.failed) == (11, 11, 8, 0)
    assert done.checked == 6
    assert done.median_cosine == pytest.approx(1, abs=1e-3)
    assert stored_ids(second) == stored_ids(first)
    verify(second)
    hits = [
        [hit.id for hit in library.search("a dog", k=8, rerank=False).hits]
        for library in (first, second)
    ]
    assert hits[0] == hits[1]
    report = second.index([media])
    assert counts(report) == {"files": 8, "unchanged": 8}
    for id_, record in all_records(first).items():
        again = all_records(second)[id_]
        assert copying.same(record, again), id_
    # Once more: nothing to do.
    assert second.import_embeddings(tmp_path / "out").unchanged == 11


def test_files_that_moved_changed_or_are_gone(
    media: Path, open_library: Open, tmp_path: Path
) -> None:
    first = open_library("first")
    first.index([media])
    first.export(tmp_path / "out")
    moved = media.rename(tmp_path / "elsewhere")
    picture(77).save(moved / "photos" / "picture-0002.jpg")
    (moved / "clip.mp4").unlink()
    second = open_library("second")
    done = second.import_embeddings(tmp_path / "out", root=moved)
    assert (done.files, done.absent, done.changed) == (7, 1, 1)
    said = "\n".join(done.warnings)
    assert "1 files do not exist" in said
    assert "picture-0002.jpg" in said
    hits = second.search("x", k=9, rerank=False, kind="video").hits
    assert [(hit.path, hit.absent) for hit in hits] == [(str(moved / "clip.mp4"), True)]
    assert counts(second.index([moved / "photos"])) == {"files": 6, "indexed": 1, "unchanged": 5}


# ---- import of what other programs made


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "pictures" / "a", 6)
    shutil.copy(tmp_path / "pictures/a/picture-0001.jpg", tmp_path / "pictures" / "copy.jpg")
    return tmp_path / "pictures"


@pytest.fixture
def library(open_library: Open) -> Library:
    return open_library()


def embedded(library: Library, folder: Path, names: list[str]) -> Vectors:
    embedder = library._parts.embedder()
    found = [embedder.embed_image(folder / name, max_pixels=10**8) for name in names]
    return np.stack(found)


NAMES = [*(f"a/picture-{number:04}.jpg" for number in range(6)), "copy.jpg"]


def clip_retrieval(folder: Path, vectors: Vectors, names: list[Any], **more: list[Any]) -> Path:
    """Two parts, as clip-retrieval's inference writes them."""
    for part, chosen in enumerate((slice(0, 4), slice(4, None))):
        (folder / "img_emb").mkdir(parents=True, exist_ok=True)
        (folder / "metadata").mkdir(exist_ok=True)
        np.save(folder / "img_emb" / f"img_emb_{part}.npy", vectors[chosen].astype(np.float16))
        columns = {"image_path": names[chosen], **{k: v[chosen] for k, v in more.items()}}
        pq.write_table(pa.table(columns), folder / "metadata" / f"metadata_{part}.parquet")
    return folder


def test_clip_retrievals_folder(library: Library, pictures: Path, tmp_path: Path) -> None:
    vectors = embedded(library, pictures, NAMES)
    captions = [f"caption number{n}" for n in range(7)]
    given = [str(pictures / NAMES[0]), *NAMES[1:]]  # absolute and relative
    out = clip_retrieval(tmp_path / "out", 3 * vectors, given, caption=captions)
    done = library.import_embeddings(out, root=pictures)
    assert (done.rows, done.files, done.imported, done.failed) == (7, 7, 6, 0)
    assert done.warnings == []
    assert done.checked == 7
    assert done.median_cosine is not None
    assert done.median_cosine > 0.999
    for record in all_records(library).values():
        assert np.linalg.norm(record.vector) == pytest.approx(1, abs=1e-5)
    verify(library)
    [hit] = library.search("number3", k=1, rerank=False).hits
    assert (Path(hit.path).name, hit.text) == ("picture-0003.jpg", "caption number3")
    report = library.index([pictures])
    assert counts(report) == {"files": 7, "unchanged": 7}
    assert report.described == 6  # metadata was read, and the words stayed
    [hit] = library.search("number3", k=1, rerank=False).hits
    assert (hit.text, hit.metadata["width"]) == ("caption number3", 96)
    assert library.import_embeddings(out, root=pictures).unchanged == 7


def test_bad_rows_are_named_and_stop_nothing(
    library: Library, pictures: Path, tmp_path: Path
) -> None:
    names: list[Any] = [*NAMES, "../outside.jpg", None, "notes.txt", "gone.jpg"]
    vectors = np.concatenate([embedded(library, pictures, NAMES), np.ones((4, 1), np.float32)
        * embedded(library, pictures, NAMES[:1])])  # fmt: skip
    vectors[2] = np.nan
    vectors[5] = 0
    out = clip_retrieval(tmp_path / "out", vectors, names)
    done = library.import_embeddings(out, root=pictures)
    assert (done.rows, done.files, done.failed, done.absent) == (11, 6, 5, 1)
    said = {error.path: error.reason for error in done.errors}
    assert said.keys() == {f"img_emb_0.npy:{2}", *(f"img_emb_1.npy:{n}" for n in (1, 3, 4, 5))}
    assert "the vector is not finite" in said["img_emb_0.npy:2"]
    assert "the vector is zero" in said["img_emb_1.npy:1"]
    assert "outside" in said["img_emb_1.npy:3"]
    assert "the path is None" in said["img_emb_1.npy:4"]
    assert "no picture by its name" in said["img_emb_1.npy:5"]
    assert "1 files do not exist" in done.warnings[0]
    assert "gone.jpg" in done.warnings[0]
    # `index` embeds what was left out.
    assert library.index([pictures]).indexed == 2


@pytest.mark.parametrize("kind", ["fixed", "list", "nulls"])
def test_plain_parquet_with_columns_of_any_name(
    library: Library, pictures: Path, tmp_path: Path, kind: str
) -> None:
    vectors = embedded(library, pictures, NAMES)
    dim = vectors.shape[1]
    cells: list[Any] = vectors.tolist()
    if kind == "nulls":
        cells[1], cells[2] = None, cells[2][:5]
    made = pa.list_(pa.float32(), dim) if kind == "fixed" else pa.list_(pa.float64())
    table = pa.table({"where": [f"/old/{n}" for n in NAMES], "v": pa.array(cells, made)})
    pq.write_table(table, tmp_path / "mine.parquet", row_group_size=3)
    columns: Any = {"root": pictures, "path_column": "where", "vector_column": "v"}
    with pytest.raises(InputError, match="none of the files"):
        library.import_embeddings(tmp_path / "mine.parquet", **columns)
    done = library.import_embeddings(tmp_path / "mine.parquet", strip="/old/", **columns)
    bad = {"mine.parquet:1", "mine.parquet:2"} if kind == "nulls" else set()
    assert {error.path for error in done.errors} == bad
    assert done.files == 7 - len(bad)
    verify(library)


def test_vectors_of_another_model_are_refused(
    library: Library, pictures: Path, tmp_path: Path
) -> None:
    vectors = embedded(library, pictures, NAMES)
    noise = np.random.default_rng(0).standard_normal(vectors.shape).astype(np.float32)
    out = clip_retrieval(tmp_path / "noise", noise, NAMES)
    with pytest.raises(EmbedderMismatchError, match=r"7 files .* median cosine of -?0\.\d+") as e:
        library.import_embeddings(out, root=pictures)
    assert library.settings.recall.model in str(e.value)
    assert "--embedder" in str(e.value)
    library.close()
    assert not library.folder.exists()  # it was made for this import


def test_a_library_that_holds_something_stays(
    library: Library, pictures: Path, tmp_path: Path
) -> None:
    library.index([pictures / "copy.jpg"])
    dim = library._parts.store().dim
    short = clip_retrieval(tmp_path / "short", np.ones((7, dim - 1), np.float32), NAMES)
    with pytest.raises(EmbedderMismatchError, match=f"have {dim - 1} values; .* makes {dim}"):
        library.import_embeddings(short, root=pictures)
    assert library.status()["vectors"] == 1


def test_without_a_check_there_is_a_warning(
    library: Library, pictures: Path, tmp_path: Path
) -> None:
    vectors = embedded(library, pictures, NAMES)
    out = clip_retrieval(tmp_path / "out", vectors, NAMES)
    shutil.rmtree(pictures)
    with pytest.raises(InputError, match=r"none of the files .*--sample 0"):
        library.import_embeddings(out, root=pictures)
    done = library.import_embeddings(out, root=pictures, sample=0)
    assert (done.absent, done.files) == (7, 7)
    assert any("was not checked" in warning for warning in done.warnings)
    hits = library.search("x", rerank=False).hits
    assert [hit.absent for hit in hits] == [True] * 7
    library.close()
    assert library.folder.exists()


def broken(folder: Path, how: str) -> None:
    vectors = np.ones((7, 8), np.float32)
    clip_retrieval(folder, vectors, NAMES)
    if how == "rows":
        np.save(folder / "img_emb/img_emb_1.npy", vectors)
    elif how == "dims":
        np.save(folder / "img_emb/img_emb_1.npy", np.ones((3, 9), np.float32))
    elif how == "metadata":
        (folder / "metadata/metadata_1.parquet").unlink()
    elif how == "pickle":
        np.save(folder / "img_emb/img_emb_1.npy", np.array([{}], dtype=object))
    elif how == "damaged":
        (folder / "metadata/metadata_1.parquet").write_bytes(b"no parquet")
    elif how == "empty":
        shutil.rmtree(folder)
        folder.mkdir()
    elif how == "integers":
        shutil.rmtree(folder)
        folder.mkdir()
        pq.write_table(pa.table({"path": ["a"], "vector": [[1, 2]]}), folder / "x.parquet")
    elif how == "columns":
        shutil.rmtree(folder)
        folder.mkdir()
        pq.write_table(pa.table({"a": ["a"], "vector": [[1.0, 2]]}), folder / "x.parquet")


@pytest.mark.parametrize(
    ("how", "options", "expected"),
    [
        ("", {"root": None}, "which folder the files are in is not known"),
        ("", {"use": "text"}, "has no .npy files of text_emb"),
        ("", {"path_column": "where"}, "has no column 'where'; it has image_path"),
        ("", {"vector_column": "v"}, "leave out --vector-column"),
        ("", {"sample": -1}, "sample is -1"),
        ("rows", {}, "has 7 vectors, .* has 3 rows"),
        ("dims", {}, r"differ in length \(img_emb_0.npy: 8, img_emb_1.npy: 9\)"),
        ("metadata", {}, "has no metadata/metadata_1.parquet"),
        ("pickle", {}, "cannot read the vectors"),
        ("damaged", {}, "cannot read .*metadata_1.parquet"),
        ("empty", {}, "holds no embeddings"),
        ("integers", {}, "not lists of floats"),
        ("columns", {}, "none of the columns image_path, path"),
    ],
)
def test_folders_that_cannot_be_used(
    library: Library, tmp_path: Path, how: str, options: dict[str, Any], expected: str
) -> None:
    broken(tmp_path / "out", how)
    with pytest.raises(InputError, match=expected):
        library.import_embeddings(tmp_path / "out", **{"root": tmp_path, **options})


KILLED = """
import os, signal, sys
from secondglance.library import Library
from secondglance.pipelines import import_rows
import_rows.AT_ONCE = 2
def told(done, total):
    if done >= 4:
        os.kill(os.getpid(), signal.SIGKILL)
with Library.open(sys.argv[1]) as library:
    library.import_embeddings(sys.argv[2], root=sys.argv[3], on_progress=told)
"""


def test_a_killed_import_is_gone_on_with(
    library: Library, open_library: Open, pictures: Path, tmp_path: Path
) -> None:
    out = clip_retrieval(tmp_path / "out", embedded(library, pictures, NAMES), NAMES)
    library.close()
    arguments = [str(library.folder), str(out), str(pictures)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments])
    assert killed.returncode == -9
    again = open_library()
    done: Imported = again.import_embeddings(out, root=pictures)
    assert (done.unchanged, done.files) == (4, 3)
    verify(again)
    assert counts(again.index([pictures])) == {"files": 7, "unchanged": 7}


def test_names_of_models() -> None:
    assert embedder_settings("ViT-B/32") == {"model": "ViT-B-32", "pretrained": "openai"}
    assert embedder_settings("open_clip:ViT-B-32/laion2b_s34b_b79k") == {
        "model": "ViT-B-32",
        "pretrained": "laion2b_s34b_b79k",
    }
    assert embedder_settings("org/name") == {"model": "org/name", "pretrained": ""}
    assert embedder_settings("builtin:starter")["model"] == "builtin:starter"
