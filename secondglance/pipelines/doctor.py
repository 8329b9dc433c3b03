"""What this machine has, and what to do about what is missing."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from secondglance.config import PRESET_NAMES, Settings, load_settings, read_preset
from secondglance.errors import RerankError, SecondGlanceError
from secondglance.ingest.checkpoint import hub_repository
from secondglance.pipelines.build import open_reranker
from secondglance.pipelines.builtin import STARTER, UNTRAINED
from secondglance.pipelines.preset import choose_preset, is_cached
from secondglance.pipelines.stores import server_access
from secondglance.types import Content

LOW_DISK_BYTES = 5 * 10**9
ANSWER_S = 10.0
"""Longest wait for a reranker elsewhere."""
BUILT_IN = {
    STARTER: "small, trained on generated scenes, for trying things out",
    UNTRAINED: "random weights, for trying the machinery; rankings mean nothing",
}
"""Models that need no download."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at; `problem` means that the preset will not work."""

    name: str
    state: Literal["ok", "note", "problem"]
    detail: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PresetModel:
    """A model that a preset names, and whether it is on this machine."""

    preset: str
    stage: Literal["recall", "rerank"]
    model: str
    present: bool


def examine(
    *,
    preset: str | None = None,
    library: Path | None = None,
    config: Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> list[Finding]:
    """Looks at interpreter, devices, decoders, models, and the store.

    Args:
        preset: Whose models and store to check; none for what a new library would take.
        library: Also check this one.
        config: TOML file of settings.
        settings: Overrides.
    """
    asked = load_settings(file=config, flags=settings)
    name = preset if preset not in (None, "auto") else choose_preset(asked)[0]
    chosen = load_settings(base=read_preset(str(name)), file=config, flags=settings)
    findings = [_versions(), _disk(library or Path.cwd())]
    for of_machine in (_devices, _attention, _decoders):
        findings += _safely(of_machine)
    for of_settings in (_models, _remote, _store):
        findings += _safely(partial(of_settings, chosen))
    if library is not None:
        findings += _safely(lambda: _library(library))
    return findings


def preset_models() -> list[PresetModel]:
    """The models of every preset."""
    found = []
    for preset in PRESET_NAMES:
        tables = read_preset(preset)
        for stage in ("recall", "rerank"):
            model, tag = tables[stage]["model"], tables[stage].get("pretrained", "")
            found.append(
                PresetModel(
                    preset=preset,
                    stage=stage,
                    model=f"{model}/{tag}" if tag else model,
                    present=_present(model, tag),
                )
            )
    return found


def _safely(look: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """A check that fails is a finding, not the end of the report."""
    found: list[Finding] = []
    try:
        found.extend(look())
    except SecondGlanceError as error:
        found.append(
            Finding(name="error", state="problem", detail=error.problem, remedy=error.remedy)
        )
    except Exception as error:
        detail = f"{type(error).__name__}: {error}"
        found.append(Finding(name="error", state="problem", detail=detail))
    return found


def _versions() -> Finding:
    import torch

    detail = f"Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}"
    return Finding(name="software", state="ok", detail=detail)


def _disk(folder: Path) -> Finding:
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    detail = f"{free / 1e9:.0f} GB free at {there}"
    if free < LOW_DISK_BYTES:
        return Finding(name="disk", state="note", detail=detail, remedy="make room before indexing")
    return Finding(name="disk", state="ok", detail=detail)


def _devices() -> Iterator[Finding]:
    import torch

    yield Finding(name="processor", state="ok", detail=f"{os.cpu_count()} cores")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            detail = f"{properties.name}, {properties.total_memory / 1e9:.0f} GB"
            yield Finding(name=f"GPU {index}", state="ok", detail=detail)
    elif torch.backends.mps.is_available():
        yield Finding(name="GPU", state="ok", detail="Apple GPU through MPS")
    else:
        yield Finding(
            name="GPU",
            state="note",
            detail="none found: models run on the processor",
            remedy="if the second pass takes too long, lower --recall or set --budget-ms",
        )


def _attention() -> Iterator[Finding]:
    if importlib.util.find_spec("flash_attn") is not None:
        yield Finding(name="attention", state="ok", detail="flash attention and SDPA")
    else:
        yield Finding(name="attention", state="ok", detail="SDPA (flash-attn is not installed)")


def _decoders() -> Iterator[Finding]:
    from importlib.metadata import version

    import av
    import PIL
    from PIL import features

    kinds = [kind for kind in ("webp", "avif") if features.check(kind)]
    yield Finding(
        name="pictures", state="ok", detail=f"Pillow {PIL.__version__} with {', '.join(kinds)}"
    )
    if importlib.util.find_spec("pillow_heif") is None:
        yield Finding(
            name="HEIC",
            state="note",
            detail="HEIC pictures cannot be read",
            remedy='pip install "secondglance[heif]"',
        )
    else:
        yield Finding(name="HEIC", state="ok", detail="pillow-heif")
    # decord is not imported: it would open NVIDIA's libraries for the whole process.
    detail = f"PyAV {av.__version__} with FFmpeg {av.ffmpeg_version_info}, decord2 "
    yield Finding(name="video", state="ok", detail=detail + version("decord2"))


def _models(settings: Settings) -> Iterator[Finding]:
    recall, rerank = settings.recall, settings.rerank
    wanted = [("recall model", recall.model, recall.pretrained, "recall.model")]
    if rerank.backend == "qwen3vl":
        wanted.append(("rerank model", rerank.model, "", "rerank.model"))
    for name, model, tag, setting in wanted:
        shown = f"{model}/{tag}" if tag else model
        if model in BUILT_IN:
            yield Finding(
                name=name,
                state="note",
                detail=f"{shown}: {BUILT_IN[model]}",
                remedy="use --preset laptop or gpu for real search",
            )
        elif _present(model, tag):
            yield Finding(name=name, state="ok", detail=shown)
        else:
            offline = os.environ.get("HF_HUB_OFFLINE") == "1"
            then = "HF_HUB_OFFLINE is set" if offline else "it is downloaded on first use"
            yield Finding(
                name=name,
                state="problem" if offline else "note",
                detail=f"{shown} is not on this machine; {then}",
                remedy=f"without a connection: --set {setting}=FOLDER, or HF_ENDPOINT=MIRROR",
            )


def _present(model: str, tag: str) -> bool:
    if model in BUILT_IN:
        return True
    if Path(model.removeprefix("local-dir:")).expanduser().is_dir():
        return True
    repository = hub_repository(model, tag) if tag or "/" in model else None
    return repository is not None and is_cached(repository)


def _remote(settings: Settings) -> Iterator[Finding]:
    """Whether each reranker at another place answers a smallest question."""
    if settings.rerank.backend != "remote":
        return
    urls = settings.rerank.url or []
    for url in [urls] if isinstance(urls, str) else urls:
        chosen = {"url": url, "retries": 0, "timeout_s": min(settings.rerank.timeout_s, ANSWER_S)}
        reranker = open_reranker(settings.rerank.model_copy(update=chosen))
        words = Content(texts=("a dog",))
        try:
            [answer] = reranker.score(words, [words])
        except RerankError as error:
            yield Finding(
                name="reranker", state="problem", detail=error.problem, remedy=error.remedy
            )
        else:
            score = answer.error if answer.score is None else f"{answer.score:.2f}"
            detail = f"{reranker.name} answers; a dog is a dog: {score}"
            yield Finding(name="reranker", state="ok", detail=detail)


def _store(settings: Settings) -> Iterator[Finding]:
    store = settings.store
    if store.backend != "milvus" or store.uri is None:
        where = "in the library folder"
        kind = "Milvus Lite" if store.backend == "milvus" else store.backend
        yield Finding(name="store", state="ok", detail=f"{kind}, {where}")
        return
    from secondglance.retrieve.milvus_errors import server_error
    from secondglance.retrieve.milvus_server import connect, without_secrets

    label = without_secrets(store.uri)
    try:
        client, version, _ = connect(store.uri, **server_access(store))
        client.close()
    except Exception as error:
        known = error if isinstance(error, SecondGlanceError) else server_error(error, label)
        yield Finding(
            name="store",
            state="problem",
            detail=f"no Milvus at {label}: {known.problem}",
            remedy=known.remedy or "start it, or check store.uri and store.token",
        )
        return
    said = "Lite" if version is None else ".".join(map(str, version))
    yield Finding(name="store", state="ok", detail=f"Milvus {said} at {label}")


def _library(folder: Path) -> Iterator[Finding]:
    from secondglance.ingest.catalog import FILE_NAME, Catalog
    from secondglance.pipelines.stamp import data_folder, read_stamp

    data = data_folder(folder, read_stamp(folder) or {})
    if not (data / FILE_NAME).is_file():
        yield Finding(
            name="library",
            state="problem",
            detail=f"there is no library in {folder}",
            remedy=f"secondglance index FOLDER --library {folder}",
        )
        return
    catalog = Catalog(data)
    counts = catalog.counts()
    catalog.close()
    yield Finding(name="library", state="ok", detail=f"{counts['records']} segments in {folder}")
