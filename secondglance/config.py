"""Typed settings: defaults < preset < file < environment < flags.

A preset is a packaged TOML file that names the models and the store. A file is any TOML of the
same shape. Environment variables are `SECONDGLANCE_<SECTION>__<KEY>`, for instance
`SECONDGLANCE_RECALL__DEVICE=cpu`. Unknown keys are errors wherever they come from.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from secondglance.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ENV_PREFIX = "SECONDGLANCE_"
PRESET_NAMES = ("starter", "laptop", "gpu", "cluster")

SECRETS = ("token", "api_key")
"""Keys whose values no message shows."""

Device = Literal["auto", "cpu", "cuda", "mps"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class RecallSettings(_Section):
    """The first pass: which open-clip model embeds."""

    model: str = Field(
        default="builtin:starter",
        description="open-clip model name, hub id (org/name), local folder, builtin:starter, or "
        "builtin:untrained",
    )
    pretrained: str = Field(
        default="", description="open-clip tag, or a .safetensors file, for a model given by name"
    )
    revision: str | None = Field(default=None, description="hub revision to pin")
    sha256: str | None = Field(default=None, description="expected hash of the weights file")
    device: Device = Field(default="auto", description="auto takes CUDA, then MPS, then the CPU")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="auto is bf16 on CUDA, else fp32"
    )
    batch_size: int = Field(
        default=0, ge=0, le=4096, description="pictures or texts at once; 0: 256 on CUDA, else 32"
    )
    compiled: bool = Field(
        default=False, description="fuse the image tower; slow to start, then faster on GPUs"
    )


class RerankSettings(_Section):
    """The second pass. Pixel limits are those of the official recipe."""

    backend: Literal["qwen3vl", "remote", "passthrough"] = Field(
        default="qwen3vl",
        description="remote asks the servers of url; passthrough keeps recall order",
    )
    model: str = Field(
        default="builtin:starter",
        description="hub id, local folder, builtin:starter, or builtin:untrained; remote: what the "
        "server calls its model, builtin ones being whatever it has",
    )
    url: str | list[str] | None = Field(
        default=None, description="remote: the server, or several that serve the same model"
    )
    api_key: SecretStr | None = Field(
        default=None, description="remote: sent as a bearer token; never written to disk"
    )
    dialect: Literal["secondglance", "vllm", "jina", "cohere"] = Field(
        default="secondglance",
        description="remote: what the server understands; jina: text or a picture, cohere: text",
    )
    timeout_s: float = Field(
        default=60.0, gt=0, description="remote: longest wait for one answer, of some candidates"
    )
    retries: int = Field(
        default=2, ge=0, le=10, description="remote: further tries of what was not delivered"
    )
    hedge_share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="remote, several servers: share of requests that may go to a second one while "
        "the first takes long",
    )
    revision: str | None = Field(default=None, description="hub revision to pin")
    sha256: str | None = Field(
        default=None, description="expected hash of model.safetensors, if it is one file"
    )
    device: Device = Field(default="auto", description="auto takes CUDA, then MPS, then the CPU")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="auto is bfloat16 on CUDA and on CPUs with AMX, else float32"
    )
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = Field(
        default="auto", description="auto is the engine's own; others run through transformers"
    )
    compiled: bool = Field(
        default=False, description="fuse each layer's operations; slow to start, then faster"
    )
    fp8: bool = Field(default=False, description="8-bit matrices, on GPUs that have them")
    min_pixels: int = Field(default=4096, ge=1024, description="smaller pictures are enlarged")
    max_pixels: int = Field(default=1_843_200, ge=4096, description="larger ones are reduced")
    total_pixels: int = Field(default=7_864_320, ge=4096, description="of a whole clip")
    fps: float = Field(default=1.0, gt=0, description="frames a second taken from a clip")
    max_frames: int = Field(default=64, ge=1, description="of a clip")
    max_length: int = Field(default=10_240, ge=256, description="tokens of a pair")
    batch_tokens: int | None = Field(
        default=None,
        ge=1,
        description="tokens scored at once; none: 32,768 on CUDA (or what fits), else 8,192",
    )
    replicas: int = Field(
        default=1, ge=0, description="GPUs that share the work, each with the model; 0: all"
    )
    instruction: str | None = Field(default=None, description="replaces the official instruction")
    score_cache_mb: int = Field(
        default=256, ge=0, description="scores kept in the library's folder; 0: none"
    )
    pixel_cache_mb: int = Field(
        default=512, ge=0, description="prepared pictures and clips kept in memory; 0: none"
    )


class StoreSettings(_Section):
    """Where the vectors live."""

    backend: Literal["milvus", "faiss", "exact"] = Field(
        default="milvus", description="Milvus Lite or a server, FAISS, or NumPy"
    )
    uri: str | None = Field(
        default=None, description="a Milvus server; none: a file in the library"
    )
    token: SecretStr | None = Field(
        default=None, description="user:password or API key of the server; never written to disk"
    )
    collection: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,254}$",
        description="on a server; none: a new name for each library",
    )
    index: Literal["auto", "flat", "hnsw", "sq8", "ivfpq", "gpu"] = Field(
        default="auto", description="faiss only; auto goes by number of vectors and memory"
    )
    hnsw_threshold: int = Field(default=50_000, ge=0, description="faiss: vectors until HNSW")
    server_index: Literal["auto", "flat", "hnsw", "ivf_sq8", "diskann"] = Field(
        default="auto", description="a Milvus server's; auto: by the memory that vectors take"
    )
    consistency: Literal["strong", "bounded", "session", "eventually"] = Field(
        default="strong", description="what searches on a Milvus server see of the latest writes"
    )
    tls_ca: Path | None = Field(default=None, description="PEM of the server's authority")
    tls_cert: Path | None = Field(default=None, description="PEM of our own certificate")
    tls_key: Path | None = Field(default=None, description="PEM of its key")
    tls_name: str | None = Field(default=None, description="host in the server's certificate")
    timeout_s: float = Field(default=10.0, gt=0, description="longest wait for a server")
    retry_s: float = Field(default=120.0, ge=0, description="longest wait of a job for it")


class IngestSettings(_Section):
    """How files are read, and the limits that untrusted bytes meet."""

    workers: int = Field(default=0, ge=0, le=256, description="decode processes; 0: from the cores")
    timeout_s: float = Field(default=60.0, gt=0, description="for decoding one file")
    max_pixels: int = Field(default=178_956_970, ge=1, description="of one picture or frame")
    max_memory_mb: int = Field(default=4096, ge=512, description="data of one worker")
    max_segment_s: float = Field(
        default=5.0, gt=0, description="longest video segment; longer shots are split"
    )
    fps: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="video segments a second, of equal length; none: shots are found",
    )
    alike: float = Field(
        default=0.98,
        gt=0,
        le=1,
        description="neighbouring keyframes with a higher cosine become one segment; 1: none do",
    )
    video_decoder: Literal["pyav", "decord"] = Field(
        default="pyav", description="what reads keyframes; shots are always found with PyAV"
    )
    max_segments: int = Field(default=2000, ge=1, description="of one video or text")
    max_text_mb: float = Field(default=64.0, gt=0, description="of one text or manifest")
    passage_chars: int = Field(default=400, ge=40, description="longest passage of a text")


class SearchSettings(_Section):
    """How many candidates each pass sees, and how their scores become one order."""

    k: int = Field(default=10, ge=1, description="results")
    recall: int = Field(default=100, ge=1, description="candidates for the second pass")
    rerank: bool = Field(default=True, description="whether there is a second pass")
    lexical: bool = Field(
        default=True, description="captions, texts and file names are searched by words, too"
    )
    rerank_weight: float = Field(
        default=0.8, ge=0, le=1, description="share of the second pass in the fused score"
    )
    rerank_floor: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="probability that one candidate must reach, or recall's order stays",
    )
    fitted: bool = Field(
        default=True,
        description="use what evaluate --fit learned from judgments, if it is for these models",
    )
    min_score: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="leave out results below: a probability where there is a fit, else the score",
    )
    group_duplicates: bool = Field(
        default=True, description="one result for pictures that look nearly the same"
    )
    moments: int = Field(
        default=3, ge=1, le=5, description="of each of the first videos, seen by the second pass"
    )
    not_weight: float = Field(
        default=0.5, ge=0, le=1, description="how far recall moves away from --not"
    )


class Settings(BaseSettings):
    """All settings of a library."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    preset: str = "starter"
    recall: RecallSettings = RecallSettings()
    rerank: RerankSettings = RerankSettings()
    store: StoreSettings = StoreSettings()
    ingest: IngestSettings = IngestSettings()
    search: SearchSettings = SearchSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what the caller passes in: `load_settings` orders the sources itself."""
        return (init_settings,)


def configs_folder() -> Path:
    """The folder of the presets: in the wheel, or beside the package in a checkout."""
    packaged = Path(str(resources.files("secondglance"))) / "configs"
    return packaged if packaged.is_dir() else packaged.parents[1] / "configs"


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        ConfigError: The file is missing or is not TOML.
    """
    try:
        tables: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the settings file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    return tables


