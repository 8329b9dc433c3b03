"""Finding and loading rerankers: what is wrong, in one line, with the remedy."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from secondglance.errors import ModelError
from secondglance.rerank import Qwen3VLReranker
from secondglance.types import Content


@pytest.fixture
def folder(untrained_reranker: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(untrained_reranker, tmp_path / "reranker"))


def failure(name: str | Path, **options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        Qwen3VLReranker(name, device="cpu", **options)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "name", ["/nowhere/reranker", "./nowhere", "~/nowhere/reranker", "nowhere", "a/b/c", "tests/no"]
)
def test_a_missing_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tests").mkdir()
    monkeypatch.chdir(tmp_path)
    assert f"no reranker folder at '{name}'" in failure(name)


@pytest.mark.parametrize("local_files_only", [True, False])
def test_a_hub_id_that_cannot_be_fetched(
    local_files_only: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A port where nobody answers stands for a hub that cannot be reached.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", "http://127.0.0.1:9")
    message = failure(
        "Nobody/No-Reranker", local_files_only=local_files_only, cache_dir=str(tmp_path)
    )
    assert "Nobody/No-Reranker" in message
    assert "local folder" in message
    assert local_files_only or "HF_ENDPOINT" in message


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"]
)
def test_a_missing_file(name: str, folder: Path) -> None:
    (folder / name).unlink()
    assert f"has no {name}" in failure(folder)


def test_a_wrong_hash(folder: Path) -> None:
    weights = folder / "model.safetensors"
    right = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert Qwen3VLReranker(folder, device="cpu", sha256=right.upper())
    message = failure(folder, sha256="0" * 64)
    assert right in message
    assert "rerank.sha256" in message
    weights.rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"metadata": {}, "weight_map": {}}')
    assert "several files" in failure(folder, sha256=right)


def test_a_missing_shard(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"lm_head.weight": "model-00002-of-00002.safetensors"}
    index = {"metadata": {}, "weight_map": shards}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "has no model-00002-of-00002.safetensors" in failure(folder)


def _edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def test_another_architecture(folder: Path) -> None:
    _edit(folder / "config.json", lambda config: config.update(model_type="qwen2_5_vl"))
    message = failure(folder)
    assert "holds a 'qwen2_5_vl' model, not 'qwen3_vl'" in message
    assert "Qwen/Qwen3-VL-Reranker-2B" in message


def test_damaged_files(folder: Path) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:1000])
    assert "cannot load the reranker" in failure(folder)
    (folder / "config.json").write_text("{")
    assert "config.json cannot be read" in failure(folder)


def test_weights_that_lack_tensors(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.language_model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "lack 1 tensors, such as model.language_model.norm.weight" in failure(folder)


def test_no_single_yes(folder: Path) -> None:
    def forget(tokenizer: dict[str, Any]) -> None:
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary["yep"] = vocabulary.pop("yes")
        tokenizer["model"]["merges"] = [["y", "e"], ["ye", "p"], ["n", "o"]]

    _edit(folder / "tokenizer.json", forget)
    assert '"yes" is not a single token' in failure(folder)


def test_a_tokenizer_of_another_model(folder: Path) -> None:
    _edit(folder / "config.json", lambda config: config.update(image_token_id=7))
    assert "lacks control tokens of Qwen3-VL" in failure(folder)


def test_nothing_unsafe(folder: Path) -> None:
    assert "trust_remote_code=True" in failure(folder, trust_remote_code=True)
    assert "use_safetensors=False" in failure(folder, use_safetensors=False)
    assert Qwen3VLReranker(folder, device="cpu", trust_remote_code=False).name == str(folder)


def test_arguments_of_the_official_script(folder: Path) -> None:
    query, documents = Content(texts=["q"]), [Content(texts=["d"])]
    plain = Qwen3VLReranker(str(folder), device="cpu").log_odds(query, documents)
    reranker = Qwen3VLReranker(
        model_name_or_path=str(folder),
        max_length=4096,
        torch_dtype=torch.bfloat16,
        attn_implementation="eager",
        device="cpu",
    )
    assert reranker.model.dtype == torch.bfloat16
    assert reranker.model.config._attn_implementation == "eager"
    assert reranker.log_odds(query, documents) == pytest.approx(plain, abs=1 / 8)


def test_loading_says_nothing(
    folder: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    Qwen3VLReranker(folder, device="cpu").score(Content(texts=["q"]), [Content(texts=["d"])])
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
