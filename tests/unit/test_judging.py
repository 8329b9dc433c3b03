"""One annotator at work: page over a real socket, and terminal."""

from __future__ import annotations

import io
import json
import os
import pty
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from secondglance.cli.judge_terminal import judge_in_terminal, key_reader
from secondglance.errors import InputError
from secondglance.evaluation.agreement import agree, combine
from secondglance.evaluation.judgment_log import JudgmentLog, read_grades
from secondglance.evaluation.judgments import read_qrels
from secondglance.evaluation.types import EvaluationQuery
from secondglance.pipelines import judge_server
from secondglance.pipelines.judge import Pool, PooledDocument, PooledQuery, Stretch
from secondglance.pipelines.judging import Judging, places, write_combined
from secondglance.types import Query
from tests.media import picture

TOKEN = "secret-token"
Start = Callable[..., Judging]


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    image, film = tmp_path / "my cat.png", tmp_path / "film.mp4"
    picture(1).save(image)
    film.write_bytes(bytes(range(256)) * 4)
    documents = (
        PooledDocument(document="a/my cat.png", path=image, kind="image", caption="a cat"),
        PooledDocument(
            document="film.mp4",
            path=film,
            kind="video",
            stretches=(Stretch(start_s=1.0, end_s=3.0, keyframe_s=2.0),),
        ),
        PooledDocument(
            document="t.txt", path=tmp_path / "t.txt", kind="text", passages=("<b>words</b>",)
        ),
    )
    cat = EvaluationQuery(id="cat", query=Query(text="a cat"), kind="text", language="en")
    like = EvaluationQuery(id="like", query=Query(image=image), kind="image")
    return Pool(
        queries=(
            PooledQuery(query=cat, documents=documents),
            PooledQuery(query=like, documents=documents[:1]),
        ),
        systems=("clip",),
        depth=10,
    )


@pytest.fixture
def start(tmp_path: Path, pool: Pool) -> Iterator[Start]:
    started: list[Judging] = []

    def open_(which: Pool = pool, **options: object) -> Judging:
        for state in started:
            state.close()
        log = JudgmentLog(tmp_path / "judgments.ann.jsonl", annotator="ann")
        qrels = tmp_path / "ann.qrels"
        started.append(Judging(which, log, qrels=qrels, **options))  # type: ignore[arg-type]
        return started[-1]

    yield open_
    for state in started:
        state.close()