def read_preset(name: str) -> dict[str, Any]:
    """The settings that a preset names.

    Raises:
        ConfigError: There is no such preset.
    """
    if name not in PRESET_NAMES:
        raise ConfigError(
            f"unknown preset {name!r}",
            remedy=f"choose one of {', '.join(PRESET_NAMES)}, or leave it out for auto",
        )
    return {"preset": name, **read_toml(configs_folder() / f"{name}.toml")}


def user_settings_file() -> Path:
    """The file that is read when no other is named, if it exists."""
    from platformdirs import user_config_path

    return user_config_path("secondglance") / "config.toml"


def load_settings(
    *,
    base: Mapping[str, Any] | None = None,
    stamp: Mapping[str, Any] | None = None,
    file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    """Merges the sources into checked settings, later ones over earlier ones.

    Args:
        base: A preset's tables.
        stamp: What an existing library was made with; above the user's own file, which is a
            default for new libraries, and below everything that is said for this run.
        file: A TOML file; none for the user's own, if there is one.
        flags: Highest precedence; nested like the sections. None values are left out.

    Raises:
        ConfigError: A key is unknown or a value is not allowed; names the source.
    """
    sources: list[tuple[str, Mapping[str, Any]]] = [("the preset", base or {})]
    if file is None and (own := user_settings_file()).is_file():
        sources.append((str(own), read_toml(own)))
    sources.append(("the library's stamp", stamp or {}))
    if file is not None:
        sources.append((str(file), read_toml(file)))
    sources.append(("the environment", _environment()))
    sources.append(("the settings of this run", _without_none(flags or {})))
    merged: dict[str, Any] = {}
    settings = Settings()
    for origin, values in sources:
        merged = _merge(merged, values)
        settings = _check(merged, origin)
    _check_together(settings)
    return settings


def _check_together(settings: Settings) -> None:
    # Only once all sources have spoken: one may name the backend, another the URL.
    rerank = settings.rerank
    if rerank.backend == "remote" and not rerank.url:
        raise ConfigError(
            "rerank.backend is remote, and there is no rerank.url",
            remedy="set it, for instance SECONDGLANCE_RERANK__URL=http://host:7860/v1/rerank",
        )


def _check(values: Mapping[str, Any], origin: str) -> Settings:
    try:
        return Settings(**values)
    except ValidationError as error:
        raise ConfigError(_explain(error, origin)) from None


def _environment() -> dict[str, Any]:
    # Settings forbids unknown keys, but pydantic-settings passes over variables whose first part
    # matches no field; a misspelt section would be ignored in silence.
    for name in os.environ:
        section, nested, _ = name.removeprefix(ENV_PREFIX).partition("__")
        if name.startswith(ENV_PREFIX) and nested and section.lower() not in Settings.model_fields:
            raise ConfigError(
                f"unknown section {section!r} in the environment variable {name}",
                remedy=f"sections are {', '.join(sorted(Settings.model_fields))}",
            )
    try:
        return EnvSettingsSource(Settings)()
    except ValueError as error:
        raise ConfigError(f"the environment has an unusable setting: {error}") from error


def _explain(error: ValidationError, origin: str) -> str:
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            close = difflib.get_close_matches(where, _all_keys(), n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(_all_keys())}"
            lines.append(f"unknown setting {where!r} in {origin}; {hint}")
        else:
            value = "***" if item["loc"][-1] in SECRETS else repr(item["input"])
            lines.append(f"{where} = {value} in {origin}: {item['msg']}")
    return "; ".join(lines)


def _all_keys() -> list[str]:
    keys = []
    for name, section in Settings.model_fields.items():
        nested = getattr(section.annotation, "model_fields", None)
        keys += [f"{name}.{key}" for key in nested] if nested else [name]
    return keys


def _merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(low)
    for key, value in high.items():
        below = merged.get(key)
        nested = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = _merge(below, value) if nested else value  # type: ignore[arg-type]
    return merged


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            if nested := _without_none(value):
                kept[key] = nested
        elif value is not None:
            kept[key] = value
    return kept
