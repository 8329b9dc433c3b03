"""Queries out of captions: one of a file's captions asks for the file."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from secondglance.errors import InputError
from secondglance.evaluation.queries import described
from secondglance.evaluation.resolver import Resolver
from secondglance.evaluation.trec import named, read_lines, read_text
from secondglance.evaluation.types import EvaluationQuery, Qrels
from secondglance.types import Query

FILE_COLUMNS = ("file", "path", "file_name", "filename", "filepath", "image", "video", "media")
CAPTION_COLUMNS = ("captions", "caption", "text", "description", "title", "sentence")


def caption_queries(
    manifest: Path,
    *,
    limit: int | None = None,
    seed: int = 0,
    resolver: Resolver | None = None,
) -> tuple[tuple[EvaluationQuery, ...], Qrels, list[str]]:
    """Makes queries of a captioned manifest: one caption is held out as the query for its file.

    The file is the only relevant document, though others may fit the caption too: figures are
    lower than judgments would give, for all systems alike. Rows of a file belong together; a file
    with captions in several languages is asked for once in each. A caption that several files
    have tells them not apart and is not used. A library that was made with the manifest has the
    queries among its words; a warning says so.

    Args:
        manifest: `.jsonl` with `file` and `caption`, or `captions` (a list), and perhaps `lang` or
            `language` a line; or `.csv` with such columns. Columns may have the other names that
            manifests to index may have. Files are relative to the manifest.
        limit: At most so many queries, drawn evenly; None for all.
        seed: Of the choice of captions and of queries.
        resolver: If given, files that it does not know are left out.

    Returns:
        Queries, their judgments by the file as the manifest has it, and warnings.

    Raises:
        InputError: The manifest cannot be read or gives no query, or `limit` is below 1.
    """
    if limit is not None and limit < 1:
        raise InputError(f"the limit of queries is {limit}", remedy="it must be at least 1")
    captions: dict[tuple[str, str], list[str]] = {}
    bad: list[str] = []
    for number, row in _rows(manifest):
        file, language, said = _said(row) if isinstance(row, Mapping) else ("", "", [])
        if not file or not said:
            why = row if isinstance(row, str) else "no captions" if file else "no file"
            bad.append(f"row {number}: {why}")
            continue
        own = captions.setdefault((file, language), [])
        own += [caption for caption in said if caption not in own]
    warnings = []
    if bad:
        warnings.append(f"{manifest}: {len(bad)} rows are left out: {named(bad)}")
    if resolver is not None:
        strange = dict.fromkeys(file for file, _ in captions if resolver.resolve(file) is None)
        if strange and len(strange) == len({file for file, _ in captions}):
            raise InputError(
                f"none of the {len(strange)} files of {manifest} is in the library: they are "
                f"named {named(strange)}, the library's {named(resolver.ids[:2])}",
                remedy="index the folder of the manifest first",
            )
        if strange:
            warnings.append(
                f"{len(strange)} files of {manifest} are not in the library and are left out: "
                f"{named(strange)}"
            )
        captions = {key: said for key, said in captions.items() if key[0] not in strange}
    queries, skipped = _held_out(captions, seed)
    if skipped:
        warnings.append(
            f"{len(skipped)} files have no caption of their own and are not asked for: "
            f"{named(skipped)}"
        )
    if not queries:
        raise InputError(
            f"{manifest} gives no queries",
            remedy="its rows need `file` and `caption` or `captions`",
        )
    if limit is not None and len(queries) > limit:
        kept = set(random.Random(seed).sample(sorted(queries), limit))
        queries = {id: query for id, query in queries.items() if id in kept}
    warnings.append(
        f"the queries are captions of {manifest}: where the library has its captions too, systems "
        "that search words find them too easily"
    )
    asked = tuple(
        described(id, Query(text=caption), language=key[1])
        for id, (key, caption) in queries.items()
    )
    return asked, {id: {key[0]: 1} for id, (key, _) in queries.items()}, warnings


def _held_out(
    captions: Mapping[tuple[str, str], list[str]], seed: int
) -> tuple[dict[str, tuple[tuple[str, str], str]], list[str]]:
    """By query id: file and language, and the caption; and files without one of their own."""
    owners: dict[str, set[str]] = {}
    for (file, _), said in captions.items():
        for caption in said:
            owners.setdefault(caption.casefold(), set()).add(file)
    queries: dict[str, tuple[tuple[str, str], str]] = {}
    skipped: dict[str, None] = {}
    for key, said in captions.items():
        file, language = key
        own = [caption for caption in said if len(owners[caption.casefold()]) == 1]
        if not own:
            skipped[file] = None
            continue
        # The file's own draw, so that other rows do not change it.
        caption = random.Random(f"{seed} {file} {language}").choice(own)
        queries[f"{file}#{language}" if language else file] = (key, caption)
    return queries, [*skipped]


def _rows(manifest: Path) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    """Rows by number, from 1, or what is wrong with one."""
    if manifest.suffix.lower() == ".csv":
        try:
            rows = csv.DictReader(io.StringIO(read_text(manifest), newline=""))
            yield from enumerate(rows, start=1)
        except csv.Error as error:
            raise InputError(f"{manifest} is not a CSV: {error}") from None
        return
    for number, line in read_lines(manifest):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            yield number, "not JSON"
            continue
        yield number, row if isinstance(row, dict) else "not a JSON object"


def _said(row: Mapping[str, Any]) -> tuple[str, str, list[str]]:
    """File, language and captions of a row."""
    values = {str(key).strip().lower(): value for key, value in row.items() if key is not None}
    file = next((str(values[name]).strip() for name in FILE_COLUMNS if values.get(name)), "")
    language = str(values.get("lang") or values.get("language") or "").strip()
    said: list[str] = []
    for name in CAPTION_COLUMNS:
        value = values.get(name)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str) and item.strip():
                said.append(" ".join(item.split()))
        if said:
            break
    return file, language, said
