"""The work of an evaluation: candidates of every query, scores of every reranker, rankings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, TypedDict

from secondglance.errors import InputError, MediaError
from secondglance.evaluation.judgments import Unknown
from secondglance.evaluation.signals import Signals
from secondglance.evaluation.trec import named, read_run
from secondglance.evaluation.types import Cost, EvaluationQuery, Ranked
from secondglance.pipelines import evaluate_cost as cost
from secondglance.pipelines.build import Parts
from secondglance.pipelines.builtin import shown_model
from secondglance.pipelines.evaluate_order import Orders, signals_of
from secondglance.pipelines.evaluate_recall import Found, find, query_files
from secondglance.pipelines.evaluate_rerank import Judge, Looked, opened
from secondglance.pipelines.systems import System, SystemName, replayed
from secondglance.sections import SearchSettings
from secondglance.types import Payload


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an evaluation is.

    Attributes:
        stage: `load` models, `recall` queries, `rerank` them, `budgets`, `measure`.
        what: The reranker; empty for the library's own.
        done: Queries.
        total: Of these; 0 if that is not known.
    """

    stage: Literal["load", "recall", "rerank", "budgets", "measure"]
    what: str = ""
    done: int = 0
    total: int = 0


OnProgress: TypeAlias = Callable[[Progress], None]


class EvaluateOptions(TypedDict, total=False):
    """What may be said of an evaluation; see `evaluate.evaluate`."""

    systems: Sequence[str]
    measures: Sequence[str]
    depth: int
    recall: int | None
    baseline: str | None
    limit: int | None
    curves: bool
    depths: Sequence[int]
    budgets_ms: Sequence[float]
    budget_queries: int
    fit: bool
    unknown: Unknown
    on_progress: OnProgress


