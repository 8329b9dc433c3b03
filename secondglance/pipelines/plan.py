"""What a library of some size needs, reckoned from measured rates (`rates.toml`)."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from secondglance.config import Settings
from secondglance.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BUSY = 0.7
"""Share of its time that a GPU may be at work on average; beyond it, waits grow quickly."""
LITE_MS = 100.0
"""Median of a search in Milvus Lite that is still borne."""
MEMORY_SHARE = 0.5
"""Of a machine's memory, for vectors; the rest is for models, decoding and the system."""
ID_BYTES = 8
MOST_OF_ONE = 100_000_000
"""Vectors that one machine is asked to hold, whatever its memory: building an index of more takes
days, and a machine that is lost is then lost for as long."""
SECONDS_AN_HOUR = 3600


@dataclass(frozen=True, slots=True)
class IndexSize:
    """One way of keeping the vectors.

    Attributes:
        name: Of the variant.
        bytes_per_vector: In the index itself.
        memory_bytes: Of the index and what is known of each record, while it serves.
        disk_bytes: Index, full vectors (kept for another index later) and payloads.
        fits: Whether this machine's share of memory for vectors holds it.
    """

    name: str
    bytes_per_vector: int
    memory_bytes: int
    disk_bytes: int
    fits: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What is needed. None where nothing was measured for the chosen model.

    Attributes:
        preset: Its name.
        images: Pictures.
        video_hours: Hours of video.
        queries_per_second: On average.
        vectors: Pictures, and segments of videos.
        dimension: Numbers in a vector.
        candidates: Looked at by the second pass, for a query.
        indexes: Ways of keeping the vectors, largest first.
        cores: Of this machine.
        memory_bytes: Of this machine.
        ingest_hours_here: On the processors of this machine.
        ingest_hours_gpu: On one GPU as measured.
        candidates_per_s: That one GPU scores, for this mixture of pictures and clips.
        gpus: That serve the queries; 0 without queries.
        gpu_seconds_per_query: At work for one query.
        cost_per_million_queries: In the currency of the price; None without one.
        cost_to_ingest: Likewise, on GPUs.
        advice: Sentences: when to leave Milvus Lite, to quantise, to cluster.
        sources: The rates that went in, and what was reckoned from them.
    """

    preset: str
    images: int
    video_hours: float
    queries_per_second: float
    vectors: int
    dimension: int
    candidates: int
    indexes: tuple[IndexSize, ...]
    cores: int
    memory_bytes: int
    ingest_hours_here: float
    ingest_hours_gpu: float | None
    candidates_per_s: float | None
    gpus: int | None
    gpu_seconds_per_query: float | None
    cost_per_million_queries: float | None
    cost_to_ingest: float | None
    advice: tuple[str, ...]
    sources: tuple[str, ...]


def read_rates() -> dict[str, Any]:
    """The packaged table of measured rates."""
    text = resources.files("secondglance").joinpath("pipelines/rates.toml").read_text("utf-8")
    return tomllib.loads(text)


def plan(
    settings: Settings,
    *,
    images: int,
    video_hours: float,
    queries_per_second: float,
    cores: int,
    memory_bytes: int,
    gpu_hour_price: float | None = None,
    segments_per_hour: float | None = None,
    rates: Mapping[str, Any] | None = None,
) -> Plan:
    """Reckons what a library needs.

    Args:
        settings: Its models, how many candidates are looked at, and how the reranker runs.
        images: Pictures.
        video_hours: Hours of video.
        queries_per_second: On average.
        cores: Of the machine that ingests.
        memory_bytes: Of the machine that serves.
        gpu_hour_price: Of one GPU like the measured one, in any currency.
        segments_per_hour: Of video; None takes the measured average.
        rates: Of `read_rates`, which is the default.

    Raises:
        InputError: A number is out of range, or nothing was measured for the recall model.
    """
    for name, value, least in (
        ("images", images, 0),
        ("video hours", video_hours, 0),
        ("queries per second", queries_per_second, 0),
        ("the price of a GPU hour", gpu_hour_price or 0, 0),
        ("segments per hour", 1 if segments_per_hour is None else segments_per_hour, 1),
        ("cores", cores, 1),
        ("bytes of memory", memory_bytes, 1),
    ):
        if not least <= value < math.inf:
            raise InputError(f"{name}: {value}; it must be {least} or more, and finite")
    if not images and not video_hours:
        raise InputError("there is nothing to plan for", remedy="give --images or --video-hours")
    rates = read_rates() if rates is None else rates
    model = _recall_model(settings, rates)
    an_hour = segments_per_hour or rates["segments"]["per_hour"]
    segments = math.ceil(video_hours * an_hour)
    vectors = images + segments
    sources = [
        f"{an_hour:g} segments an hour of video: "
        + ("as given" if segments_per_hour else rates["segments"]["source"])
    ]
    hours_here, hours_gpu, said = _ingest(model, rates, images, segments, video_hours, cores)
    second = _second_pass(settings, rates, segments / vectors)
    candidates = min(settings.search.recall, vectors) if settings.search.rerank else 0
    gpu_seconds = gpus = None
    if second is not None:
        sources_second, per_s = second
        said.append(sources_second)
        gpu_seconds = candidates / per_s
        gpus = math.ceil(queries_per_second * gpu_seconds / BUSY)
    else:
        per_s = None
        said.append(f"{settings.rerank.model}: no rate on a GPU was measured")
    priced = gpu_hour_price is not None
    cost = ingest_cost = None
    if priced and gpu_seconds is not None:
        cost = 1e6 * gpu_seconds / BUSY / SECONDS_AN_HOUR * (gpu_hour_price or 0.0)
    if priced and hours_gpu is not None:
        ingest_cost = hours_gpu * (gpu_hour_price or 0.0)
    indexes = _indexes(vectors, int(model["dimension"]), rates["store"], memory_bytes)
    return Plan(
        preset=settings.preset,
        images=images,
        video_hours=video_hours,
        queries_per_second=queries_per_second,
        vectors=vectors,
        dimension=int(model["dimension"]),
        candidates=candidates,
        indexes=indexes,
        cores=cores,
        memory_bytes=memory_bytes,
        ingest_hours_here=hours_here,
        ingest_hours_gpu=hours_gpu,
        candidates_per_s=per_s,
        gpus=gpus,
        gpu_seconds_per_query=gpu_seconds,
        cost_per_million_queries=cost,
        cost_to_ingest=ingest_cost,
        advice=_advice(vectors, int(model["dimension"]), indexes, rates["store"], memory_bytes),
        sources=(*sources, *said, f"bytes: {rates['store']['source']}"),
    )


def _recall_model(settings: Settings, rates: Mapping[str, Any]) -> Mapping[str, Any]:
    known: Mapping[str, Any] = rates["recall"]
    if settings.recall.model not in known:
        raise InputError(
            f"nothing was measured for the recall model {settings.recall.model!r}",
            remedy=f"plan with the one that is nearest to it: {', '.join(known)}",
        )
    found: Mapping[str, Any] = known[settings.recall.model]
    return found


def _ingest(
    model: Mapping[str, Any],
    rates: Mapping[str, Any],
    images: int,
    segments: int,
    video_hours: float,
    cores: int,
) -> tuple[float, float | None, list[str]]:
    """Hours here, hours on a GPU, and what they were reckoned from."""
    processor, gpu, video = rates["processor"], rates["gpu"], rates["processor"]["video"]
    if "pictures_per_s" in model:
        embed = model["pictures_per_s"] * cores / processor["cores"]
        pictures = embed
        said = [f"pictures a second here: {model['source']}, by the number of cores"]
    else:
        embed = processor["pictures_per_s"] * processor["gflop"] / model["gflop"]
        embed *= cores / processor["cores"]
        # A large photograph costs its decoding besides.
        large = 1 / processor["large"]["pictures_per_s"] - 1 / processor["pictures_per_s"]
        pictures = 1 / (1 / embed + large * processor["cores"] / cores)
        said = [
            f"pictures a second here: {processor['source']}; {processor['large']['source']}; by "
            f"the model's arithmetic ({model['gflop']:g} GFLOP a picture) and the number of cores"
        ]
    said.append(f"video: {video['times_real_time_per_core']:g} x real time a core, "
                f"{video['source']}")  # fmt: skip
    watching_s = video_hours * SECONDS_AN_HOUR / video["times_real_time_per_core"]
    here_s = images / pictures + segments / embed + watching_s / cores
    if "gflop" not in model:
        said.append("on a GPU: not measured with this model")
        return here_s / SECONDS_AN_HOUR, None, said
    embed_gpu = gpu["embed_per_s"] * gpu["gflop"] / model["gflop"] * gpu["of_slowest_stage"]
    said.append(f"on a GPU: {gpu['machine']}, {gpu['source']}; embedding by the model's arithmetic")
    # Decoding and embedding run side by side: the slower one is the wall.
    decoding_s = images / gpu["index_per_s"] + watching_s / gpu["cores"]
    gpu_s = max(decoding_s, (images + segments) / embed_gpu)
    return here_s / SECONDS_AN_HOUR, gpu_s / SECONDS_AN_HOUR, said


def _second_pass(
    settings: Settings, rates: Mapping[str, Any], clips: float
) -> tuple[str, float] | None:
    """Candidates a second of one GPU, of which a share are clips; None if nobody measured it."""
    measured = rates["rerank"].get(settings.rerank.model)
    if measured is None:
        return None
    way = "fp8" if settings.rerank.fp8 else "compiled" if settings.rerank.compiled else None
    rate = measured[way] if way else measured
    seconds = (1 - clips) / rate["pictures_per_s"] + clips / rate["clips_per_s"]
    return f"second pass: {measured['machine']}, {rate['source']}", 1 / seconds


def _indexes(
    vectors: int, dimension: int, store: Mapping[str, Any], memory_bytes: int
) -> tuple[IndexSize, ...]:
    from secondglance.retrieve.vector_index import Layout, Tuning, index_bytes

    def of(layout: Layout) -> int:
        return index_bytes(layout, vectors, dim=dimension, m=Tuning().m) // max(vectors, 1)

    full = 4 * dimension
    besides = store["memory"]["bytes_besides_vector"]
    sizes = (
        ("HNSW, float32", of("hnsw")),
        ("flat, float32", of("flat")),
        ("flat, float16, on a GPU", of("gpu")),
        ("HNSW, 8 bits", of("sq8")),
        ("IVF_SQ8 of Milvus", dimension + ID_BYTES),
        ("IVF-PQ", of("ivfpq")),
    )
    return tuple(
        IndexSize(
            name=name,
            bytes_per_vector=size,
            memory_bytes=vectors * (size + besides),
            disk_bytes=vectors * (size + full + store["record_bytes"]),
            fits=vectors * (size + besides) <= MEMORY_SHARE * memory_bytes,
        )
        for name, size in sizes
    )


def _advice(
    vectors: int,
    dimension: int,
    indexes: tuple[IndexSize, ...],
    store: Mapping[str, Any],
    memory_bytes: int,
) -> tuple[str, ...]:
    each_ms = store["milvus_lite_ms"] / store["milvus_lite_vectors"]
    each_ms *= dimension / store["dimension"]
    most_lite = int(LITE_MS / each_ms)
    lite_ms = each_ms * vectors
    share = MEMORY_SHARE * memory_bytes / 1e9
    graph, *_, smallest = indexes
    most_full = int(MEMORY_SHARE * memory_bytes * vectors / graph.memory_bytes)
    most_small = int(MEMORY_SHARE * memory_bytes * vectors / smallest.memory_bytes)
    lite = (
        f"Milvus Lite looks at every vector: about {lite_ms:,.0f} ms a search here. "
        f"Beyond {most_lite:,} vectors ({LITE_MS:g} ms) take FAISS or a Milvus server"
    )
    if graph.fits:
        quantise = (
            f"No need to quantise: full vectors fit in {share:,.1f} GB (half of this machine's "
            f"memory) up to {most_full:,}"
        )
    else:
        # A scan of so many is no remedy, however small its vectors are.
        searched = (index for index in indexes if not index.name.startswith("flat"))
        small = next((index.name for index in searched if index.fits), None)
        quantise = "Quantise, or take more memory: full vectors in HNSW need "
        quantise += f"{graph.memory_bytes / 1e9:,.1f} GB and {share:,.1f} GB are there for them"
        quantise += f"; {small} fits" if small else "; no variant fits"
    if smallest.fits and vectors <= MOST_OF_ONE:
        cluster = (
            "One machine holds this. Cluster (a Milvus server with several query nodes) beyond "
            f"{min(most_small, MOST_OF_ONE):,} vectors, or when one machine must not be the only "
            "one"
        )
    else:
        cluster = (
            f"Cluster: {vectors:,} vectors are more than the "
            f"{min(most_small, MOST_OF_ONE):,} of one machine like this"
        )
    return lite, quantise, cluster
