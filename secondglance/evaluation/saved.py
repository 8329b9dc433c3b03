"""An evaluation in files: JSON that reads back equal, CSV tables, and TREC runs."""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from secondglance.errors import InputError
from secondglance.evaluation.fit_report import BIN_COLUMNS, MODEL_COLUMNS, bin_rows, model_rows
from secondglance.evaluation.trec import write_run
from secondglance.evaluation.types import Evaluation

if TYPE_CHECKING:
    from pydantic import TypeAdapter

FORMAT = 1
"""Of `evaluation.json`; rises when older versions could not read it any more."""
_MEDIA = ("image", "video")


def save(evaluation: Evaluation, path: Path) -> None:
    """Writes everything as JSON, without what has its default value.

    The file is `{"format", "paths", "evaluation"}`. `paths` lists which pictures and videos of
    queries were given as `Path`, not as text. Numbers that JSON does not know are the strings
    `NaN`, `Infinity` and `-Infinity`. Of names that are no UTF-8, those bytes become `?`.
    """
    from pydantic_core import PydanticSerializationError

    paths = [
        (id_, name)
        for id_, query in evaluation.queries.items()
        for name in _MEDIA
        if isinstance(getattr(query.query, name), Path)
    ]
    head = json.dumps({"format": FORMAT, "paths": paths}, ensure_ascii=False)
    try:
        body = _adapter().dump_json([evaluation], exclude_defaults=True)[1:-1]
    except (PydanticSerializationError, UnicodeError):  # names of files that are no UTF-8
        content = _adapter().dump_python([evaluation], exclude_defaults=True)
        body = json.dumps(content, ensure_ascii=False, default=str)[1:-1].encode(errors="replace")
    with path.open("wb") as file:
        file.write(head[:-1].encode(errors="replace") + b', "evaluation": ')
        file.write(body)
        file.write(b"}\n")


def load(path: Path) -> Evaluation:
    """What `save` wrote.

    Raises:
        InputError: The file is missing, damaged, or of a newer version.
    """
    from pydantic import ValidationError

    remedy = "name an evaluation.json that `secondglance evaluate` wrote"
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", remedy=remedy) from None
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}", remedy=remedy) from None
    if not isinstance(content, dict) or "format" not in content:
        raise InputError(f"{path} is no saved evaluation", remedy=remedy)
    if content["format"] != FORMAT:
        raise InputError(
            f"{path} was written by another version of secondglance",
            remedy="evaluate again, or read it with that version",
        )
    try:
        for id_, name in content["paths"]:
            query = content["evaluation"]["queries"][id_]["query"]
            query[name] = Path(query[name])
        return _adapter().validate_python([content["evaluation"]])[0]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{path} is damaged at {where}: {first['msg']}", remedy=remedy) from None
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error!r}", remedy=remedy) from None


@functools.cache
def _adapter() -> TypeAdapter[list[Evaluation]]:
    from pydantic import ConfigDict, TypeAdapter

    # A list, for pydantic takes no configuration beside a dataclass itself, which stays plain.
    return TypeAdapter(list[Evaluation], config=ConfigDict(ser_json_inf_nan="strings"))


def write_tables(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Writes `summary.csv`, `differences.csv` and `per_query.csv`; of a fit `fit.csv`, too.

    Beside `fit.csv` lies `fit_reliability.csv`. Where nothing was fitted, those of an evaluation
    that was written here before are removed, for they would be taken for this one's.
    """
    interval = ("mean", "low", "high")
    summary = ("system", "measure", "group", "queries", *interval)
    difference = (
        "system", "baseline", "measure", "group", "queries", *interval,
        "p_value", "p_adjusted", "wins", "losses",
    )  # fmt: skip
    fitted = {
        folder / "fit.csv": (MODEL_COLUMNS, model_rows(evaluation)),
        folder / "fit_reliability.csv": (BIN_COLUMNS, bin_rows(evaluation)),
    }
    for path, (_, rows) in fitted.items():
        if not rows:
            path.unlink(missing_ok=True)
    return [
        _write_csv(
            folder / "summary.csv",
            summary,
            ([_flat(s)[n] for n in summary] for s in evaluation.summaries),
        ),
        _write_csv(
            folder / "differences.csv",
            difference,
            ([_flat(d)[name] for name in difference] for d in evaluation.differences),
        ),
        _write_csv(
            folder / "per_query.csv",
            (
                "query",
                "text",
                "kind",
                "language",
                "length",
                "relevant",
                "system",
                *evaluation.measures,
            ),
            _per_query(evaluation),
        ),
        *(_write_csv(path, header, rows) for path, (header, rows) in fitted.items() if rows),
    ]


def _flat(row: Any) -> dict[str, Any]:
    values = {field.name: getattr(row, field.name) for field in fields(row)}
    return values | asdict(values.pop("value"))


def _per_query(evaluation: Evaluation) -> Iterable[list[Any]]:
    for id_, query in evaluation.queries.items():
        relevant = sum(grade > 0 for grade in evaluation.qrels.get(id_, {}).values())
        about = [id_, query.query.text, query.kind, query.language, query.length, relevant]
        for run in evaluation.systems:
            values = evaluation.values.get(run.name, {})
            yield [*about, run.name, *(values.get(m, {}).get(id_, "") for m in evaluation.measures)]


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    return path


def write_runs(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Writes `NAME.trec` for each system: query, `Q0`, document, rank, score, system.

    Whatever would break a column or a file's name is percent-encoded: the space of `my photo.jpg`
    is `%20`, a percent sign is `%25`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: dict[str, Path] = {}
    for run in evaluation.systems:
        name = quote(run.name, safe="@+-_.,=()", errors="surrogateescape")
        while name.casefold() in written:  # folders of some systems do not tell case apart
            name += "_"
        path = folder / f"{name}.trec"
        write_run(path, run.run(), run.name)
        written[name.casefold()] = path
    return list(written.values())