@dataclass(slots=True, kw_only=True)
class Run:
    """One evaluation at work.

    Attributes:
        parts: Of the library.
        systems: To run.
        orders: What candidates become.
        queries: By id; those whose files cannot be read are taken out.
        warnings: For the user; grows.
        on_progress: Called often.
        needs_signals: Whether words are asked though no system reads them.
        found: First passes, by query id.
        passes: Second passes, by system and query id.
        settings: How the scores of each reranking system are used.
        models: Names of rerankers, by system.
        budgeted: Second passes within budgets, by system.
        rankings: By system and query id.
        costs: By system.
    """

    parts: Parts
    systems: Sequence[System]
    orders: Orders
    queries: dict[str, EvaluationQuery]
    warnings: list[str]
    on_progress: OnProgress
    needs_signals: bool = False
    found: dict[str, Found] = field(default_factory=dict)
    passes: dict[str, dict[str, Looked]] = field(default_factory=dict)
    settings: dict[str, SearchSettings] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    budgeted: dict[str, list[cost.Budgeted]] = field(default_factory=dict)
    rankings: dict[str, dict[str, tuple[Ranked, ...]]] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)

    def recall(self) -> None:
        """Finds the candidates of every query, and the rankings of systems that need no more.

        Raises:
            InputError: No query can be read.
            StoreError: The store or the word index cannot be used.
        """
        parts = self.parts
        self.on_progress(Progress(stage="load"))
        words = self.needs_signals or any(system.reads_words for system in self.systems)
        if self.needs_signals or any(system.base is not None for system in self.systems):
            parts.embedder()
            parts.store()
            if words:
                parts.words().sync(parts.store)
        payloads: dict[str, Payload] = {}
        unreadable: dict[str, str] = {}
        for done, (name, asked) in enumerate(list(self.queries.items())):
            self.on_progress(Progress(stage="recall", done=done, total=len(self.queries)))
            away = [path for path in query_files(asked.query) if not path.is_file()]
            try:
                if away:
                    raise MediaError(f"there is no file {away[0]}")
                self.found[name] = self._find(asked, words, payloads)
            except MediaError as error:
                unreadable[name] = f"{name} ({error.problem})"
        for name in unreadable:
            self.queries.pop(name)
            for rankings in self.rankings.values():  # of replayed runs
                rankings.pop(name)
        if unreadable and not self.found:
            raise InputError(
                f"none of the {len(unreadable)} queries can be read: {named(unreadable.values())}"
            )
        if unreadable:
            self.warnings.append(
                f"{len(unreadable)} queries were left out, for their file cannot be read: "
                f"{named(unreadable.values())}"
            )
        for system in self.systems:
            if system.base is not None and not system.reranks:
                self._order(system)
        self._say_wordless()

    def _find(self, asked: EvaluationQuery, words: bool, payloads: dict[str, Payload]) -> Found:
        if not self.needs_signals and all(system.base is None for system in self.systems):
            return Found(query=asked)  # replayed runs alone need no candidates
        return find(
            self.parts,
            asked,
            depth=self.orders.depth,
            recall=self.orders.recall,
            words=words,
            payloads=payloads,
        )

    def _say_wordless(self) -> None:
        wordless = [name for name, asked in self.queries.items() if not asked.query.text.strip()]
        if wordless and any(system.base == "bm25" for system in self.systems):
            self.warnings.append(
                f"bm25 answers none of the {len(wordless)} queries without words: {named(wordless)}"
            )

    def rerank(
        self,
        sample: Sequence[str],
        budgets_ms: Sequence[float],
        *,
        on_scored: Callable[[System], None],
    ) -> None:
        """Scores what the reranking systems see, one reranker after the other.

        Args:
            sample: Ids of queries that are run again within budgets.
            budgets_ms: Milliseconds; none for no such runs.
            on_scored: Called for each system when it is ranked, its reranker still loaded.

        Raises:
            ModelError: A reranker cannot be loaded.
            RerankError: The second pass as a whole failed.
        """
        models = dict.fromkeys(system.model for system in self.systems if system.reranks)
        # The library's own first: it may be in memory.
        for model in sorted(models, key=lambda model: model != ""):
            if model:
                self.parts.unload()
            self.on_progress(Progress(stage="load", what=model))
            cost.forget_gpu_peak()
            with opened(self.parts, model) as judge:
                mine = [s for s in self.systems if s.reranks and s.model == model]
                if not judge.is_cached:
                    self.warnings.append(
                        f"scores of {judge.name} are not kept: an interrupted evaluation would "
                        "begin anew (see rerank.score_cache_mb)"
                    )
                self._look(judge, mine, model)
                for system in mine:
                    self._order(system)
                    if sample and budgets_ms:
                        self._within_budgets(judge, system, sample, budgets_ms)
                    on_scored(system)

    def _look(self, judge: Judge, systems: Sequence[System], model: str) -> None:
        for system in systems:
            self.passes[system.name] = {}
            self.settings[system.name] = judge.search
            self.models[system.name] = shown_model(judge.name)
        for done, (name, found) in enumerate(self.found.items()):
            self.on_progress(Progress(stage="rerank", what=model, done=done, total=len(self.found)))
            judge.next_query()
            for system in systems:
                candidates = self.orders.candidates(system, found)
                self.passes[system.name][name] = judge.look(found.query.query, candidates)
        failed = dict.fromkeys(
            line for system in systems for line in cost.errors(self.passes[system.name])
        )
        if failed:
            self.warnings.append(
                f"{judge.name} could not score {len(failed)} candidates, which come last: "
                f"{named(failed)}"
            )
        for system in systems:
            shown = [w for p in self.passes[system.name].values() for w in p.found.warnings]
            if shown:
                self.warnings.append(f"{system.name}, {len(shown)} queries: {shown[0]}")

    def _within_budgets(
        self, judge: Judge, system: System, sample: Sequence[str], budgets_ms: Sequence[float]
    ) -> None:
        done = 0

        def on_query() -> None:
            nonlocal done
            done += 1
            self.on_progress(
                Progress(stage="budgets", what=system.name, done=done, total=len(sample))
            )

        self.budgeted[system.name] = cost.within_budgets(
            judge,
            [self.found[name] for name in sample],
            lambda found: self.orders.candidates(system, found),
            budgets_ms,
            on_query=on_query,
        )

    def _order(self, system: System) -> None:
        """Ranks and counts what a system takes, once all it needs is known."""
        tally = cost.Tally(system, lexical=self.parts.settings.search.lexical)
        rankings = self.rankings[system.name] = {}
        for name, found in self.found.items():
            looked = self.passes[system.name][name] if system.reranks else None
            tally.add(found, looked)
            rankings[name] = self.orders.ranking(
                system, found, looked.found if looked else None, self.settings.get(system.name)
            )
        self.costs[system.name] = tally.cost()

    def replay(self, canonical: Callable[[str], str | None]) -> None:
        """Reads the runs that others made.

        Args:
            canonical: The judgments' name of any name of a document; None if it is not known.

        Raises:
            InputError: A run cannot be read, or has none of the queries.
        """
        for system in self.systems:
            if system.file is None:
                continue
            run, warnings = read_run(system.file)
            self.warnings += warnings
            missing = [name for name in self.queries if name not in run]
            if len(missing) == len(self.queries):
                raise InputError(
                    f"{system.file} has none of the {len(missing)} queries (it has "
                    f"{named(list(run))}; they are {named(missing)})",
                    remedy="its first column must hold the queries' ids",
                )
            if missing:
                self.warnings.append(
                    f"{system.file} has no results for {len(missing)} queries, which count as 0: "
                    f"{named(missing)}"
                )
            answered = {name: run[name] for name in self.queries if name in run}
            unknown = [
                document
                for document in dict.fromkeys(d for scores in answered.values() for d in scores)
                if canonical(document) is None
            ]
            if unknown:
                self.warnings.append(
                    f"{system.file} has {len(unknown)} documents that the library does not know: "
                    f"{named(unknown)}"
                )
            self.rankings[system.name] = replayed(
                answered,
                name=lambda document: canonical(document) or document,
                qrels={name: self.orders.qrels[name] for name in self.queries},
                depth=self.orders.depth,
            )

    def first_pass(self) -> dict[str, tuple[Ranked, ...]]:
        """Rankings of what the second passes choose from, or of the first system if none is run."""
        reads = any(s.base == "fusion" for s in self.systems)
        reads = reads and self.parts.settings.search.lexical
        base: SystemName = "clip+bm25" if reads else "clip"
        system = System(base, base)
        if not any(found.by_vector for found in self.found.values()):
            return self.rankings[self.systems[0].name]
        return {name: self.orders.ranking(system, found) for name, found in self.found.items()}

    def signals(self) -> Mapping[str, Signals]:
        """Of each query, with the scores of the library's own reranker."""
        mine = [system.name for system in self.systems if system.reranks and not system.model]
        return {
            name: signals_of(
                found,
                [self.passes[system][name].found for system in mine],
                name=self.orders.name,
            )
            for name, found in self.found.items()
        }

    def described(self, system: System) -> str:
        """What a system is, in one line."""
        recall = self.parts.settings.recall
        clip = "/".join(filter(None, (recall.model, recall.pretrained)))
        seen = f"then {self.models.get(system.name, '')} on {self.orders.recall}"
        return {
            None: f"replayed from {system.file}",
            "bm25": "captions, texts and names by their words",
            "clip": f"vectors of {clip}",
            "clip+bm25": f"vectors of {clip} and words, by reciprocal rank",
            "rerank": f"vectors of {clip}, {seen}, by its probability",
            "fusion": f"what search does: vectors of {clip} and words, {seen}, mixed",
        }[system.base]
