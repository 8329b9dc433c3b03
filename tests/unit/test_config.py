"""Settings: precedence, and unknown keys as errors that help."""

from __future__ import annotations

from pathlib import Path

import pytest

from secondglance import config
from secondglance.config import PRESET_NAMES, load_settings, read_preset
from secondglance.errors import ConfigError


@pytest.fixture(autouse=True)
def _no_user_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(config, "user_settings_file", lambda: tmp_path / "user.toml")


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_every_preset_is_valid(name: str) -> None:
    settings = load_settings(base=read_preset(name))
    assert settings.preset == name
    assert settings.recall.model
    assert settings.rerank.model


def test_later_sources_win(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    base = {"search": {"k": 1, "recall": 11}, "recall": {"batch_size": 1}}
    assert load_settings(base=base).search.k == 1
    file.write_text("[search]\nk = 2\n[recall]\nbatch_size = 2\n")
    assert load_settings(base=base, file=file).search.k == 2
    monkeypatch.setenv("SECONDGLANCE_SEARCH__K", "3")
    assert load_settings(base=base, file=file).search.k == 3
    found = load_settings(base=base, file=file, flags={"search": {"k": 4, "recall": None}})
    assert found.search.k == 4
    assert found.search.recall == 11
    assert found.recall.batch_size == 2


def test_a_library_keeps_its_models_over_the_users_own_file(tmp_path: Path) -> None:
    (tmp_path / "user.toml").write_text('[recall]\nmodel = "mine"\n[search]\nk = 7\n')
    assert load_settings(base=read_preset("laptop")).recall.model == "mine"
    found = load_settings(stamp={"recall": {"model": "of the library"}})
    assert found.recall.model == "of the library"
    assert found.search.k == 7


def test_unknown_keys_are_errors_with_a_suggestion(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[search]\nrecal = 5\n")
    with pytest.raises(
        ConfigError, match=r"'search\.recal' in .*mine\.toml; did you mean 'search\.recall'"
    ):
        load_settings(file=file)
    monkeypatch.setenv("SECONDGLANCE_RERANK__MODLE", "x")
    with pytest.raises(ConfigError, match=r"'rerank\.modle' in the environment"):
        load_settings()
    monkeypatch.delenv("SECONDGLANCE_RERANK__MODLE")
    monkeypatch.setenv("SECONDGLANCE_RERNK__MODEL", "x")
    with pytest.raises(ConfigError, match="unknown section 'RERNK'"):
        load_settings()


def test_bad_values_name_the_key_the_value_and_the_source() -> None:
    with pytest.raises(ConfigError, match=r"search\.k = 0 in the settings of this run"):
        load_settings(flags={"search": {"k": 0}})
    with pytest.raises(
        ConfigError, match=r"store\.backend = 'redis'.*'milvus', 'faiss' or 'exact'"
    ):
        load_settings(flags={"store": {"backend": "redis"}})
    with pytest.raises(ConfigError, match=r"unknown preset 'huge'.*starter, laptop"):
        read_preset("huge")


def test_a_file_that_is_missing_or_no_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the settings file .*none\.toml"):
        load_settings(file=tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("k = = 1")
    with pytest.raises(ConfigError, match=r"bad\.toml is not valid TOML"):
        load_settings(file=tmp_path / "bad.toml")


def test_the_token_is_not_shown() -> None:
    settings = load_settings(flags={"store": {"token": "secret"}})
    assert "secret" not in repr(settings)


def test_the_page_of_settings_is_up_to_date() -> None:
    from tools.settings_page import PAGE, page

    assert PAGE.read_text("utf-8") == page(), "run: python tools/settings_page.py"


def test_every_setting_says_what_it_is() -> None:
    for name, section in config.Settings.model_fields.items():
        for key, field in getattr(section.annotation, "model_fields", {}).items():
            assert field.description, f"{name}.{key}"
