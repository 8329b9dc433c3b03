"""The guide to the HTTP interface: each of its curl commands does what it says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from secondglance.library import Library
from secondglance.server.options import ServerOptions
from secondglance.server.several import Member, create_app_of_several
from tests.media import picture
from tests.served import running, served

GUIDE = Path(__file__).parents[2] / "docs" / "serve.md"
COMMANDS = [
    command
    for block in re.findall(r"^```sh\n(.*?)^```", GUIDE.read_text("utf-8"), re.M | re.S)
    for command in re.split(r"^(?=curl )", block, flags=re.M)
    if command
]
ADDRESS = "http://127.0.0.1:7860"
FOLDER = f"{ADDRESS}/libraries"

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not there")


def test_the_guide_has_commands() -> None:
    assert len(COMMANDS) > 12
    assert all(command.startswith("curl ") and ADDRESS in command for command in COMMANDS)


def test_every_command_of_the_guide_works(library: Library, tmp_path: Path) -> None:
    """In their order, with what one answers put into the next ones."""
    picture(3, width=320, height=240).save(tmp_path / "dog.jpg")
    record = library.search("a dog", kind="image", rerank=False, k=1).hits[0].id
    known = {"id:RECORD": f"id:{record}", "/RECORD": f"/{record}"}
    answers: dict[str, str] = {}
    several = [Member(name=name, library=library) for name in ("photos", "lectures")]
    with (
        served(library, ServerOptions(port=0)) as url,
        running(create_app_of_several(several, ServerOptions(port=0))) as url_of_several,
    ):
        for command in COMMANDS:
            shown = command.replace(ADDRESS, url_of_several if FOLDER in command else url)
            for written, real in known.items():
                shown = shown.replace(written, real)
            done = subprocess.run(
                ["bash", "-c", shown.replace("curl ", "curl -sS --fail-with-body ", 1)],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert done.returncode == 0, f"{shown}\n{done.stdout}{done.stderr}"
            answers[command] = done.stdout
            if done.stdout.startswith("{"):
                answer = json.loads(done.stdout)
                known |= {"upload:ID": answer["reference"]} if "reference" in answer else {}
                known |= {"/JOB": f"/{answer['id']}"} if "progress" in answer else {}
        job = httpx.get(f"{url}/v1/jobs{known['/JOB']}")
        ends = time.monotonic() + 60
        while job.json()["ended"] is None and time.monotonic() < ends:
            time.sleep(0.1)
            job = httpx.get(f"{url}/v1/jobs{known['/JOB']}")
        assert job.json()["state"] in ("done", "cancelled")
    assert (tmp_path / "thumbnail.jpg").read_bytes()[:2] == b"\xff\xd8"
    streams = [answer for command, answer in answers.items() if "stream" in command]
    assert all(answer.startswith("event: recall\n") for answer in streams)
    assert streams
    searches = [
        json.loads(a) for c, a in answers.items() if "/v1/search" in c and "stream" not in c
    ]
    assert all(answer["hits"] for answer in searches)
    listed = next(answer for command, answer in answers.items() if command.strip().endswith(FOLDER))
    assert [entry["name"] for entry in json.loads(listed)] == ["photos", "lectures"]
    reranks = [json.loads(a) for c, a in answers.items() if "/v1/rerank" in c]
    for answer in reranks:
        scores = [result["relevance_score"] for result in answer["results"]]
        assert scores == sorted(scores, reverse=True)
