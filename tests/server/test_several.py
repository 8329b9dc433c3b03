"""Several libraries in one server: nothing of one is reached by what opens another."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from secondglance.errors import InputError
from secondglance.library import Library
from secondglance.pipelines.sharing import SharedModels
from secondglance.rerank import stopping
from secondglance.server.keys import WrongKeys
from secondglance.server.openapi import operations
from secondglance.server.options import ServerOptions
from secondglance.server.several import Member, create_app_of_several
from secondglance.types import PairScore
from tests.media import write_pictures
from tests.served import running, served

KEY_A, KEY_B = "the-key-of-alpha-0123456789", "the-key-of-beta-0123456789"
BOTH = "a-key-of-both-of-them-0123456789"
REPORT = "<!doctype html><title>Measured</title>"
RERANK = {"query": "x", "documents": ["y"]}
Ask = Callable[..., httpx.Response]


class Pair:
    """Two libraries with pictures, models and reports of their own kind."""

    def __init__(self, base: Path, settings: dict[str, Any]) -> None:
        self.base = base
        self.models = SharedModels()
        self.settings = settings
        self.libraries = {
            name: self.open(name, first) for name, first in (("alpha", 0), ("beta", 50))
        }
        self.members = [
            Member(
                name=name,
                title=name.title(),
                library=library,
                api_keys=(key, BOTH),
                reports=(self.report(name),),
            )
            for (name, library), key in zip(self.libraries.items(), (KEY_A, KEY_B), strict=True)
        ]
        self.members.append(
            Member(name="gamma", reason="there is no library in gamma", api_keys=(BOTH,))
        )

    def open(self, name: str, first: int) -> Library:
        pictures = self.base / f"media of {name}" / f"pictures-{name}"
        write_pictures(pictures, 4, first=first)
        library = Library.open(
            self.base / f"{name}.library",
            preset="starter",
            settings=self.settings,
            models=self.models,
        )
        library.index([pictures])
        return library

    def report(self, name: str) -> Path:
        folder = self.base / f"reports of {name}"
        (folder / f"run-{name}").mkdir(parents=True)
        (folder / f"run-{name}" / "report.html").write_text(REPORT)
        return folder


@pytest.fixture(scope="module")
def pair(
    tmp_path_factory: pytest.TempPathFactory, untrained_clip: Path, untrained_reranker: Path
) -> Iterator[Pair]:
    settings = {
        "recall": {"model": str(untrained_clip)},
        "rerank": {"model": str(untrained_reranker)},
        "store": {"backend": "exact"},
        "search": {"rerank_floor": 0.0},
    }
    found = Pair(tmp_path_factory.mktemp("pair"), settings)
    yield found
    for library in found.libraries.values():
        library.close()


@pytest.fixture
def ask(pair: Pair) -> Iterator[Ask]:
    """Asks a fresh server of the pair: `ask("GET", "/libraries", key=KEY_A)`."""
    with asking(pair.members) as found:
        yield found


@contextlib.contextmanager
def asking(members: list[Member], **options: Any) -> Iterator[Ask]:
    app = create_app_of_several(members, ServerOptions(**options))
    with running(app) as url, httpx.Client(base_url=url, timeout=60) as http:

        def asked(method: str, path: str, *, key: str = "", **more: Any) -> httpx.Response:
            headers = {**more.pop("headers", {}), **({"X-API-Key": key} if key else {})}
            http.cookies.clear()
            return http.request(method, path, headers=headers, **more)

        yield asked


def names(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [entry["name"] for entry in answer.json()]


def search(ask: Ask, name: str, key: str = BOTH, **asked: Any) -> httpx.Response:
    body = {"query": "a red square", "k": 4, **asked}
    return ask("POST", f"/libraries/{name}/v1/search", key=key, json=body)


def operations_of(ask: Ask, name: str) -> list[tuple[str, str]]:
    schema = ask("GET", f"/libraries/{name}/openapi.json", key=BOTH).json()
    assert schema["servers"] == [{"url": f"/libraries/{name}"}]
    found = [(method.upper(), path) for path, method, _ in operations(schema)]
    assert len(found) > 15
    return [*found, ("GET", "/docs"), ("GET", "/openapi.json")]


def test_each_key_sees_what_it_opens_and_nothing_else(ask: Ask, pair: Pair) -> None:
    assert ask("GET", "/libraries").status_code == 401
    assert ask("GET", "/libraries", key="no-key-of-anything-0123").status_code == 401
    assert names(ask("GET", "/libraries", key=KEY_A)) == ["alpha"]
    assert names(ask("GET", "/libraries", key=KEY_B)) == ["beta"]
    every = ask("GET", "/libraries", key=BOTH)
    assert names(every) == ["alpha", "beta", "gamma"]
    assert every.json()[0] == {
        "name": "alpha",
        "title": "Alpha",
        "url": "/libraries/alpha/",
        "state": "ready",
        "reason": "",
        "counts": {"image": 4, "failed": 0, "records": 4},
    }
    assert str(pair.base) not in every.text


def test_nothing_of_a_library_answers_to_the_key_of_another(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WrongKeys, "wait_s", lambda *_: 0.0)  # all are to be asked
    for method, path in operations_of(ask, "alpha"):
        if path == "/v1/session":
            continue
        there = path.replace("{id}", "0" * 32).replace("{name}", "run-alpha")
        for key in ("", KEY_B):
            answer = ask(method, f"/libraries/alpha{there}", key=key)
            assert (answer.status_code, method, path, key) == (401, method, path, key)
    assert ask("GET", "/libraries/alpha/v1/library", key=KEY_A).status_code == 200


def test_a_library_that_is_not_there_looks_like_one_that_is_locked(ask: Ask) -> None:
    def answers(name: str, key: str) -> list[Any]:
        found = []
        for method, path in (
            ("GET", "/v1/library"),
            ("GET", "/"),
            ("POST", "/v1/search"),
            ("GET", ""),
        ):
            answer = ask(method, f"/libraries/{name}{path}", key=key)
            text = re.sub("request:[0-9a-f]+", "", answer.text)
            place = answer.headers.get("location", "").replace(name, "")
            found.append((answer.status_code, text, place, sorted(answer.headers)))
        return found

    for key in ("", KEY_A):
        assert answers("beta", key) == answers("nowhere", key) == answers("gamma", key)
    seen = ask("GET", "/libraries/nowhere/v1/library", key=BOTH)
    assert (seen.status_code, seen.json()["detail"]) == (404, "there is no library 'nowhere'")


def test_ids_and_names_of_one_library_are_unknown_in_another(ask: Ask, pair: Pair) -> None:
    hit = search(ask, "alpha").json()["hits"][0]
    assert hit["thumbnail_url"] == f"/libraries/alpha/v1/thumbnails/{hit['id']}"
    assert ask("GET", hit["media_url"], key=KEY_A).content[:2] == b"\xff\xd8"
    data = next(pair.base.rglob("picture-0000.jpg")).read_bytes()
    upload = ask("POST", "/libraries/alpha/v1/uploads", key=KEY_A, content=data).json()
    started = ask("POST", "/libraries/alpha/v1/index", key=KEY_A, json={})
    job = started.json()["id"]
    assert started.headers["location"] == f"/libraries/alpha/v1/jobs/{job}"
    assert ask("GET", started.headers["location"], key=KEY_A).status_code == 200
    unknown = {
        "GET": (
            f"media/{hit['id']}",
            f"thumbnails/{hit['id']}",
            f"uploads/{upload['id']}/thumbnail",
            f"jobs/{job}",
            "reports/run-alpha",
        ),
        "DELETE": (f"uploads/{upload['id']}", f"jobs/{job}"),
    }
    for method, paths in unknown.items():
        for path in paths:
            answer = ask(method, f"/libraries/beta/v1/{path}", key=BOTH)
            assert (answer.status_code, path) == (404, path)
    assert ask("GET", f"/libraries/alpha/v1/uploads/{upload['id']}/thumbnail", key=KEY_A).is_success
    assert ask("GET", "/libraries/alpha/v1/reports/run-alpha", key=KEY_A).text == REPORT
    for reference in (f"id:{hit['id']}", upload["reference"]):
        answer = search(ask, "beta", query={"image": reference})
        assert answer.status_code in (404, 422), answer.text
        answer = ask(
            "POST",
            "/libraries/beta/v1/rerank",
            key=BOTH,
            json={"query": {"image": reference}, "documents": ["x"]},
        )
        assert answer.status_code in (404, 422), answer.text
    explained = {"query": "x", "id": hit["id"]}
    answer = ask("POST", "/libraries/beta/v1/explain", key=BOTH, json=explained)
    assert answer.status_code in (400, 404)
    assert names(ask("GET", "/libraries/beta/v1/reports", key=BOTH)) == ["run-beta"]
    assert ask("GET", "/libraries/beta/v1/jobs", key=BOTH).json() == []


def test_folders_of_one_library_cannot_be_indexed_into_another(ask: Ask, pair: Pair) -> None:
    before = pair.libraries["beta"].counts()
    folder = pair.base / "media of alpha" / "pictures-alpha"
    for named in ("pictures-alpha", str(folder), "pictures-beta/../../media of alpha"):
        answer = ask("POST", "/libraries/beta/v1/index", key=KEY_B, json={"paths": [named]})
        assert answer.status_code in (400, 404)
        assert "media of alpha" not in answer.text.replace(named, "")
        assert str(pair.base) not in answer.text.replace(named, "")
    assert pair.libraries["beta"].counts() == before
    found = [hit["path"] for hit in search(ask, "beta").json()["hits"]]
    assert sorted(found) == [f"picture-{n:04}.jpg" for n in range(50, 54)]


def test_a_session_of_one_library_does_not_open_another(pair: Pair) -> None:
    app = create_app_of_several(pair.members, ServerOptions())
    with running(app) as url, httpx.Client(base_url=url) as http:
        answer = http.post("/libraries/alpha/v1/session", json={"key": KEY_A})
        cookie = answer.headers["set-cookie"]
        assert "Path=/libraries/alpha/;" in cookie
        assert http.get("/libraries/alpha/v1/library").status_code == 200
        pairs = {"Cookie": cookie.partition(";")[0]}
        for path in ("/libraries/beta/v1/library", "/libraries/gamma/v1/library", "/libraries"):
            assert http.get(path, headers=pairs).status_code == 401
        assert http.post("/libraries/alpha/v1/session", json={"key": KEY_B}).status_code == 401
        assert http.delete("/libraries/alpha/v1/session").status_code == 204
        assert http.get("/libraries/alpha/v1/library", headers=pairs).status_code == 401


def test_a_session_of_the_server_opens_what_its_key_opens(pair: Pair) -> None:
    app = create_app_of_several(pair.members, ServerOptions())
    with running(app) as url, httpx.Client(base_url=url) as http:
        assert http.get("/v1/session").json() == {"required": True, "ok": False, "keys": True}
        answer = http.post("/v1/session", json={"key": KEY_A})
        assert "Path=/;" in answer.headers["set-cookie"]
        assert http.get("/v1/session").json() == {"required": True, "ok": True, "keys": True}
        assert names(http.get("/libraries")) == ["alpha"]
        assert http.get("/libraries/alpha/v1/session").json() == {"required": True, "ok": True}
        assert http.get("/libraries/beta/v1/session").json() == {"required": True, "ok": False}
        assert http.get("/libraries/beta/v1/library").status_code == 401
        kept = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}
        # Whoever leaves a library leaves the server.
        assert http.delete("/libraries/alpha/v1/session").status_code == 204
        assert http.get("/libraries", headers=kept).status_code == 401
        assert http.get("/libraries/alpha/v1/library", headers=kept).status_code == 401


def test_wrong_keys_are_counted_for_all_libraries_together(ask: Ask) -> None:
    places = (
        "/libraries/alpha/v1/library",
        "/libraries/beta/v1/library",
        "/libraries",
        "/metrics",
        "/libraries/nowhere/v1/library",
    )
    statuses = [
        ask("GET", places[n % 5], key=f"a-guess-number-{n:08}").status_code for n in range(11)
    ]
    assert statuses == [401] * 10 + [429]
    # The key of another library is a wrong key, as is any.
    assert ask("GET", "/libraries/beta/v1/library", key=KEY_A).status_code == 429
    for key, name in ((KEY_A, "alpha"), (KEY_B, "beta"), (BOTH, "beta")):
        assert ask("GET", f"/libraries/{name}/v1/library", key=key).status_code == 200


def test_libraries_without_keys_beside_one_with(pair: Pair) -> None:
    free, locked = pair.members[0], pair.members[1]
    members = [Member(name="alpha", library=free.library), locked]
    with asking(members) as ask:
        assert ask("GET", "/v1/session").json() == {"required": False, "ok": True, "keys": True}
        assert names(ask("GET", "/libraries")) == ["alpha"]
        assert names(ask("GET", "/libraries", key=KEY_B)) == ["alpha", "beta"]
        assert ask("GET", "/libraries", key="no-key-of-anything-0123").status_code == 401
        assert ask("GET", "/libraries/alpha/v1/library").status_code == 200
        assert ask("GET", "/libraries/beta/v1/library").status_code == 401
        assert "beta" not in ask("GET", "/metrics").text
    with asking([Member(name="alpha", library=free.library)]) as ask:
        assert ask("GET", "/libraries/nowhere/v1/library").status_code == 404
        assert ask("GET", "/v1/session").json() == {"required": False, "ok": True, "keys": False}


def test_a_library_that_cannot_be_opened_keeps_no_other(ask: Ask) -> None:
    assert ask("GET", "/readyz").json() == {"status": "ready"}
    entry = ask("GET", "/libraries", key=BOTH).json()[-1]
    assert (entry["state"], entry["reason"]) == ("unavailable", "there is no library in gamma")
    for method, path in operations_of(ask, "alpha"):
        answer = ask(method, f"/libraries/gamma{path}", key=BOTH)
        if path not in ("/v1/session", "/docs", "/openapi.json"):
            assert (answer.status_code, method, path) == (503, method, path)
            assert (
                answer.json()["detail"]
                == "this library is unavailable: there is no library in gamma"
            )
            assert answer.json()["instance"].endswith(answer.headers["x-request-id"])
    assert search(ask, "alpha").status_code == 200


def test_a_store_that_is_away_is_said_and_is_back_by_itself(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**pair.settings, "store": {"backend": "faiss"}}
    folder = pair.base / "away.library"
    with Library.open(folder, preset="starter", settings=settings) as library:
        library.index([pair.base / "media of alpha"])
    (folder / "faiss").rename(folder / "elsewhere")
    (folder / "faiss").write_text("not a folder")
    monkeypatch.setattr("secondglance.server.several.KNOWN_FOR_S", 0.0)
    with (
        Library.open(folder, create=False, models=pair.models) as library,
        asking([Member(name="away", library=library), pair.members[0]]) as ask,
    ):
        entry = ask("GET", "/libraries").json()[0]
        assert entry["state"] == "unavailable"
        assert entry["reason"]
        assert str(folder.parent) not in entry["reason"]
        assert search(ask, "away").status_code == 503
        assert search(ask, "alpha").status_code == 200
        (folder / "faiss").unlink()
        (folder / "elsewhere").rename(folder / "faiss")
        assert ask("GET", "/libraries").json()[0]["state"] == "ready"
        assert len(search(ask, "away").json()["hits"]) == 4


def test_a_flood_of_one_library_leaves_turns_for_the_others(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ends = threading.Semaphore(0), threading.Event()

    def slow(*_: Any, **__: Any) -> list[PairScore]:
        begun.release()
        while not ends.wait(0.02):
            stopping.check()
        return [PairScore(score=0.5, log_odds=0.0)]

    monkeypatch.setattr(pair.libraries["alpha"], "rerank", slow, raising=False)
    with asking(pair.members, concurrency=3, queue=4) as ask:
        statuses: list[int] = []
        url = "/libraries/alpha/v1/rerank"

        def one() -> None:
            statuses.append(ask("POST", url, key=KEY_A, json=RERANK).status_code)

        threads = [threading.Thread(target=one, daemon=True) for _ in range(8)]
        for thread in threads:
            thread.start()
        assert begun.acquire(timeout=20)
        assert begun.acquire(timeout=20)
        ends_by = time.monotonic() + 20
        while 429 not in statuses and time.monotonic() < ends_by:
            time.sleep(0.01)
        # Two of three turns and four places are taken; the others were refused.
        assert statuses.count(429) >= 1
        for _ in range(3):
            answer = ask("POST", "/libraries/beta/v1/rerank", key=KEY_B, json=RERANK)
            assert answer.status_code == 200
        assert not begun.acquire(timeout=0)
        ends.set()
        for thread in threads:
            thread.join(20)
        assert sorted(statuses) == [200] * 6 + [429] * 2


def test_index_jobs_of_all_libraries_have_so_many_turns(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ends = threading.Event(), threading.Event()
    real = pair.libraries["alpha"].index

    def slow(*args: Any, **options: Any) -> Any:
        begun.set()
        assert ends.wait(30)
        return real(*args, **options)

    monkeypatch.setattr(pair.libraries["alpha"], "index", slow, raising=False)
    with asking(pair.members, index_jobs=1) as ask:
        first = ask("POST", "/libraries/alpha/v1/index", key=KEY_A, json={}).headers["location"]
        assert begun.wait(20)
        second = ask("POST", "/libraries/beta/v1/index", key=KEY_B, json={}).headers["location"]
        third = ask("POST", "/libraries/beta/v1/index", key=KEY_B, json={"retry_failed": True})
        waits = wait_for(ask, second, KEY_B, lambda job: bool(job["message"]))
        assert (waits["state"], waits["message"]) == (
            "waiting",
            "other libraries are being indexed",
        )
        assert ask("DELETE", third.headers["location"], key=KEY_B).json()["state"] == "cancelled"
        ends.set()
        for path, key in ((first, KEY_A), (second, KEY_B)):
            assert wait_for(ask, path, key, lambda job: bool(job["ended"]))["state"] == "done"


def wait_for(ask: Ask, path: str, key: str, done: Callable[[Any], bool]) -> Any:
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        job = ask("GET", path, key=key).json()
        if done(job):
            return job
        time.sleep(0.02)
    raise AssertionError(job)


def test_libraries_with_the_same_models_load_them_once(ask: Ask, pair: Pair) -> None:
    parts = [library._parts for library in pair.libraries.values()]
    for library in pair.libraries.values():
        library.load()
    assert parts[0].embedder() is parts[1].embedder()
    rerankers: list[Any] = [part.reranker() for part in parts]
    assert rerankers[0].inner is rerankers[1].inner
    # Scores are kept by each library.
    assert rerankers[0] is not rerankers[1]
    caches = [part._scores.path for part in parts if part._scores is not None]
    assert caches == [library.folder / "scores.sqlite" for library in pair.libraries.values()]
    answer = ask("POST", "/libraries/alpha/v1/models/unload", key=KEY_A)
    assert [answer.json()[name]["loaded"] for name in ("recall", "rerank")] == [False, False]
    assert search(ask, "beta").json()["warnings"] == []
    assert search(ask, "alpha").json()["hits"]
    assert parts[0].embedder() is parts[1].embedder()


def test_metrics_say_whose_they_are_and_only_to_whom_they_belong(ask: Ask) -> None:
    for name in ("alpha", "beta"):
        search(ask, name)
    every = ask("GET", "/metrics", key=BOTH).text
    for name in ("alpha", "beta"):
        line = (
            f'requests_total{{library="{name}",method="POST",route="/v1/search",status="200"}} 1.0'
        )
        assert f"secondglance_{line}" in every
        assert f'secondglance_model_loaded{{library="{name}",model="recall"}} 1.0' in every
    assert 'secondglance_library_open{library="gamma"} 0.0' in every
    assert "process_resident_memory_bytes" in every
    assert 'route="/metrics"' not in every.replace("library=", "")
    kinds = re.findall(r"^# TYPE (\S+)", every, re.M)
    assert len(kinds) == len(set(kinds))
    own = ask("GET", "/metrics", key=KEY_A).text
    assert 'library="alpha"' in own
    assert "beta" not in own
    assert "process_resident_memory_bytes" not in own
    assert ask("GET", "/metrics").status_code == 401


def test_uploads_and_pages_of_other_sites_are_treated_as_in_a_server_of_one(pair: Pair) -> None:
    data = next(pair.base.rglob("picture-0000.jpg")).read_bytes()
    with asking(pair.members, max_body_mb=0.001) as ask:
        place = "/libraries/alpha/v1"
        assert ask("POST", f"{place}/uploads", key=KEY_A, content=data).status_code == 201
        large = {"query": "x" * 2000, "documents": ["y"]}
        assert ask("POST", f"{place}/rerank", key=KEY_A, json=large).status_code == 413
        foreign = {"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"}
        for method, path in (
            ("POST", f"{place}/rerank"),
            ("GET", f"{place}/library"),
            ("GET", "/libraries"),
            ("POST", "/v1/session"),
        ):
            answer = ask(method, path, key=BOTH, headers=foreign)
            assert (answer.status_code, path) == (403, path)
        for path in (
            "/",
            "/libraries/alpha/",
            "/libraries/nowhere/",
            "/libraries",
            f"{place}/library",
        ):
            answer = ask("GET", path, key=KEY_A, headers={"Host": "elsewhere.example"})
            assert (answer.status_code, path) == (421, path)
            answer = ask("GET", path, key=KEY_A)
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert len(answer.headers.get_list("x-request-id")) == 1
        form = {"Content-Type": "text/plain"}
        answer = ask("POST", f"{place}/rerank", key=KEY_A, content=b"{}", headers=form)
        assert answer.status_code == 415


def test_the_pages_and_the_description_lie_below_their_library(ask: Ask) -> None:
    page = ask("GET", "/libraries/alpha/")
    (script,) = re.findall(r'src="(static/[^"]+/app.js)"', page.text)
    assert "immutable" in ask("GET", f"/libraries/alpha/{script}").headers["cache-control"]
    chooser = ask("GET", "/")
    (script,) = re.findall(r'src="(static/[^"]+/libraries.js)"', chooser.text)
    assert ask("GET", f"/{script}").status_code == 200
    docs = ask("GET", "/libraries/alpha/docs", key=KEY_A).text
    assert "/libraries/alpha/v1/search" in docs
    assert "POST /v1/rerank" not in docs
    assert [path for path, _, _ in operations(ask("GET", "/openapi.json", key=KEY_A).json())] == [
        "/libraries",
        "/metrics",
        "/v1/session",
        "/v1/session",
        "/v1/session",
        "/healthz",
        "/readyz",
    ]


def test_a_server_of_one_library_has_no_list(pair: Pair) -> None:
    with served(pair.libraries["alpha"]) as url, httpx.Client(base_url=url) as http:
        assert http.get("/libraries").status_code == 404
        assert http.get("/libraries/alpha/v1/library").status_code == 404
        assert http.get("/v1/session").json() == {"required": False, "ok": True}
        assert http.get("/openapi.json").json().get("servers") is None
        assert json.loads(http.get("/v1/library").text)["name"] == ""


def test_names_and_keys_are_checked_before_the_server_starts(pair: Pair) -> None:
    alpha = pair.members[0]
    with pytest.raises(InputError, match="several libraries are called alpha"):
        create_app_of_several([alpha, alpha], ServerOptions())
    open_one = Member(name="open", library=alpha.library)
    options = ServerOptions(host="0.0.0.0", api_keys=(KEY_A,))
    with pytest.raises(InputError, match=r"library open: the host .* can be reached by others"):
        create_app_of_several([alpha, open_one], options)
    create_app_of_several([alpha], options)
    shared = ServerOptions(share=True, api_keys=(KEY_A,))
    with pytest.raises(InputError, match="library open: a public link"):
        create_app_of_several([alpha, open_one], shared)
