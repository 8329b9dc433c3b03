"""Choices and messages of the Milvus store that need no server."""

from __future__ import annotations

from pathlib import Path

import pytest

from secondglance.errors import InputError, StoreError
from secondglance.retrieve.milvus_errors import passing, server_error
from secondglance.retrieve.milvus_index import choose_index, described, search_params
from secondglance.retrieve.milvus_server import Tls, check_version, patiently, version_of


def test_versions() -> None:
    assert version_of("v2.3.5-lite") == (2, 3)
    assert version_of("Zilliz Cloud (Compatible with Milvus 2.6)") == (2, 6)
    assert version_of("nightly") is None
    check_version("v2.3.0", "x")
    check_version("nightly", "x")
    with pytest.raises(StoreError, match=r"version v2\.2\.16, which is too old \(use 2\.3"):
        check_version("v2.2.16", "x")


@pytest.mark.parametrize(
    ("count", "kind"),
    [(0, "hnsw"), (29_000_000, "hnsw"), (30_000_000, "ivf_sq8"), (140_000_000, "diskann")],
)
def test_the_index_goes_by_size(count: int, kind: str) -> None:
    choice = choose_index(count, 512)
    assert choice.kind == kind
    assert f"{count:,} vectors" in choice.reason
    assert choose_index(count, 512, wanted="flat").kind == "flat"


def test_an_index_that_is_outgrown_is_said() -> None:
    said = described("hnsw", 40_000_000, 512, wanted="auto")
    assert said.startswith("Milvus (HNSW, M=32, ef=128; better ivf_sq8, set store.server_index")
    assert search_params("hnsw", 500) == {"ef": 1000}
    assert search_params("diskann", 10) == {"search_list": 128}


def test_tls_settings_go_together(tmp_path: Path) -> None:
    pem = tmp_path / "ca.pem"
    pem.write_text("-----BEGIN CERTIFICATE-----")
    assert Tls().options("http://x") == {}
    assert Tls(ca=pem).options("https://x") == {"secure": True, "server_pem_path": str(pem)}
    whole = Tls(ca=pem, cert=pem, key=pem, name="y").options("https://x")
    assert whole["server_name"] == "y"
    assert whole["client_key_path"] == whole["client_pem_path"] == whole["ca_pem_path"] == str(pem)
    with pytest.raises(InputError, match=r"https://host:port"):
        Tls(ca=pem).options("http://x")
    with pytest.raises(InputError, match=r"store\.tls_key"):
        Tls(ca=pem, cert=pem).options("https://x")
    with pytest.raises(InputError, match=r"cannot read store\.tls_ca"):
        Tls(ca=tmp_path / "none").options("https://x")
    pem.write_text("x")
    with pytest.raises(InputError, match="no PEM file"):
        Tls(ca=pem).options("https://x")


def test_what_passes_is_tried_again() -> None:
    tries = 0

    def work() -> int:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise StoreError("away") from Exception("rate limit exceeded[rate=0]")
        return tries

    assert patiently(work, patience_s=10) == 3

    def broken() -> int:
        nonlocal tries
        tries += 1
        raise StoreError("broken") from Exception("field not found")

    with pytest.raises(StoreError, match="broken"):
        patiently(broken, patience_s=10)
    assert tries == 4


def test_messages_of_a_server() -> None:
    assert not passing(Exception("auth check failure, server unavailable"))
    for text, said in (
        ("auth check failure", "refuses the token"),
        ("Ssl handshake failed: certificate", "no encrypted connection"),
        ("rate limit exceeded", "limits how fast"),
        ("collection not fully loaded", "does not answer"),
        ("field not found", "failed: field not found"),
    ):
        assert said in str(server_error(Exception(text), "x"))
