from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from secondglance.errors import InputError
from secondglance.evaluation import datasets, metrics
from secondglance.evaluation.judgments import Resolver, matched
from secondglance.ingest.scan import Scan, walk
from secondglance.ingest.text import manifest_rows


def touched(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())


def written(path: Path, *lines: str, end: str = "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(end.join(lines) + end, "utf-8", newline="")
    return path


def image(number: int, split: str, *, captions: int = 5, **more: Any) -> dict[str, Any]:
    sentences = [
        {"tokens": ["x"], "raw": f" caption {k}  of {number}.", "imgid": number,
         "sentid": 100 * number + k}
        for k in range(captions)
    ]  # fmt: skip
    row = {"sentids": [s["sentid"] for s in sentences], "imgid": number, "sentences": sentences}
    return row | {"split": split, "filename": f"{number}.jpg"} | more


def flickr(root: Path, **changes: Any) -> Path:
    images = [image(1, "train"), image(2, "test"), image(3, "val"), image(4, "test", captions=6)]
    content = {"images": images, "dataset": "flickr30k"} | changes
    written(root / "dataset_flickr30k.json", json.dumps(content))
    touched(*(root / "flickr30k-images" / f"{number}.jpg" for number in (1, 2, 3, 4)))
    return root


def test_flickr30k(tmp_path: Path) -> None:
    found = datasets.load("Flickr30k", flickr(tmp_path))
    folder = tmp_path / "flickr30k-images"
    assert (found.name, found.split) == ("flickr30k", "test")
    assert found.documents == (folder / "2.jpg", folder / "4.jpg")
    # Five captions an image, though one has six.
    assert len(found.queries) == 10
    assert found.queries[6].id == "401"
    assert found.queries[6].query.text == "caption 1 of 4."
    assert found.queries[6].language == "en"
    assert found.qrels["401"] == {"flickr30k-images/4.jpg": 1}
    assert found.protocol.startswith("Flickr30k, Karpathy split, test. Text to image")
    assert found.protocol.endswith("2 documents, 10 queries.")
    assert datasets.load("flickr30k", tmp_path, split="val").documents == (folder / "3.jpg",)


def test_coco_and_its_folds(tmp_path: Path) -> None:
    images = [image(0, "restval", filepath="train2014")] + [
        image(number, "test", captions=1, filepath="val2014", cocoid=number)
        for number in range(1, 2004)
    ]
    written(tmp_path / "annotations" / "dataset_coco.json", json.dumps({"images": images}))
    touched(*(tmp_path / "images" / "val2014" / f"{n}.jpg" for n in range(1, 2004)))
    assert len(datasets.load("coco", tmp_path).documents) == 2003
    second = datasets.load("coco", tmp_path, split="1k-2")
    assert len(second.documents) == 1000
    assert second.documents[0] == tmp_path / "images" / "val2014" / "1001.jpg"
    assert second.qrels["200000"] == {"images/val2014/2000.jpg": 1}
    assert "fold 2 of 5; published 1k figures are the mean" in second.protocol
    assert len(datasets.load("coco", tmp_path, split="1k-3").documents) == 3
    with pytest.raises(InputError, match="no captions for the split '1k-4'"):
        datasets.load("coco", tmp_path, split="1k-4")


def test_msrvtt(tmp_path: Path) -> None:
    written(
        tmp_path / "MSRVTT_JSFUSION_test.csv",
        "key,vid_key,video_id,sentence",
        "ret0,msr9770,video9770,a person is connecting something to system",
        'ret1,msr9771,video9771,"a little girl, who does gymnastics"',
        end="\r\n",
    )
    touched(tmp_path / "MSRVTT_Videos" / "video9770.mp4", tmp_path / "videos/all/video9771.webm")
    found = datasets.load("msrvtt", tmp_path)
    assert [query.query.text for query in found.queries] == [
        "a person is connecting something to system",
        "a little girl, who does gymnastics",
    ]
    assert list(found.qrels.values()) == [
        {"MSRVTT_Videos/video9770.mp4": 1},
        {"videos/all/video9771.webm": 1},
    ]
    assert "1k-A" in found.protocol


def full_msrvtt(root: Path, name: str = "test_videodatainfo.json", **changes: Any) -> Path:
    clips = [("video2960", "train"), ("video7010", "test"), ("video9999", "test")]
    content = {
        "info": {"year": "2016"},
        "videos": [
            {"id": int(clip[5:]), "video_id": clip, "category": 1, "url": "u", "split": split,
             "start time": 1.0, "end time": 9.0}
            for clip, split in clips
        ],
        "sentences": [
            {"sen_id": 3, "video_id": "video9999", "caption": "a  man talks"},
            {"sen_id": 1, "video_id": "video7010", "caption": "a girl sings"},
            {"sen_id": 2, "video_id": "video2960", "caption": "nobody asks"},
            {"sen_id": 4, "video_id": "video9999", "caption": "a man talks"},
        ],
    }  # fmt: skip
    written(root / name, json.dumps(content | changes))
    touched(*(root / "TestVideo" / f"{clip}.mp4" for clip, _ in clips))
    return root


@pytest.mark.parametrize("name", ["test_videodatainfo.json", "annotations/MSRVTT_data.json"])
def test_msrvtt_in_full_takes_the_test_clips_and_all_their_captions(
    tmp_path: Path, name: str
) -> None:
    found = datasets.load("msrvtt", full_msrvtt(tmp_path, name), split="full")
    assert [path.name for path in found.documents] == ["video7010.mp4", "video9999.mp4"]
    assert {query.id: query.query.text for query in found.queries} == {
        "1": "a girl sings", "3": "a man talks", "4": "a man talks",
    }  # fmt: skip
    assert found.qrels["4"] == {"TestVideo/video9999.mp4": 1}
    assert found.measures == ("Recall@1", "Recall@5", "Recall@10")
    assert found.protocol.startswith("MSR-VTT, full test split.")
    assert found.protocol.endswith("2 documents, 3 queries.")
    with pytest.raises(InputError, match=r"has no MSRVTT_JSFUSION_test\.csv"):
        datasets.load("msrvtt", tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sentences": []}, "2 clips have no words: video7010, video9999"),
        ({"videos": [{"video_id": "video7010"}]}, "KeyError: 'split'"),
        ({"sentences": [{"video_id": "video7010", "caption": 3}]}, "AttributeError"),
        ({"videos": []}, "no captions for the split 'full'"),
    ],
)
def test_malformed_lists_of_the_full_msrvtt(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        datasets.load("msrvtt", full_msrvtt(tmp_path, **changes), split="full")


def test_image_to_text_asks_pictures_for_their_captions(tmp_path: Path) -> None:
    found = datasets.load("flickr30k", flickr(tmp_path), direction="image-to-text")
    folder = tmp_path / "flickr30k-images"
    assert found.documents == ()
    assert (found.size, len(found.texts)) == (10, 10)
    assert [(query.id, query.kind, query.query.image) for query in found.queries] == [
        ("flickr30k-images/2.jpg", "image", folder / "2.jpg"),
        ("flickr30k-images/4.jpg", "image", folder / "4.jpg"),
    ]
    # Five captions an image, though one has six.
    assert found.qrels["flickr30k-images/4.jpg"] == {f"40{k}.txt": 1 for k in range(5)}
    assert found.texts["401.txt"] == "caption 1 of 4."
    assert found.measures == ("Hit@1", "Hit@5", "Hit@10")
    assert "Image to text" in found.protocol
    assert "Text to image" not in found.protocol
    assert found.protocol.endswith("10 documents, 2 queries.")
    datasets.write_captions(tmp_path / "captions" / "test", found)
    files = sorted((tmp_path / "captions" / "test").iterdir())
    assert [file.name for file in files] == sorted(found.texts)
    assert files[0].read_text("utf-8") == "caption 0 of 2.\n"


def test_image_to_text_of_other_datasets_and_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"xtd is not read from image to text \(flickr30k and"):
        datasets.load("xtd", xtd(tmp_path / "xtd"), direction="image-to-text")
    root = flickr(tmp_path / "flickr")
    with pytest.raises(InputError, match=r"no direction 'back' \(name one of text-to-media, image"):
        datasets.load("flickr30k", root, direction="back")
    forth = datasets.load("flickr30k", root)
    back = datasets.load("flickr30k", root, direction="image-to-text")
    with pytest.raises(InputError, match=r"flickr30k test was not loaded from image to text"):
        datasets.write_captions(tmp_path / "new", forth)
    with pytest.raises(InputError, match=r"are captions, not files \(write them with write_cap"):
        datasets.write_documents(root / "documents.jsonl", back)
    with pytest.raises(InputError, match="is not empty"):
        datasets.write_captions(root, back)
    written(tmp_path / "file", "")
    with pytest.raises(InputError, match="cannot write captions to"):
        datasets.write_captions(tmp_path / "file" / "below", back)
    (root / "flickr30k-images" / "4.jpg").unlink()
    with pytest.raises(InputError, match="1 of 2 files are missing"):
        datasets.load("flickr30k", root, direction="image-to-text")


