"""Fits fusion and cut-off to judgments, keeps the fit in the library, and finds it for a search."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from secondglance.errors import InputError, LibraryError
from secondglance.evaluation.fusion_model import FittedFusion, FittedModel
from secondglance.evaluation.queries import query_kind
from secondglance.evaluation.trec import named
from secondglance.evaluation.types import Qrels, QueryKind
from secondglance.pipelines import second_pass
from secondglance.pipelines.build import Parts
from secondglance.pipelines.replacing import replacing
from secondglance.pipelines.scored import ALIKE_FOR_SCORES
from secondglance.retrieve.fusion import fuse
from secondglance.types import Query

if TYPE_CHECKING:
    from secondglance.evaluation.signals import Signals
    from secondglance.rerank.base import Reranker

FILE_NAME = "fusion.json"
FIT_AGAIN = (
    "fit again with: secondglance evaluate --fit; or remove fusion.json, or set "
    "search.fitted = false"
)
ALIKE_FOR_FITS = ALIKE_FOR_SCORES | {"device", "dtype", "attention", "compiled"}
"""Settings of the second pass that change no more of a score than its last digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankerStamp:
    """Which second pass scores come from.

    Attributes:
        name: Hub id or folder.
        weights: Hash of its checkpoint; None where scores are not kept, and nothing is hashed.
        settings: Those that change its scores.
    """

    name: str
    weights: str | None
    settings: Mapping[str, str | int | float | bool | None]

    def agrees(self, other: RerankerStamp) -> bool:
        """Whether scores of both can be compared."""
        if self.settings != other.settings:
            return False
        if self.weights is not None and other.weights is not None:
            return self.weights == other.weights
        return self.name == other.name


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFit:
    """What `fusion.json` holds.

    Attributes:
        format: Of the file.
        embedder: Fingerprint of the first pass's model.
        reranker: Of the second pass; None if there was none.
        created: Time in ISO 8601, with its zone.
        queries: That were judged.
        judgments: Of these.
        fusion: The models with their figures.
    """

    format: Literal[1] = 1
    embedder: str
    reranker: RerankerStamp | None
    created: str
    queries: int
    judgments: int
    fusion: FittedFusion

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        found: dict[str, Any] = _adapter().dump_python(self, mode="json")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class FitReport:
    """What a fit came to.

    Attributes:
        path: Of the file that was written.
        stored: What it holds.
        warnings: For the user.
    """

    path: Path
    stored: StoredFit
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "path": str(self.path),
            "warnings": list(self.warnings),
            **self.stored.to_dict(),
        }

    def lines(self) -> list[str]:
        """One line a model, for the terminal."""
        return [_line(model) for model in self.stored.fusion.models]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The models that one search uses.

    Attributes:
        first: For candidates without a score of the second pass.
        second: For the others; None if the second pass looked at nothing.
    """

    first: FittedModel
    second: FittedModel | None


def fit(
    parts: Parts,
    signals: Mapping[str, Signals],
    qrels: Qrels,
    *,
    kinds: Mapping[str, QueryKind] | None = None,
) -> FitReport:
    """Fits to judgments and writes `fusion.json`, which searches use from then on.

    Args:
        parts: Of the library.
        signals: By query id.
        qrels: Judgments; queries without any are left out.
        kinds: Of the queries, by id; those not named are `text`.

    Raises:
        InputError: There are too few judgments.
        LibraryError: The library cannot be written.
    """
    from secondglance.evaluation.fit import fit_fusion

    settings = parts.settings.search

    def today(recall: Sequence[float], rerank: Sequence[float | None]) -> list[float]:
        no_match = second_pass.no_match(rerank, floor=settings.rerank_floor)
        trusted = rerank if no_match is None else [None] * len(rerank)
        return fuse(recall, trusted, rerank_weight=settings.rerank_weight)

    fusion, warnings = fit_fusion(signals, qrels, fixed=today, depth=settings.recall, kinds=kinds)
    judged = [query for query in signals if query in qrels]
    with_second = any(model.second for model in fusion.models)
    stored = StoredFit(
        embedder=parts.embedder().fingerprint,
        reranker=reranker_stamp(parts, parts.reranker()) if with_second else None,
        created=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        queries=len(judged),
        judgments=sum(len(qrels[query]) for query in judged),
        fusion=fusion,
    )
    path = parts.folder / FILE_NAME
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(_adapter().dump_json(stored, indent=1))
    except OSError as error:
        raise LibraryError(
            f"cannot write {path}: {error.strerror}", remedy="make the library writable"
        ) from error
    return FitReport(path=path, stored=stored, warnings=warnings)


def load_fit(parts: Parts) -> StoredFit | None:
    """The library's fit, whatever it was made for; read again when the file changes.

    Raises:
        InputError: The file is damaged, or of another version.
    """
    path = parts.folder / FILE_NAME
    try:
        state = path.stat()
        return _read(path, state.st_mtime_ns, state.st_size, state.st_ino)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise InputError(f"the fit {path} cannot be read: {reason}", remedy=FIT_AGAIN) from error


def choose(
    parts: Parts, query: Query, *, words: bool, reranked: bool
) -> tuple[Chosen | None, str | None]:
    """The models for a search, and a warning if there is a fit that cannot be used.

    Args:
        parts: Of the library; the embedder is loaded, and the reranker where `reranked`.
        query: What is asked.
        words: Whether words were searched, too.
        reranked: Whether the second pass looked at any candidate.
    """
    if not parts.settings.search.fitted:
        return None, None
    try:
        stored = load_fit(parts)
    except InputError as error:
        return None, f"no fit is used: {error}"
    if stored is None:
        return None, None
    problem = _mismatch(parts, stored, reranked=reranked)
    kind = query_kind(query)
    first = stored.fusion.model(kind, words=words, second=False)
    second = stored.fusion.model(kind, words=words, second=True) if reranked else None
    if problem is None and (first is None or (reranked and second is None)):
        passes = "with a second pass" if reranked else "without a second pass"
        problem = f"it knows no {kind} queries {passes}"
    if problem is not None or first is None:
        return None, f"the fit of this library is not used: {problem} ({FIT_AGAIN})"
    return Chosen(first=first, second=second), None


def reranker_stamp(parts: Parts, reranker: Reranker) -> RerankerStamp:
    """Which second pass a library has; weights as the cache of scores identifies them."""
    return RerankerStamp(
        name=reranker.name,
        weights=getattr(reranker, "weights", None),
        settings=parts.settings.rerank.model_dump(mode="json", exclude=ALIKE_FOR_FITS),
    )


def describe_fit(parts: Parts) -> dict[str, Any] | None:
    """The fit for `status`, without loading a model; None if there is none."""
    try:
        stored = load_fit(parts)
    except InputError as error:
        return {"used": False, "problem": str(error)}
    if stored is None:
        return None
    problem = None if parts.settings.search.fitted else "search.fitted is false"
    problem = problem or _mismatch(parts, stored, reranked=False)
    models = stored.fusion.models
    return {
        "used": problem is None,
        "problem": problem,
        "created": stored.created,
        "queries": stored.queries,
        "judgments": stored.judgments,
        "models": [
            {"name": model.name, "order": model.order, "ndcg": dict(model.figures.ndcg)}
            for model in models
        ],
        "calibration_error": max(model.figures.calibration_error for model in models),
    }


def _mismatch(parts: Parts, stored: StoredFit, *, reranked: bool) -> str | None:
    """Why a fit is for other models; None if it is for these."""
    embedder = parts.catalog.get_meta("fingerprint")
    if embedder != stored.embedder:
        return f"it was made for the embedder {stored.embedder}, not {embedder}"
    if not reranked or stored.reranker is None:
        return None
    mine = reranker_stamp(parts, parts.reranker())
    if mine.agrees(stored.reranker):
        return None
    if mine.settings != stored.reranker.settings:
        then, now = stored.reranker.settings, mine.settings
        changed = [name for name in {**then, **now} if then.get(name) != now.get(name)]
        return f"it was made with other settings of the second pass: {named(changed)}"
    return f"it was made for the reranker {stored.reranker.name}, not {mine.name} as it is now"


def _line(model: FittedModel) -> str:
    found = model.figures
    orders = ", ".join(f"{name} {value:.3f}" for name, value in found.ndcg.items())
    kept = "" if model.order == "fitted" else "; the order stays as it was"
    return (
        f"{model.name}: nDCG@10 {orders} ({found.gain:+.3f} +- {found.gain_error:.3f}){kept}; "
        f"log loss {found.log_loss:.4f} (base {found.base_log_loss:.4f}), Brier "
        f"{found.brier:.4f}, calibration error {found.calibration_error:.4f}; best candidate at "
        f"0.5 or more for {found.matched:.0%} of {found.answered} queries, "
        f"{found.false_matches:.0%} with the relevant ones taken away"
    )


@lru_cache(maxsize=8)
def _read(path: Path, mtime_ns: int, size: int, inode: int) -> StoredFit:
    """The arguments after the first are the state that the file was in."""
    found: StoredFit = _adapter().validate_json(path.read_bytes())
    return found


@cache
def _adapter() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(StoredFit)
