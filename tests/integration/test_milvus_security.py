"""Tokens and encryption, on a real Milvus server of this module's own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from secondglance.errors import StoreError
from secondglance.retrieve.milvus_server import Tls
from secondglance.retrieve.milvus_store import MilvusStore
from tests.contract.stores import DIM, records
from tests.milvus_server import Server

TOKEN = "root:Milvus"


def certificates(folder: Path) -> None:
    """An authority, a server and a client that it signed, and an authority of strangers."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    for name in ("ca", "other"):
        subject = ["-subj", f"/CN={name}", "-days", "2"]
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        openssl("req", "-x509", *key, "-keyout", f"{name}.key", "-out", f"{name}.pem", *subject)
    for name in ("server", "client"):
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        openssl(
            "req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}"
        )
        (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")
        signer = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names"]
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", "-days", "2", *signer)


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make certificates with")
    folder = tmp_path_factory.mktemp("certificates")
    certificates(folder)
    return folder


@pytest.fixture(scope="module")
def secured(
    tmp_path_factory: pytest.TempPathFactory, milvus_programs: Path, pems: Path
) -> Iterator[Server]:
    """It asks for a token, and shows a certificate."""
    server = Server(
        tmp_path_factory.mktemp("secured"),
        milvus_programs,
        authorization_enabled=True,
        tls_mode=1,
        server_pem_path=str(pems / "server.pem"),
        server_key_path=str(pems / "server.key"),
        ca_pem_path=str(pems / "ca.pem"),
    )
    server.start()
    yield server
    server.remove()


def open_store(
    server: Server, tls: Tls, *, token: str | None = TOKEN, uri: str = ""
) -> MilvusStore:
    return MilvusStore(
        uri or server.uri, dim=DIM, collection="secured", token=token, tls=tls, timeout_s=5
    )


def test_token_and_certificate(secured: Server, pems: Path) -> None:
    known = Tls(ca=pems / "ca.pem")
    store = open_store(secured, known)
    store.upsert(records(3))
    assert store.count() == 3
    store.close()
    for token in ("root:wrong-secret", "nobody:Milvus", None):
        with pytest.raises(StoreError, match=r"refuses the token.*store\.token") as caught:
            open_store(secured, known, token=token)
        assert "wrong-secret" not in str(caught.value)
    with pytest.raises(StoreError, match=r"no encrypted connection.*store\.tls_ca"):
        open_store(secured, Tls())
    with pytest.raises(StoreError, match=r"no encrypted connection.*store\.tls_ca"):
        open_store(secured, Tls(ca=pems / "other.pem"))
    with pytest.raises(StoreError, match=r"not valid for 'elsewhere.*store\.tls_name"):
        open_store(secured, Tls(ca=pems / "ca.pem", name="elsewhere.example"))
    with pytest.raises(StoreError, match=r"it wants encryption \(write store\.uri as https"):
        open_store(secured, Tls(), uri=secured.uri.replace("https", "http"))


def test_certificates_on_both_sides(secured: Server, pems: Path) -> None:
    secured.kill()
    secured.change("tlsMode: 1", "tlsMode: 2")
    secured.start()
    ours = Tls(ca=pems / "ca.pem", cert=pems / "client.pem", key=pems / "client.key")
    store = open_store(secured, ours)
    assert store.dim == DIM
    store.close()
    with pytest.raises(StoreError, match=r"it refuses us.*store\.tls_cert and store\.tls_key"):
        open_store(secured, Tls(ca=pems / "ca.pem"))
    strange = Tls(ca=pems / "ca.pem", cert=pems / "other.pem", key=pems / "other.key")
    with pytest.raises(StoreError, match="it refuses us"):
        open_store(secured, strange)


def test_encryption_that_a_server_does_not_speak(milvus_server: Server, pems: Path) -> None:
    uri = milvus_server.uri.replace("http", "https")
    with pytest.raises(StoreError, match=r"it speaks plainly \(write store\.uri as http:"):
        open_store(milvus_server, Tls(ca=pems / "ca.pem"), uri=uri)
