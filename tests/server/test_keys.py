"""Keys: where they come from, and what of them is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from secondglance.errors import InputError
from secondglance.server.keys import KeyRing, Sessions, WrongKeys, read_keys
from secondglance.server.options import ServerOptions

KEY = "correct-horse-battery"
OTHER = "another-key-of-someone"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def key_file(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "keys"
    path.write_text(text, "utf-8")
    path.chmod(mode)
    return path


def test_keys_of_a_file_and_of_the_environment_both_count(tmp_path: Path) -> None:
    file = key_file(tmp_path, f"# of the mobile app\n{KEY}\n\n  {OTHER}  \n")
    environment = {"SECONDGLANCE_API_KEYS": f"{KEY}, third-key-0123456789"}
    assert read_keys(file, environment) == (KEY, "third-key-0123456789", OTHER)
    assert read_keys(None, {}) == ()


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o777])
def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(InputError, match="every user") as error:
        read_keys(key_file(tmp_path, KEY, mode), {})
    assert error.value.remedy is not None
    assert error.value.remedy.startswith("chmod 600")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("short", "line 1 .* 5 characters"),
        (f"{KEY}\n\nfifteen-letters\n", "line 3 .* 15 characters"),
        ("# only words\n\n", "holds no key"),
        ("a key with spaces in it", "no header"),
        ("schlüssel-schlüssel-schlüssel", "no header"),
    ],
)
def test_keys_that_cannot_be_used_are_named_by_line_and_not_shown(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(InputError, match=said) as error:
        read_keys(key_file(tmp_path, text), {})
    for line in text.splitlines():
        assert not line or line.startswith("#") or line not in str(error.value)


def test_a_key_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        read_keys(tmp_path / "none", {})
    (tmp_path / "raw").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "raw").chmod(0o600)
    with pytest.raises(InputError, match="not text"):
        read_keys(tmp_path / "raw", {})


@pytest.mark.parametrize("value", ["short", " , ", "0123456789abcde"])
def test_keys_of_the_environment_are_checked_too(value: str) -> None:
    with pytest.raises(InputError, match="SECONDGLANCE_API_KEYS") as error:
        read_keys(None, {"SECONDGLANCE_API_KEYS": value})
    assert "short" not in str(error.value)


@pytest.mark.parametrize("given", ["", KEY[:-1], KEY + "x", KEY.upper(), "x" * 10_000, "\ud800"])
def test_only_a_key_is_a_key(given: str) -> None:
    ring = KeyRing((OTHER, KEY))
    assert ring.find(given) is None
    first, second = ring.find(KEY), ring.find(OTHER)
    assert first is not None
    assert second is not None
    assert first != second
    assert len(first) == 8
    assert KEY[:4] not in first


def test_every_key_is_compared_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the time of an answer would tell how much of a key, or which key, is right."""
    compared: list[tuple[int, int]] = []
    real = __import__("hmac").compare_digest

    def compare(one: bytes, two: bytes) -> bool:
        compared.append((len(one), len(two)))
        return bool(real(one, two))

    ring = KeyRing((KEY, OTHER, "third-key-0123456789"))
    monkeypatch.setattr("hmac.compare_digest", compare)
    for given in (KEY, "x", "third-key-0123456789"):
        compared.clear()
        ring.find(given)
        assert compared == [(32, 32)] * 3


def test_sessions_end_with_time_by_request_and_by_number() -> None:
    clock = Clock()
    sessions = Sessions(seconds=10, most=3, clock=clock)
    tokens = [sessions.begin(f"key{number}") for number in range(4)]
    assert len(set(tokens)) == 4
    assert [sessions.find(token) for token in tokens] == [None, "key1", "key2", "key3"]
    sessions.end(tokens[1])
    assert sessions.find(tokens[1]) is None
    clock.now += 10
    assert sessions.find(tokens[2]) is None
    token = sessions.begin("key")
    assert token not in repr(vars(sessions))
    sessions.clear()
    assert sessions.find(token) is None


def test_wrong_keys_are_counted_by_address_in_bounded_memory() -> None:
    clock = Clock()
    wrong = WrongKeys(most=2, seconds=60, addresses=5, clock=clock)
    wrong.add("192.0.2.1")
    assert wrong.wait_s("192.0.2.1") == 0
    clock.now += 20
    wrong.add("192.0.2.1")
    assert wrong.wait_s("192.0.2.1") == 40
    assert wrong.wait_s("192.0.2.2") == 0
    clock.now += 40
    assert wrong.wait_s("192.0.2.1") == 0
    wrong.add("192.0.2.1")
    assert wrong.wait_s("192.0.2.1") == 0
    for number in range(1000):
        wrong.add(f"198.51.100.{number % 256}-{number}")
    assert len(wrong) == 5


def test_addresses_of_one_ipv6_network_count_as_one() -> None:
    wrong = WrongKeys(most=2)
    wrong.add("2001:db8::1")
    wrong.add("2001:db8::ffff")
    assert wrong.wait_s("2001:db8::2") > 0
    assert wrong.wait_s("2001:db8:0:1::2") == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"host": "0.0.0.0"}, "no API key"),
        ({"share": True}, "no API key"),
        ({"api_keys": ("fifteen-letters",)}, "fewer than 16"),
        ({"cors_origins": ("*",)}, "not a web origin"),
        ({"cors_origins": ("https://a.example/page",)}, "not a web origin"),
        ({"cors_origins": ("media.example",)}, "not a web origin"),
        ({"cors_origins": ("https://*.example",)}, "not a web origin"),
        ({"names": ("https://a.example",)}, "not the name"),
        ({"names": ("a.example:80",)}, "not the name"),
        ({"names": ("*",)}, "not the name"),
        ({"names": ("",)}, "not the name"),
    ],
)
def test_options_that_would_open_a_server_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ServerOptions(**options)
