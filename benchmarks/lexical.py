"""What do words add to vectors, and what does the word index cost?

    python benchmarks/lexical.py quality --photos DIR --stamps DIR [--cache DIR]
    python benchmarks/lexical.py cost --captions FILE [--documents 100000]

`quality`: share of queries whose file is among the first 10 and 100, by vector, by words, by both
as `search` fuses them, and by reciprocal rank without the weight of `word_recall`. One caption of
each photograph is indexed and another one asked for; also with every tenth caption only, and with
none but file names that mislead. Of stamps, captions of 24 languages are indexed and the second
half of one is asked for. Generated scenes come with queries and judgments. DIRs hold
`captions.jsonl` (`file`, `captions`, and `split` or `lang` and `group`).

`cost`: SQLite's FTS5 as the library uses it beside bm25s, on pairs of captions.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from common import console, report

from secondglance.ingest.embedder import ClipEmbedder
from secondglance.pipelines.builtin import starter_folder
from secondglance.pipelines.word_recall import DEPTH, weight
from secondglance.retrieve.fusion import reciprocal_ranks, shared_ranks
from secondglance.retrieve.lexical import Document, WordIndex, WordMatch
from secondglance.retrieve.tokens import tokenize

LANGUAGES = ("en", "de", "fr", "es", "ru", "zh", "ja", "ko", "ar", "hi", "th", "vi")
UNSPACED = {"zh", "ja", "th"}
RECALL = 100
BATCH = 64
Matrix = npt.NDArray[np.float32]


def entries(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


class Vectors:
    """Vectors of the starter model, kept in a folder if one is named."""

    def __init__(self, cache: Path | None) -> None:
        self._cache = cache
        self._embedder: ClipEmbedder | None = None

    def get(self, name: str, things: Sequence[Path] | Sequence[str]) -> Matrix:
        """Of pictures or of texts, shape (n, dim)."""
        path = self._cache / f"{name}.npy" if self._cache else None
        if path and path.is_file():
            return np.load(path)  # type: ignore[no-any-return]
        embedder = self._embedder = self._embedder or ClipEmbedder(str(starter_folder("clip")))
        found = []
        for start in range(0, len(things), BATCH):
            batch = things[start : start + BATCH]
            if isinstance(batch[0], Path):
                found += [embedder.embed_image(Path(p), max_pixels=10**8) for p in batch]
            else:
                found += list(embedder.embed_texts([str(text) for text in batch]))
        rows = np.stack(found)
        if path:
            np.save(path, rows)
        return rows


def compare(
    what: str, documents: Sequence[tuple[str, str]], queries: Sequence[str], cosines: Matrix,
    wanted: Sequence[Sequence[int]],
) -> dict[str, Any]:  # fmt: skip
    """One row: documents are (captions, name), `wanted` their numbers for each query."""
    found: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        index = WordIndex(Path(temporary) / "words.sqlite")
        rows = [
            Document(content=f"{n:06}", record=f"{n:06}", kind="image", text=text, name=name)
            for n, (text, name) in enumerate(documents)
        ]
        index.replace([], rows)
        for query, row, right in zip(queries, cosines, wanted, strict=True):
            hits = index.search(query, limit=DEPTH)
            for system, order in orders(row, hits).items():
                best = min((order.index(n) + 1 for n in right if n in order), default=10**6)
                found.setdefault(system, []).append(best)
        index.close()
    cells = {
        system: " / ".join(f"{np.mean(np.array(ranks) <= k):.3f}" for k in (10, RECALL))
        for system, ranks in found.items()
    }
    console.print({"what": what, "queries": len(queries), **cells})
    return {"what": what, "queries": len(queries), **cells}


def orders(cosines: Matrix, hits: Sequence[WordMatch]) -> dict[str, list[int]]:
    """The first `RECALL` documents, by each system."""
    by_vector = [int(n) for n in np.argsort(-cosines, kind="stable")[:RECALL]]
    rank_of = {n: rank for rank, n in enumerate(by_vector, start=1)}
    ranks = shared_ranks([hit.score for hit in hits])
    words = {int(hit.content): (rank, hit) for rank, hit in zip(ranks, hits, strict=True)}
    candidates = [*by_vector, *(n for n in words if n not in rank_of)]
    orders = {"vector": by_vector, "words": list(words)[:RECALL]}
    for name, weigh in (("both", weight), ("both, unweighted", lambda _: 1.0)):
        scores = reciprocal_ranks(
            [rank_of.get(n) for n in candidates],
            [words[n][0] if n in words else None for n in candidates],
            weights=[weigh(words[n][1]) if n in words else 0.0 for n in candidates],
        )
        order = sorted(range(len(candidates)), key=lambda i: (-scores[i], -cosines[candidates[i]]))
        orders[name] = [candidates[i] for i in order][:RECALL]
    return orders


def photographs(source: Path, vectors: Vectors) -> Iterator[dict[str, Any]]:
    photos = [entry for entry in entries(source) if entry["split"] == "dev"]
    queries = [entry["captions"][0] for entry in photos]
    pictures = vectors.get("photos", [source / entry["file"] for entry in photos])
    cosines = vectors.get("photos-queries", queries) @ pictures.T
    wanted = [[n] for n in range(len(photos))]
    other = [entry["captions"][1] for entry in photos]
    plain = [f"IMG_{n:04}" for n in range(len(photos))]
    chance = random.Random(0)
    misleading = [
        f"{chance.choice(tokenize(chance.choice(photos)['captions'][2]).stream)}_{n:04}"
        for n in range(len(photos))
    ]
    tenth = [text if n % 10 == 0 else "" for n, text in enumerate(other)]
    nothing = [""] * len(photos)
    for what, texts, names in (
        ("one caption", other, plain),
        ("every tenth captioned", tenth, plain),
        ("no captions, IMG_0000", nothing, plain),
        ("misleading names", nothing, misleading),
    ):
        documents = list(zip(texts, names, strict=True))
        yield compare(f"photographs, {what}", documents, queries, cosines, wanted)


def stamps(source: Path, vectors: Vectors) -> Iterator[dict[str, Any]]:
    captions = entries(source)
    files = list(dict.fromkeys(entry["file"] for entry in captions))
    number = {file: n for n, file in enumerate(files)}
    texts: list[list[str]] = [[] for _ in files]
    groups: dict[str, list[int]] = {}
    for entry in captions:
        texts[number[entry["file"]]] += entry["captions"]
        group = groups.setdefault(entry["group"], [])
        if number[entry["file"]] not in group:
            group.append(number[entry["file"]])
    documents = [("\n".join(lines), "") for lines in texts]
    pictures = vectors.get("stamps", [source / file for file in files])
    for language in LANGUAGES:
        chosen = [entry for entry in captions if entry["lang"] == language]
        queries = [half(entry["captions"][0], language) for entry in chosen]
        cosines = vectors.get(f"stamps-{language}", queries) @ pictures.T
        wanted = [groups[entry["group"]] for entry in chosen]
        yield compare(f"stamps, {language}", documents, queries, cosines, wanted)


def half(caption: str, language: str) -> str:
    words = caption.split()
    if len(words) > 1:
        return " ".join(words[len(words) // 2 :])
    return caption[len(caption) // 2 :] if language in UNSPACED else caption


def scenes(vectors: Vectors) -> Iterator[dict[str, Any]]:
    from secondglance.scenes.collection import write_collection

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "scenes"
        collection = write_collection(folder, pictures=300, clips=0, texts=0)
        files = [entry.path for entry in collection.entries]
        pictures = vectors.get("scenes", [folder / file for file in files])
    number = {file: n for n, file in enumerate(files)}
    captions = ["\n".join(collection.captions[file].values()) for file in files]
    for language in ("en", "zh"):
        requests = [r for r in collection.requests if r.language == language and r.text]
        queries = [request.text for request in requests]
        cosines = vectors.get(f"scenes-{language}", queries) @ pictures.T
        wanted = [[number[path] for path in request.relevant] for request in requests]
        documents = [(caption, "") for caption in captions]
        yield compare(f"scenes captioned, {language}", documents, queries, cosines, wanted)


def quality(options: argparse.Namespace) -> None:
    rows: list[dict[str, Any]] = []
    vectors = Vectors(options.cache)
    if options.photos:
        rows += photographs(options.photos, vectors)
    if options.stamps:
        rows += stamps(options.stamps, vectors)
    rows += scenes(vectors)
    report("lexical-quality", rows, cells="recall@10 / recall@100")


def cost(options: argparse.Namespace) -> None:
    if options.engine is None:
        rows = []
        for engine in ("fts5", "bm25s"):
            command = [sys.executable, __file__, "cost", "--captions", str(options.captions)]
            command += ["--documents", str(options.documents), "--engine", engine]
            rows.append(json.loads(subprocess.check_output(command)))
        report("lexical-cost", rows, documents=options.documents)
        return
    captions = [c for entry in entries(options.captions.parent) for c in entry["captions"]]
    chance = random.Random(0)
    texts = [
        f"{chance.choice(captions)} {chance.choice(captions)} IMG_{n:06}"
        for n in range(options.documents)
    ]
    queries = [chance.choice(captions) for _ in range(100)]
    measured = (fts5 if options.engine == "fts5" else bm25s)(texts, queries)
    print(json.dumps({"engine": options.engine, **measured}))


def fts5(texts: Sequence[str], queries: Sequence[str]) -> dict[str, float]:
    documents = [
        Document(content=f"{n:032x}", record=f"{n:032x}", kind="image", text=text)
        for n, text in enumerate(texts)
    ]
    before = resident_mb()
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "words.sqlite"
        index = WordIndex(path)

        def write(some: Sequence[Document]) -> None:
            for start in range(0, len(some), 256):
                batch = some[start : start + 256]
                index.replace([document.content for document in batch], batch)

        build_s = seconds(lambda: write(documents))
        update_s = seconds(lambda: write(documents[:256]))
        times = [seconds(lambda q=query: index.search(q, limit=100)) for query in queries]  # type: ignore[misc]
        index.close()
        disk = sum(file.stat().st_size for file in Path(temporary).iterdir()) / 2**20
    return figures(build_s, update_s, times, disk, resident_mb() - before)


def bm25s(texts: Sequence[str], queries: Sequence[str]) -> dict[str, float]:
    import bm25s as library

    before = resident_mb()
    tokens: list[list[str]] = []
    index = library.BM25()

    def tokenized() -> None:
        tokens.extend(list(tokenize(text).all) for text in texts)

    def build() -> None:
        index.index(tokens, show_progress=False)

    def search(query: str) -> None:
        index.retrieve([list(tokenize(query).all)], k=100, show_progress=False)

    build_s = seconds(tokenized) + seconds(build)
    update_s = seconds(build)  # it cannot add or remove: all is computed again
    times = [seconds(lambda q=query: search(q)) for query in queries]  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as temporary:
        index.save(temporary)
        disk = sum(file.stat().st_size for file in Path(temporary).iterdir()) / 2**20
    return figures(build_s, update_s, times, disk, resident_mb() - before)


def figures(
    build_s: float, update_s: float, times: Sequence[float], disk_mb: float, memory_mb: float
) -> dict[str, float]:
    return {
        "build s": round(build_s, 2),
        "update of 256 s": round(update_s, 3),
        "query ms (median)": round(float(np.median(times)) * 1e3, 1),
        "query ms (p95)": round(float(np.percentile(times, 95)) * 1e3, 1),
        "disk MB": round(disk_mb, 1),
        "memory MB": round(memory_mb, 1),
    }


def seconds(work: Callable[[], object]) -> float:
    """Of processor time: the machine may be busy otherwise."""
    started = time.process_time()
    work()
    return time.process_time() - started


def resident_mb() -> float:
    """Peak so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True)
    first = commands.add_parser("quality")
    first.add_argument("--photos", type=Path)
    first.add_argument("--stamps", type=Path)
    first.add_argument("--cache", type=Path, help="folder that keeps vectors between runs")
    first.set_defaults(run=quality)
    second = commands.add_parser("cost")
    second.add_argument("--captions", type=Path, required=True)
    second.add_argument("--documents", type=int, default=100_000)
    second.add_argument("--engine", choices=["fts5", "bm25s"], help="one, as JSON")
    second.set_defaults(run=cost)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
