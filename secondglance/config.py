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
from typing import Any

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from secondglance.errors import ConfigError
from secondglance.sections import (
    IngestSettings,
    RecallSettings,
    RerankSettings,
    SearchSettings,
    StoreSettings,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ENV_PREFIX = "SECONDGLANCE_"
PRESET_NAMES = ("starter", "laptop", "gpu", "cluster")

SECRETS = ("token", "api_key")
"""Keys whose values no message shows."""


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
    so_far: dict[str, Any] = {}
    settings = Settings()
    for origin, values in sources:
        so_far = merged(so_far, values)
        settings = _check(so_far, origin)
    _check_together(settings)
    return settings


def merged(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Nested tables laid over others; where both say something else than a table, `high` holds."""
    found = dict(low)
    for key, value in high.items():
        below = found.get(key)
        nested = isinstance(value, Mapping) and isinstance(below, Mapping)
        found[key] = merged(below, value) if nested else value  # type: ignore[arg-type]
    return found


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


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            if nested := _without_none(value):
                kept[key] = nested
        elif value is not None:
            kept[key] = value
    return kept
