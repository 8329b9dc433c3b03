"""Copies the records of one store to another, and compares both."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from secondglance.errors import StoreError
from secondglance.pipelines.batches import batches
from secondglance.retrieve.store import MAX_LIMIT, SCORE_TOLERANCE, Store

if TYPE_CHECKING:
    import numpy.typing as npt

    from secondglance.types import Record, Vector

AT_ONCE = 1000
"""Records that are read and written together."""

VECTOR_TOLERANCE = 1e-5
"""Largest difference of a component after it was stored again as float32, in unit length."""

TOP_K = 10
SAMPLE = 64
RECALL_FLOOR = 0.95
"""Share of the true nearest that a search must find where either index is approximate."""

SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What was found equal.

    Attributes:
        records: In both stores.
        searches: Sampled vectors that both stores were asked for.
        recall: Mean share of the true `TOP_K` nearest that the new store finds.
    """

    records: int
    searches: int
    recall: float


def copy(
    source: Store,
    target: Store,
    *,
    resumed: bool,
    on_progress: Callable[[int], None] = lambda done: None,
) -> int:
    """Brings `target` to hold exactly what `source` holds; returns how many records it wrote.

    Holds eight bytes for each record in memory. A kill leaves a part, which `resumed` goes on from.

    Args:
        source: Nobody may write to it meanwhile.
        target: Empty, or with `resumed` a part of an earlier copy: what is there and equal stays,
            what differs is written again, what the source has no longer is deleted.
        resumed: Whether the target may hold something.
        on_progress: Called with the records that are dealt with.

    Raises:
        StoreError: One of them cannot be reached.
    """
    if resumed:
        _delete_foreign(source, target)
    done = written = 0
    for ids in batches(source.ids(), AT_ONCE):
        records = source.get(ids)
        done += len(ids)
        if resumed:
            there = {record.id: record for record in target.get(ids)}
            records = [r for r in records if r.id not in there or not same(r, there[r.id])]
        if records:
            target.upsert(records)
            target.flush()
            written += len(records)
        on_progress(done)
    return written


def same(first: Record, second: Record) -> bool:
    """Whether two records have the same payload, and the same vector but for rounding."""
    close = np.allclose(first.vector, second.vector, rtol=0, atol=VECTOR_TOLERANCE)
    return bool(close) and dict(first.payload) == dict(second.payload)


def compare(
    source: Store,
    target: Store,
    *,
    sample: int = SAMPLE,
    recall_floor: float = RECALL_FLOOR,
) -> Comparison:
    """Checks that two stores hold the same and find the same.

    By count, by every id, by payload and vector of a sample, and by searches for that sample: the
    true order comes from cosines of the vectors themselves, and ties are no difference.

    Args:
        source: What is right.
        target: What is checked.
        sample: Vectors to search for.
        recall_floor: For a target that is not exact; an exact one must find all.

    Raises:
        StoreError: They differ; says how.
    """
    wanted, found = _digests(source.ids()), _digests(target.ids())
    wanted = np.unique(wanted)
    count = target.count()
    if found.size != wanted.size or (found != wanted).any() or count != wanted.size:
        missing = np.setdiff1d(wanted, found)
        foreign = np.setdiff1d(found, wanted)
        named = _named(source, missing) + _named(target, foreign)
        raise StoreError(
            f"the copy differs: {wanted.size} records were to be there, it counts {count}; "
            f"{missing.size} are missing, {foreign.size} are foreign"
            + (f" ({', '.join(named)})" if named else ""),
            remedy="nothing was switched; run the command again, and let nobody else write there",
        )
    chosen = _sample(source.ids(), total=int(wanted.size), size=sample)
    recalls = []
    for record in source.get(chosen):
        [copied] = target.get([record.id])
        if not same(record, copied):
            raise StoreError(
                f"the copy differs in vector or payload of the record {record.id}",
                remedy="nothing was switched; run the command again",
            )
        recalls.append(_recall(source, target, record.vector))
    recall = float(np.mean(recalls)) if recalls else 1.0
    floor = 1.0 if target.capabilities.exact else recall_floor
    if recall < floor:
        raise StoreError(
            f"the new store finds {recall:.3f} of the {TOP_K} nearest of {len(recalls)} sampled "
            f"vectors; at least {floor:g} is wanted ({target.capabilities.index})",
            remedy="nothing was switched; choose an exact index, or accept less with --min-recall",
        )
    return Comparison(records=count, searches=len(recalls), recall=recall)


def _recall(source: Store, target: Store, vector: Vector) -> float:
    limit = min(TOP_K, MAX_LIMIT)
    answers = [
        [match.id for match in store.search(vector, limit=limit)] for store in (source, target)
    ]
    union = sorted({*answers[0], *answers[1]})
    cosines = {record.id: float(record.vector @ vector) for record in source.get(union)}
    best = sorted(cosines.values(), reverse=True)[: len(answers[0])]
    if not best:
        return 1.0
    # What ties with the last of the true nearest is as good as that.
    good = sum(cosines.get(id_, -2.0) >= best[-1] - SCORE_TOLERANCE for id_ in answers[1])
    return min(good, len(best)) / len(best)


def _delete_foreign(source: Store, target: Store) -> None:
    wanted = np.unique(_digests(source.ids()))
    foreign = np.setdiff1d(_digests(target.ids()), wanted)
    if foreign.size:
        gone = set(foreign.tolist())
        ids = [id_ for id_ in target.ids() if _digest(id_) in gone]
        for some in batches(ids, AT_ONCE):
            target.delete(some)
        target.flush()


def _digest(id_: str) -> int:
    # Eight bytes: two of 18 million ids agree with a probability of one in 100,000.
    raw = hashlib.blake2b(id_.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(raw, "little")


def _digests(ids: Iterable[str]) -> npt.NDArray[np.uint64]:
    found = np.fromiter((_digest(id_) for id_ in ids), dtype=np.uint64)
    found.sort()
    return found


def _named(store: Store, digests: npt.NDArray[np.uint64]) -> list[str]:
    wanted = set(digests.tolist())
    if not wanted:
        return []
    return list(itertools.islice((i for i in store.ids() if _digest(i) in wanted), SHOWN))


def _sample(ids: Iterable[str], *, total: int, size: int) -> Sequence[str]:
    """Ids at random positions; the same ones for the same store."""
    chosen = np.random.default_rng(0).choice(total, size=min(size, total), replace=False)
    positions = set(chosen.tolist())
    return [id_ for number, id_ in enumerate(ids) if number in positions]
