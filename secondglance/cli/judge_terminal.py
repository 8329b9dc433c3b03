"""`secondglance judge --terminal`: query and candidate in words, an answer by key press."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from secondglance.evaluation.judgment_log import GRADES

if TYPE_CHECKING:
    from rich.console import Console

    from secondglance.pipelines.judging import Judging, Progress, Task

ARROWS = {"\x1b[D": "p", "\x1b[C": "n", "\x1bOD": "p", "\x1bOC": "n"}
ESCAPE_S = 0.05
LONGEST_PASSAGE = 4000
"""Characters of a passage that fit on a screen or two."""


@contextmanager
def key_reader() -> Iterator[Callable[[], str]]:
    """Reads one key, without Enter where standard input is a terminal; "" at its end."""
    if not sys.stdin.isatty():
        yield lambda: _line(sys.stdin.readline())
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield lambda: _key(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _key(descriptor: int) -> str:
    key = os.read(descriptor, 1)
    # An arrow is an escape with two more bytes, all at once.
    if key == b"\x1b" and select.select([descriptor], [], [], ESCAPE_S)[0]:
        key += os.read(descriptor, 2)
    return key.decode("utf-8", "replace")


def _line(line: str) -> str:
    """The first key of a line; a line without one is no answer, the end of the input is ""."""
    return (line.strip() or "\n")[0] if line else ""


def judge_in_terminal(state: Judging, read_key: Callable[[], str], console: Console) -> None:
    """Asks until all is judged, `q` is pressed or the input ends.

    Args:
        state: What is judged.
        read_key: One key, or the sequence of an arrow key; "" at the end of the input.
        console: Where candidates are shown.
    """
    _help(console)
    number = state.progress().next
    shown_query = None
    while True:
        if number is None:
            if not state.progress().skipped:
                console.print("all is judged", style="bold")
                return
            console.print("only skipped ones are left: s judges them, u undoes, q ends")
        else:
            shown_query = _show(state.tasks[number], shown_query, state, console)
        while True:
            keys = read_key()
            key = ARROWS.get(keys, keys[:1].lower())
            if key in ("", "q", "\x04"):
                return
            moved, number = _act(key, number, state, console)
            if moved:
                break


def _act(key: str, number: int | None, state: Judging, console: Console) -> tuple[bool, int | None]:
    """Whether something else is to be shown, and its number."""
    if key == "u":
        undone = state.undo()
        console.print("nothing to undo" if undone is None else "undone", style="dim")
        return undone is not None, number if undone is None else undone
    if key == "?":
        _help(console)
        return True, number
    if number is None:
        return (True, state.skipped_again().next) if key == "s" else (False, number)
    if key.isdecimal() and int(key) in GRADES:
        return True, _said(state.answer(number, "grade", grade=int(key)), GRADES[int(key)], console)
    if key == "s":
        return True, _said(state.answer(number, "skip"), "skipped", console)
    if key == "b":
        return True, _said(state.answer(number, "broken"), "cannot be seen", console)
    if key in "pn":
        other = number + (1 if key == "n" else -1)
        return 0 <= other < len(state.tasks), min(max(other, 0), len(state.tasks) - 1)
    return False, number


def _said(progress: Progress, answer: str, console: Console) -> int | None:
    left = (
        "" if progress.left_s is None else f", about {max(1, round(progress.left_s / 60))} min left"
    )
    done = progress.graded + progress.broken
    console.print(f"  {answer}  ({done} of {progress.total}{left})", style="dim", highlight=False)
    return progress.next


def _show(task: Task, shown_query: int | None, state: Judging, console: Console) -> int:
    """Prints a task, and its query where that is another than before; the query's number."""
    from secondglance.types import clock

    query, document = task.query.query, task.document
    if task.query_number != shown_query:
        console.rule()
        parts = [query.text] if query.text else []
        parts += [f"like {path}" for path in (query.image, query.video) if path is not None]
        parts += [f"but not: {query.not_text}"] if query.not_text else []
        for part in parts:
            console.print(part, style="bold", highlight=False, markup=False)
    console.print()
    mark = state.mark_of(task.number)
    now = "" if mark is None else f", now {mark.mark if mark.grade is None else mark.grade}"
    heading = f"candidate {task.place} of {task.of}, {document.kind}{now}"
    console.print(heading, style="dim", highlight=False)
    console.print(str(document.path), highlight=False, markup=False, soft_wrap=True)
    for stretch in document.stretches:
        at = f"  {clock(stretch.start_s)}-{clock(stretch.end_s)}"
        console.print(at, highlight=False)
    for text in document.passages or ((document.caption,) if document.caption else ()):
        more = " ..." if len(text) > LONGEST_PASSAGE else ""
        console.print(text[:LONGEST_PASSAGE] + more, highlight=False, markup=False)
    return task.query_number


def _help(console: Console) -> None:
    grades = "  ".join(f"{grade} {meaning.lower()}" for grade, meaning in GRADES.items())
    console.print(f"{grades}\nu undo  s skip  b cannot see  p previous  n next  ? help  q end")