@pytest.mark.parametrize("sentid", ["same", "../up"])
def test_captions_whose_ids_make_no_files(tmp_path: Path, sentid: str) -> None:
    one = image(2, "test", captions=2)
    for sentence in one["sentences"]:
        sentence["sentid"] = sentid if sentid == "same" else f"{sentid}{sentence['sentid']}"
    with pytest.raises(InputError, match="a sentid comes twice, or makes no file's name"):
        datasets.load("flickr30k", flickr(tmp_path, images=[one]), direction="image-to-text")


def msvd(root: Path) -> Path:
    written(root / "test_list.txt", "-4wsuPCjDBc_5_15", "f9_bP219ehQ_63_70")
    written(
        root / "AllVideoDescriptions.txt",
        "# This file contains the descriptions",
        "",
        "-4wsuPCjDBc_5_15 a squirrel is eating a peanut in it's shell",
        "-4wsuPCjDBc_5_15 the animal ate",
        "other_1_2 nobody asks",
        "f9_bP219ehQ_63_70 a man rides",
    )
    touched(*(root / "YouTubeClips" / f"{id}.avi" for id in ("-4wsuPCjDBc_5_15", "other_1_2")))
    touched(root / "YouTubeClips" / "f9_bP219ehQ_63_70.avi")
    return root