@pytest.fixture
def page(start: Start) -> Iterator[httpx.Client]:
    listening = judge_server.listen("127.0.0.1", 0)
    server = judge_server.make_server(
        start(), host="127.0.0.1", listening=listening, token=TOKEN, next_command="run this"
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    base = judge_server.address("127.0.0.1", listening, TOKEN).split("/?")[0]
    with httpx.Client(base_url=base, params={"token": TOKEN}, trust_env=False) as client:
        yield client
    server.should_exit = True
    thread.join(timeout=10)
    listening.close()
    assert not thread.is_alive()


def test_the_page_needs_nothing_from_elsewhere(page: httpx.Client) -> None:
    answer = page.get("/")
    assert answer.status_code == 200
    assert "Not relevant" in answer.text
    assert "Exactly" in answer.text
    assert "http://" not in answer.text
    assert "https://" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("path", ["/", "/state", "/tasks/0", "/pictures/d0", "/films/d1", "/nope"])
def test_without_the_token_nothing_is_served(page: httpx.Client, path: str) -> None:
    base = str(page.base_url)
    for token in (None, "", "wrong", TOKEN + "x", "é"):
        url = base + path + ("" if token is None else f"?token={token}")
        assert httpx.get(url, trust_env=False).status_code == 403
    assert httpx.post(base + "/undo", trust_env=False).status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1:1", "[::1"])
def test_another_host_name_is_refused(page: httpx.Client, host: str) -> None:
    header = host.format(port=page.base_url.port)
    assert page.get("/state", headers={"Host": header}).status_code == 403
    own = f"localhost:{page.base_url.port}"
    assert page.get("/state", headers={"Host": own}).status_code == 200


def test_media_are_named_by_the_pool_alone(page: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes((tmp_path / "my cat.png").read_bytes())
    for name in (
        "secret.png", "../secret.png", "..%2Fsecret.png", "%2Fetc%2Fpasswd", str(tmp_path), "d9",
        "d0%00", "t.txt", "d2",
    ):  # fmt: skip
        for folder in ("/pictures/", "/films/"):
            assert page.get(folder + name).status_code == 404, name
    found = page.get("/pictures/d0")
    assert found.headers["content-type"] == "image/jpeg"
    assert found.content[:2] == b"\xff\xd8"
    assert page.get("/pictures/q1").content == page.get("/pictures/d3").content


def test_films_are_served_in_ranges(page: httpx.Client) -> None:
    whole = page.get("/films/d1")
    assert whole.headers["accept-ranges"] == "bytes"
    assert len(whole.content) == 1024
    part = page.get("/films/d1", headers={"Range": "bytes=10-19"})
    assert part.status_code == 206
    assert part.content == bytes(range(10, 20))
    assert part.headers["content-range"] == "bytes 10-19/1024"
    assert page.get("/films/d1", headers={"Range": "bytes=5000-"}).status_code == 416


def test_a_picture_that_cannot_be_read_says_so(page: httpx.Client) -> None:
    answer = page.get("/pictures/d1-0")  # the film is none
    assert answer.status_code == 404
    assert answer.json()["problem"]


def test_a_task_tells_nothing_of_systems(page: httpx.Client) -> None:
    task = page.get("/tasks/0").json()
    assert task["query"]["text"] == "a cat"
    assert task["document"]["name"] == "a/my cat.png"
    assert "score" not in json.dumps(task)
    assert "rank" not in json.dumps(task)
    assert page.get("/tasks/1").json()["document"]["stretches"] == [
        {"start_s": 1.0, "end_s": 3.0, "shown": "0:01-0:03"}
    ]
    assert page.get("/tasks/2").json()["document"]["passages"] == ["<b>words</b>"]


def test_answers_are_on_disk_at_once(page: httpx.Client, tmp_path: Path) -> None:
    state = page.post("/tasks/0", json={"mark": "grade", "grade": 3}).json()
    assert (state["graded"], state["next"]) == (1, 1)
    line = json.loads((tmp_path / "judgments.ann.jsonl").read_text())
    assert (line["query"], line["document"], line["grade"]) == ("cat", "a/my cat.png", 3)
    assert line["annotator"] == "ann"
    assert page.get("/tasks/0").json()["grade"] == 3
    page.post("/tasks/1", json={"mark": "broken"})
    page.post("/tasks/2", json={"mark": "skip"})
    state = page.post("/tasks/3", json={"mark": "grade", "grade": 0}).json()
    assert (state["graded"], state["broken"], state["skipped"]) == (2, 1, 1)
    assert state["next"] is None
    assert state["command"] == "run this"
    # All is answered: the qrels are there before the program ends.
    assert read_qrels(state["qrels"]) == (
        {"cat": {"a/my cat.png": 3}, "like": {"a/my cat.png": 0}},
        [],
    )
    assert page.post("/skipped").json()["next"] == 2
    state = page.post("/undo").json()
    assert state["show"] == 3
    assert page.get("/tasks/3").json()["mark"] is None


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/tasks/0", {"mark": "grade", "grade": 4}, 400),
        ("/tasks/0", {"mark": "grade"}, 400),
        ("/tasks/0", {"mark": "undo"}, 400),
        ("/tasks/99", {"mark": "skip"}, 400),
        ("/tasks/-1", {"mark": "skip"}, 400),
        ("/tasks/0", {"mark": ["grade"]}, 422),
    ],
)
def test_nonsense_is_refused(
    page: httpx.Client, tmp_path: Path, path: str, body: object, status: int
) -> None:
    assert page.post(path, json=body).status_code == status
    assert (tmp_path / "judgments.ann.jsonl").read_text() == ""


def test_stopping_the_server_writes_the_qrels(start: Start, tmp_path: Path) -> None:
    state = start()
    state.answer(0, "grade", grade=2)
    listening = judge_server.listen("127.0.0.1", 0)
    server = judge_server.make_server(
        state, host="127.0.0.1", listening=listening, token=TOKEN, next_command=""
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    server.should_exit = True
    thread.join(timeout=10)
    listening.close()
    assert (tmp_path / "ann.qrels").read_text() == "cat 0 a/my%20cat.png 2\n"


def test_a_port_in_use_is_told() -> None:
    with (
        judge_server.listen("127.0.0.1", 0) as taken,
        pytest.raises(InputError, match=r"cannot listen on 127\.0\.0\.1 port"),
    ):
        judge_server.listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(InputError, match="cannot listen"):
        judge_server.listen("192.0.2.1", 0)


def test_work_goes_on_where_it_stopped(start: Start) -> None:
    state = start()
    state.answer(0, "grade", grade=1)
    state.answer(1, "skip")
    state = start()
    progress = state.progress()
    assert (progress.graded, progress.skipped, progress.next) == (1, 0, 1)
    assert state.undo() == 1  # the skip
    assert state.undo() == 0
    assert state.progress().next == 0
    assert state.undo() is None


def test_skipping_what_is_judged_keeps_its_grade(start: Start) -> None:
    state = start()
    state.answer(0, "grade", grade=3)
    assert state.answer(0, "skip").next == 1
    assert state.grades() == {"cat": {"a/my cat.png": 3}}


def test_time_left_follows_the_pace(start: Start) -> None:
    now = [0.0]
    state = start(clock=lambda: now[0])
    left = []
    for number, seconds in enumerate((4.0, 6.0, 1000.0)):
        now[0] += seconds
        left.append(state.answer(number, "grade", grade=0).left_s)
    assert left == [None, None, 6.0]  # one is left; a long pause does not count as work


def test_judgments_that_do_not_belong_are_told_and_left_out(start: Start, pool: Pool) -> None:
    state = start()
    for number in range(4):
        state.answer(number, "grade", grade=number)
    other = EvaluationQuery(id="like", query=Query(text="other words"), kind="text")
    only = PooledQuery(query=pool.queries[0].query, documents=pool.queries[0].documents[:1])
    changed = PooledQuery(query=other, documents=pool.queries[1].documents)
    smaller = Pool(queries=(only, changed), systems=("clip",), depth=1)
    state = start(smaller, gone=lambda documents: [d for d in documents if d == "t.txt"])
    # The film is in the library still, only not among the results: its judgment counts.
    assert state.grades() == {"cat": {"a/my cat.png": 0, "film.mp4": 1}}
    assert len(state.warnings) == 2
    assert "1 judgments are of queries that asked something else" in state.warnings[0]
    assert (
        "1 judgments are of documents that are no longer in the library (t.txt)"
        in (state.warnings[1])
    )
    assert state.progress().next == 1
    no_cat = Pool(queries=(changed,), systems=("clip",), depth=1)
    assert "3 judgments are of queries that are not asked now (cat)" in start(no_cat).warnings[0]


def test_where_files_go(tmp_path: Path) -> None:
    named = places(tmp_path / "x" / "my.qrels", annotator="ann")
    assert named.qrels == tmp_path / "x" / "my.qrels"
    assert named.log == tmp_path / "x" / "judgments.ann.jsonl"
    folder = places(tmp_path / "out", annotator="bob")
    assert folder.qrels == tmp_path / "out" / "judgments.bob.qrels"
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file" / "a.qrels", tmp_path / "file"):
        with pytest.raises(InputError, match="cannot write"):
            places(out, annotator="ann")


def test_combined_grades_are_whole_numbers_with_means_beside(tmp_path: Path) -> None:
    for name, values in (("ann", (0, 3)), ("bob", (1, 3))):
        log = JudgmentLog(tmp_path / f"{name}.jsonl", annotator=name)
        for document, value in zip(("a b.jpg", "c.jpg"), values, strict=True):
            log.add(("q", document), "grade", grade=value, asked="x")
        log.close()
    grades, warnings = read_grades([tmp_path / "ann.jsonl", tmp_path / "bob.jsonl"])
    assert warnings == ()
    beside = write_combined(tmp_path / "all.qrels", combine(grades), agree(grades))
    assert (tmp_path / "all.qrels").read_text() == "q 0 a%20b.jpg 1\nq 0 c.jpg 3\n"
    found = json.loads(beside.read_text())
    assert found["judgments"]["q"]["a b.jpg"]["average"] == 0.5
    assert found["agreement"]["alpha"] == agree(grades).alpha
    assert found["agreement"]["pairs"][0]["overlap"] == 2


def in_terminal(state: Judging, keys: list[str]) -> str:
    console = Console(file=io.StringIO(), width=100)
    waiting = iter(keys)
    judge_in_terminal(state, lambda: next(waiting, ""), console)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_the_terminal_asks_until_all_is_judged(start: Start, tmp_path: Path) -> None:
    state = start()
    said = in_terminal(state, ["3", "x", "9", "b", "u", "1", "s", "0", "s", "2"])
    assert state.grades() == {
        "cat": {"a/my cat.png": 3, "film.mp4": 1, "t.txt": 2},
        "like": {"a/my cat.png": 0},
    }
    assert "all is judged" in said
    assert str(tmp_path / "film.mp4") in said
    assert "0:01-0:03" in said
    assert "<b>words</b>" in said
    assert "nothing to undo" not in said


def test_terminal_arrows_go_back_and_forth(start: Start) -> None:
    state = start()
    in_terminal(state, ["\x1b[C", "2", "\x1b[D", "\x1b[D", "q", "3"])
    assert state.grades() == {"cat": {"film.mp4": 2}}


def test_keys_need_no_enter_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    with os.fdopen(slave, "r") as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        with key_reader() as read_key:
            os.write(master, b"23\x1b[D\x1b[C")
            assert [read_key() for _ in range(4)] == ["2", "3", "\x1b[D", "\x1b[C"]
            os.write(master, b"\x1b")
            assert read_key() == "\x1b"
            os.write(master, "é".encode())
            assert read_key() != ""
    os.close(master)


def test_lines_stand_for_keys_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("2\n\n u\n"))
    with key_reader() as read_key:
        assert [read_key() for _ in range(4)] == ["2", "\n", "u", ""]
