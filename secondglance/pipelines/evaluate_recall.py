"""The first passes of an evaluation: every query's candidates, gathered once for all systems."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from secondglance.evaluation.types import EvaluationQuery
from secondglance.pipelines.build import Parts
from secondglance.pipelines.first_pass import by_vector, embed_query, grouped
from secondglance.pipelines.second_pass import Candidate
from secondglance.pipelines.word_recall import add_words, document_of, resolve
from secondglance.types import Payload, Query

if TYPE_CHECKING:
    from secondglance.types import Vector


@dataclass(slots=True, kw_only=True)
class Found:
    """What the first passes found for one query; each list best first.

    Attributes:
        query: What was asked.
        by_vector: The vector list, of `depth` candidates.
        by_words: The word list, of `depth` candidates, with their BM25.
        fused: Both lists, as `search` fuses them, of `depth` candidates.
        candidates: What the second pass of `search` would see: both lists as it fuses them when
            asked for `recall` candidates, or the vector list alone where words are switched off.
        spent_ms: Milliseconds by stage: `embed`, `recall`, `words` (the word list and its fusion)
            and `bm25` (the word list alone).
    """

    query: EvaluationQuery
    by_vector: list[Candidate] = field(default_factory=list)
    by_words: list[Candidate] = field(default_factory=list)
    fused: list[Candidate] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    spent_ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Notes how long the block takes."""
        started = time.perf_counter()
        yield
        self.spent_ms[name] = (time.perf_counter() - started) * 1e3


def find(
    parts: Parts,
    asked: EvaluationQuery,
    *,
    depth: int,
    recall: int,
    words: bool,
    payloads: dict[str, Payload],
) -> Found:
    """Asks vectors and words for the candidates of one query.

    Pictures that look nearly the same stay candidates of their own: each is judged for itself.

    Args:
        parts: Of the library.
        asked: The query.
        depth: Candidates of each list.
        recall: Candidates that the second pass sees.
        words: Whether any system needs the words.
        payloads: Payloads by record id that earlier queries found: thousands of queries find the
            same records, and need but one copy of each.

    Raises:
        InputError: A file of the query does not exist.
        MediaError: It cannot be read.
        StoreError: The store or the word index cannot be used.
    """
    found, query = Found(query=asked), asked.query
    with found.stage("embed"):
        vector = embed_query(parts, query)
    with found.stage("recall"):
        found.by_vector = by_vector(parts, vector, depth, None, group=True, group_duplicates=False)
    found.fused = found.by_vector
    found.candidates = found.by_vector[:recall]
    if words and query.text.strip():
        with found.stage("bm25"):
            found.by_words = _by_words(parts, query, vector, depth)
        fuse = partial(_with_words, parts, query, vector)
        with found.stage("words"):
            found.fused = fuse(found.by_vector, depth)
        if parts.settings.search.lexical and recall != depth:
            # The words of a longer list would give other candidates than a search sees.
            with found.stage("words"):
                found.candidates = fuse(found.by_vector[:recall], recall)
        elif parts.settings.search.lexical:
            found.candidates = found.fused
    shared: dict[int, Candidate] = {}
    for name in ("by_vector", "by_words", "fused", "candidates"):
        slim = [_slim(candidate, payloads, shared) for candidate in getattr(found, name)]
        setattr(found, name, slim)
    return found


def _by_words(parts: Parts, query: Query, vector: Vector, depth: int) -> list[Candidate]:
    """The word list alone, best first."""
    index = parts.words().index
    hits = index.search(query.text, limit=depth, without=query.not_text)
    known = {
        document_of(candidate): candidate
        for candidate in grouped(parts, resolve(parts, hits, vector, None), group=True)
    }
    listed = []
    for hit in hits:
        candidate = known.get(hit.record if hit.kind == "text" else hit.content)
        if candidate is not None:
            listed.append(dataclasses.replace(candidate, lexical_score=hit.score))
    return listed


def _with_words(
    parts: Parts, query: Query, vector: Vector, candidates: Sequence[Candidate], wanted: int
) -> list[Candidate]:
    return add_words(
        parts,
        query,
        vector,
        candidates,
        wanted=wanted,
        condition=None,
        kind=None,
        grouped=partial(grouped, parts, group=True),
    )


def _slim(
    candidate: Candidate, payloads: dict[str, Payload], shared: dict[int, Candidate]
) -> Candidate:
    """The candidate with the payload that other queries have, too."""
    if id(candidate) not in shared:
        match = candidate.match
        payload = payloads.setdefault(match.id, match.payload)
        shared[id(candidate)] = dataclasses.replace(
            candidate, match=dataclasses.replace(match, payload=payload)
        )
    return shared[id(candidate)]


def said_already(
    parts: Parts, queries: Mapping[str, EvaluationQuery], relevant: Callable[[str], Sequence[str]]
) -> list[str]:
    """Ids of queries whose very words stand in the words of a document that answers them.

    A word search that finds those has read the answer. Looked at are captions and tags of files
    and passages, as the word index has them: a whole line of any length, or a part of a line from
    `TELLING` words on.

    Args:
        parts: Of the library.
        queries: By id.
        relevant: Gives the contents that answer the query of an id.
    """
    lines: dict[str, list[str]] = {}
    found = []
    for name, asked in queries.items():
        wanted = _plain(asked.query.text)
        if not wanted:
            continue
        for content in relevant(name):
            if content not in lines:
                lines[content] = [_plain(line) for line in _spoken(parts, content)]
            if any(_says(line, wanted) for line in lines[content]):
                found.append(name)
                break
    return found


TELLING = 4
"""Words that do not stand side by side by chance."""


def _says(line: str, wanted: str) -> bool:
    # Chinese has no spaces; as `tokens` sees it, each character is a word.
    whole = line == wanted
    return whole or (len(wanted.split()) >= TELLING and f" {wanted} " in f" {line} ")


def _plain(text: str) -> str:
    from secondglance.retrieve.tokens import tokenize

    return " ".join(tokenize(text).stream)


def _spoken(parts: Parts, content: str) -> list[str]:
    """All lines that the word index knows of a content, but for names."""
    told = [row.caption for row in parts.catalog.files_with(content)]
    for record in parts.store().get(parts.catalog.record_ids(content)):
        told += [str(record.payload.get(key, "")) for key in ("text", "tags")]
    return [line for text in dict.fromkeys(told) for line in text.split("\n") if line.strip()]


def query_files(query: Query) -> list[Path]:
    """Pictures and clips that a query is made of."""
    return [Path(name).expanduser() for name in (query.image, query.video) if name is not None]