def test_msvd(tmp_path: Path) -> None:
    found = datasets.load("msvd", msvd(tmp_path))
    assert [path.stem for path in found.documents] == ["-4wsuPCjDBc_5_15", "f9_bP219ehQ_63_70"]
    assert [query.query.text for query in found.queries] == [
        "a squirrel is eating a peanut in it's shell",
        "the animal ate",
        "a man rides",
    ]
    assert found.qrels["-4wsuPCjDBc_5_15#1"] == {"YouTubeClips/-4wsuPCjDBc_5_15.avi": 1}


def test_msvds_pickle_is_not_opened(tmp_path: Path) -> None:
    (msvd(tmp_path) / "AllVideoDescriptions.txt").unlink()
    touched(tmp_path / "raw-captions.pkl")
    with pytest.raises(InputError, match=r"pickle may run any program.*AllVideoDescriptions\.txt"):
        datasets.load("msvd", tmp_path)


def xtd(root: Path) -> Path:
    names = ["COCO_train2014_000000000001.jpg", "COCO_val2014_000000000002.jpg"]
    written(root / "test_image_names.txt", *names)
    written(root / "test_1kcaptions_zh.txt", "一只狗", "红色的车")
    written(root / "STAIR" / "test_1kcaptions_jp.txt", "犬", "赤い車", end="\r\n")
    written(root / "test_1kcaptions_ru.txt", "собака", "красная машина")
    touched(root / "train2014" / names[0], root / "images" / names[1])
    return root


def test_xtd_in_all_and_in_some_languages(tmp_path: Path) -> None:
    found = datasets.load("xtd", xtd(tmp_path))
    assert {(q.id, q.language, q.query.text) for q in found.queries if q.id[0] == "1"} == {
        ("1-ja", "ja", "赤い車"),
        ("1-ru", "ru", "красная машина"),
        ("1-zh", "zh", "红色的车"),
    }
    assert len(found.documents) == 2
    assert found.qrels["0-ru"] == {"train2014/COCO_train2014_000000000001.jpg": 1}
    some = datasets.load("xtd", tmp_path, languages=["jp", "ru", "ja"])
    assert [query.id for query in some.queries] == ["0-ja", "1-ja", "0-ru", "1-ru"]
    with pytest.raises(InputError, match=r"no captions in de .*there are .*zh"):
        datasets.load("xtd", tmp_path, languages=["de"])


def test_lists_of_different_lengths(tmp_path: Path) -> None:
    written(xtd(tmp_path) / "test_1kcaptions_ru.txt", "собака")
    with pytest.raises(InputError, match=r"ru\.txt is not as xtd has it: 1 lines for the 2"):
        datasets.load("xtd", tmp_path)
    written(tmp_path / "test_1kcaptions_ru.txt", "", "собака")
    with pytest.raises(InputError, match="lines without words: 1"):
        datasets.load("xtd", tmp_path)


