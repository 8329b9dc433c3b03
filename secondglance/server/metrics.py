"""What a server counts, for Prometheus. Labels come from fixed lists, so that series stay few."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.process_collector import ProcessCollector

from secondglance.rerank.observing import observing

if TYPE_CHECKING:
    from secondglance.server.serving import Serving

CONTENT_TYPE = CONTENT_TYPE_LATEST
STAGES = frozenset({"queue", "read", "load", "embed", "recall", "rerank", "total"})
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
PAIRS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Together:
    """Registries of several libraries as one: each series says whose it is.

    Args:
        libraries: Registries by the name of the library.
        process: What belongs to no library; None leaves it out.
    """

    def __init__(
        self, libraries: Mapping[str, CollectorRegistry], *, process: CollectorRegistry | None
    ) -> None:
        self._libraries = libraries
        self._process = process

    def collect(self) -> Iterable[Metric]:
        """Families, each once."""
        families: dict[str, Metric] = {}
        sources = [("", self._process)] if self._process is not None else []
        for name, registry in (*sources, *self._libraries.items()):
            labels = {"library": name} if name else {}
            for family in registry.collect():
                into = families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                for sample in family.samples:
                    into.samples.append(sample._replace(labels={**labels, **sample.labels}))
        return families.values()

    def text(self) -> bytes:
        """All of it in Prometheus' format."""
        return generate_latest(cast(CollectorRegistry, self))


class Metrics:
    """Counters of one application, in a registry of their own.

    Batches and the cache of scores are those of the process: see `rerank.observing`.

    Args:
        of_process: Whether what belongs to the process is counted here, too. Of the applications
            of one server one does.
    """

    def __init__(self, *, of_process: bool = True) -> None:
        self.registry = CollectorRegistry()
        self._of_process = of_process
        if of_process:
            ProcessCollector(registry=self.registry)  # process_resident_memory_bytes, CPU, files
        own: dict[str, Any] = {"registry": self.registry, "namespace": "secondglance"}
        self._requests = Counter(
            "requests", "Requests answered.", ("method", "route", "status"), **own
        )
        self._seconds = Histogram(
            "request_seconds", "Time of requests.", ("route",), buckets=SECONDS, **own
        )
        self._stages = Histogram(
            "stage_seconds",
            "Time of a stage of a search or a rerank; queue is the wait before.",
            ("stage",),
            buckets=SECONDS,
            **own,
        )
        self._refused = Counter("refused", "Requests answered with 429.", **own)
        self._answering = Gauge("requests_in_flight", "Requests that have no answer yet.", **own)
        self._running = Gauge("work_running", "Requests that are worked on.", **own)
        self._waiting = Gauge("work_waiting", "Requests that wait for their turn.", **own)
        self._pairs = Counter("rerank_pairs", "Pairs that the reranker scored.", **own)
        self._busy = Counter(
            "rerank_busy_seconds",
            "Time that devices spent on batches; pairs by this is the speed of the reranker.",
            **own,
        )
        self._batches = Histogram(
            "rerank_batch_pairs", "Pairs that shared a batch.", buckets=PAIRS, **own
        )
        self._cache = Counter(
            "score_cache", "Pairs looked up in the cache of scores.", ("result",), **own
        )
        self._uploads = Counter("uploads", "Files that were taken.", **own)
        self._upload_bytes = Counter("upload_bytes", "Bytes of these files.", **own)
        for result in ("hit", "miss"):
            self._cache.labels(result)
        for stage in STAGES:
            self._stages.labels(stage)

    @contextlib.contextmanager
    def watching(self, server: Serving) -> Iterator[None]:
        """Looks at the parts of a server within the block."""
        self._running.set_function(lambda: server.queue.running)
        self._waiting.set_function(lambda: server.queue.waiting)
        models = _Models(server)
        self.registry.register(models)
        try:
            with self.watching_process() if self._of_process else contextlib.nullcontext():
                yield
        finally:
            self.registry.unregister(models)

    @contextlib.contextmanager
    def watching_process(self) -> Iterator[None]:
        """Looks at the second pass and at GPUs within the block."""
        gpus = _Gpus()
        self.registry.register(gpus)
        try:
            with observing(self):
                yield
        finally:
            self.registry.unregister(gpus)

    def note_open(self, *, is_open: bool) -> None:
        """Among several libraries: whether this one could be opened."""
        Gauge(
            "secondglance_library_open",
            "Whether the library could be opened when the server started.",
            registry=self.registry,
        ).set(is_open)

    def begin(self) -> None:
        """A request came."""
        self._answering.inc()

    def end(
        self, *, method: str, route: str, status: int, seconds: float, received_bytes: int
    ) -> None:
        """A request was answered, or its client went away.

        Args:
            method: Of HTTP, whatever the client wrote.
            route: Template of the route, never the path.
            status: Of HTTP.
            seconds: That it took.
            received_bytes: Of its body.
        """
        self._answering.dec()
        self._requests.labels(method if method in METHODS else "other", route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        if status == 429:
            self._refused.inc()
        if (method, route, status) == ("POST", "/v1/uploads", 201):
            self._uploads.inc()
            self._upload_bytes.inc(received_bytes)

    def waited(self, seconds: float) -> None:
        """A request got its turn."""
        self._stages.labels("queue").observe(seconds)

    def stages(self, timings_ms: Mapping[str, float]) -> None:
        """What the stages of a request took; the wait is counted by `waited`."""
        for name, ms in timings_ms.items():
            if name in STAGES and name != "queue":
                self._stages.labels(name).observe(ms / 1e3)

    def batch(self, pairs: int, seconds: float) -> None:
        """A device scored a batch."""
        self._pairs.inc(pairs)
        self._busy.inc(seconds)
        self._batches.observe(pairs)

    def cache(self, hits: int, misses: int) -> None:
        """The cache of scores was asked."""
        self._cache.labels("hit").inc(hits)
        self._cache.labels("miss").inc(misses)

    def text(self) -> bytes:
        """All of it in Prometheus' format."""
        return generate_latest(self.registry)


class _Models:
    """Looks, whenever it is asked, at the models of a library."""

    def __init__(self, server: Serving) -> None:
        self._server = server

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The gauge."""
        loaded = GaugeMetricFamily(
            "secondglance_model_loaded", "Whether a model is in memory.", labels=("model",)
        )
        there = self._server.library.loaded()
        for name in ("recall", "rerank"):
            loaded.add_metric((name,), float(name in there))
        yield loaded


class _Gpus:
    """Looks, whenever it is asked, at the memory of GPUs."""

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The gauge."""
        yield _gpu_memory()


def _gpu_memory() -> GaugeMetricFamily:
    found = GaugeMetricFamily(
        "secondglance_gpu_memory_bytes",
        "Memory of CUDA devices that tensors fill, and that is held for them.",
        labels=("device", "state"),
    )
    torch = sys.modules.get("torch")
    # A look must not begin to use a device.
    if torch is not None and torch.cuda.is_initialized():
        for device in range(torch.cuda.device_count()):
            found.add_metric((str(device), "used"), torch.cuda.memory_allocated(device))
            found.add_metric((str(device), "held"), torch.cuda.memory_reserved(device))
    return found