def test_missing_media_are_counted_and_named(tmp_path: Path) -> None:
    (flickr(tmp_path) / "flickr30k-images" / "4.jpg").unlink()
    message = r"1 of 2 files are missing in .*: 4\.jpg .*Flickr30k page of the University"
    with pytest.raises(InputError, match=message):
        datasets.load("flickr30k", tmp_path)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("flickr30k", r"dataset_flickr30k\.json .*Karpathy's page"),
        ("coco", r"dataset_coco\.json .*cocodataset\.org"),
        ("msrvtt", r"MSRVTT_JSFUSION_test\.csv .*MSR-VTT page"),
        ("msvd", r"test_list\.txt .*Video Description Corpus"),
        ("xtd", r"test_image_names\.txt .*XTD10"),
    ],
)
def test_missing_lists_are_named_with_their_source(tmp_path: Path, name: str, file: str) -> None:
    with pytest.raises(InputError, match=f"has no {file}"):
        datasets.load(name, tmp_path)
    with pytest.raises(InputError, match="there is no folder"):
        datasets.load(name, tmp_path / "nowhere")


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"images": [{}]}', '{"images": [{"split": "test", "filename": "a.jpg"}]}',
     '{"images": [{"split": "test", "filename": 3, "sentences": []}]}', '{"images": 3}',
     '{"images": [{"split": "test", "filename": "a", "sentences": [{"raw": 1, "sentid": 1}]}]}'],
)  # fmt: skip
def test_malformed_karpathy_files(tmp_path: Path, content: str) -> None:
    written(tmp_path / "dataset_flickr30k.json", content)
    with pytest.raises(InputError, match=r"dataset_flickr30k\.json is not as flickr30k has it"):
        datasets.load("flickr30k", tmp_path)


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd"])
def test_lists_do_not_leave_their_folder(tmp_path: Path, name: str) -> None:
    flickr(tmp_path, images=[image(2, "test") | {"filename": name}])
    with pytest.raises(InputError, match="leaves the folder"):
        datasets.load("flickr30k", tmp_path)


def test_malformed_lists_of_clips(tmp_path: Path) -> None:
    written(tmp_path / "MSRVTT_JSFUSION_test.csv", "key,sentence", "ret0,words")
    with pytest.raises(InputError, match="columns must have video_id and sentence"):
        datasets.load("msrvtt", tmp_path)
    written(tmp_path / "MSRVTT_JSFUSION_test.csv", "video_id,sentence", "v1,words", "v2")
    with pytest.raises(InputError, match="1 lines have no video or words: 3"):
        datasets.load("msrvtt", tmp_path)
    written(msvd(tmp_path) / "test_list.txt", "-4wsuPCjDBc_5_15", "silent_1_2")
    with pytest.raises(InputError, match="1 clips have no words: silent_1_2"):
        datasets.load("msvd", tmp_path)


def test_names_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no dataset 'imagenet' \(name one of flickr30k, coco"):
        datasets.load("imagenet", tmp_path)
    with pytest.raises(InputError, match=r"coco has no split 'train' \(name one of test"):
        datasets.load("coco", tmp_path, split="train")
    with pytest.raises(InputError, match="captions in one language"):
        datasets.load("coco", tmp_path, languages=["de"])


def test_judgments_fit_a_library_of_the_documents(tmp_path: Path) -> None:
    found = datasets.load("flickr30k", flickr(tmp_path))
    library = Resolver([(path.name, str(path)) for path in found.documents])
    queries, qrels, warnings = matched(found.queries, found.qrels, library)
    assert (len(queries), warnings) == (10, [])
    run = {query.id: metrics.falling(["2.jpg", "4.jpg"]) for query in queries}
    values = metrics.compute(["Recall@1", "Recall@5"], qrels, run)
    assert metrics.means(values) == {"Recall@1": 0.5, "Recall@5": 1.0}


def test_the_manifest_of_documents_is_what_gets_indexed(tmp_path: Path) -> None:
    found = datasets.load("flickr30k", flickr(tmp_path))
    manifest = tmp_path / "documents.jsonl"
    datasets.write_documents(manifest, found)
    paths = [item.path for item in walk(manifest, exclude=tmp_path / "library", scan=Scan())]
    assert sorted(paths) == sorted([manifest, *found.documents])
    assert not any(row.text for row in manifest_rows(manifest, max_bytes=10_000))
    with pytest.raises(InputError, match="2 documents are not below"):
        datasets.write_documents(tmp_path / "elsewhere" / "documents.jsonl", found)
