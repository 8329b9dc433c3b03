"""Models within a limit of memory: who is loaded, who goes, and who waits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from secondglance.errors import InputError, RerankError
from secondglance.rerank.pool import ModelPool

pytestmark = pytest.mark.timeout(20)
LONG_S = 15.0
"""Longer than anything here takes: only a hang gets there."""


class Memory:
    """Counts the bytes of the models that exist."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.loads: list[str] = []
        self.closed: list[str] = []
        self.bytes = 0
        self.peak_bytes = 0

    def loader(self, name: str, size_bytes: int) -> Callable[[], Model]:
        return lambda: Model(self, name, size_bytes)


class Model:
    def __init__(self, memory: Memory, name: str, size_bytes: int) -> None:
        self.memory = memory
        self.name = name
        self.bytes = size_bytes
        self.open = True
        with memory.lock:
            memory.loads.append(name)
            memory.bytes += size_bytes
            memory.peak_bytes = max(memory.peak_bytes, memory.bytes)

    def close(self) -> None:
        assert self.open, "closed twice"
        self.open = False
        with self.memory.lock:
            self.memory.closed.append(self.name)
            self.memory.bytes -= self.bytes


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def pool() -> Iterator[ModelPool]:
    with ModelPool(10) as made:
        yield made


def use(pool: ModelPool, memory: Memory, name: str, size_bytes: int) -> None:
    with pool.get(name, memory.loader(name, size_bytes), bytes_needed=size_bytes) as model:
        assert model.name == name
        assert model.open


def test_a_model_loads_once_and_stays(pool: ModelPool, memory: Memory) -> None:
    assert pool.loaded() == []
    for _ in range(3):
        use(pool, memory, "a", 4)
    assert memory.loads == ["a"]
    assert pool.loaded() == [("a", 4)]
    assert not memory.closed


def test_the_least_recently_used_goes(pool: ModelPool, memory: Memory) -> None:
    use(pool, memory, "a", 4)
    use(pool, memory, "b", 4)
    use(pool, memory, "a", 4)
    use(pool, memory, "c", 4)
    assert memory.closed == ["b"]
    assert pool.loaded() == [("a", 4), ("c", 4)]
    use(pool, memory, "b", 4)
    assert memory.closed == ["b", "a"]
    assert memory.loads == ["a", "b", "c", "b"]


def test_use_counts_from_its_end(pool: ModelPool, memory: Memory) -> None:
    with pool.get("a", memory.loader("a", 4), bytes_needed=4):
        use(pool, memory, "b", 4)
    use(pool, memory, "c", 4)
    assert memory.closed == ["b"]


def test_only_as_many_go_as_must(pool: ModelPool, memory: Memory) -> None:
    for name in "abcde":
        use(pool, memory, name, 2)
    use(pool, memory, "f", 4)
    assert memory.closed == ["a", "b"]
    assert memory.peak_bytes == 10


def test_a_leased_model_is_never_closed(pool: ModelPool, memory: Memory) -> None:
    with pool.get("a", memory.loader("a", 4), bytes_needed=4) as model:
        use(pool, memory, "b", 4)
        use(pool, memory, "c", 6)
        assert model.open
    assert memory.closed == ["b"]


def test_what_does_not_fit_beside_leased_models_is_an_error(
    pool: ModelPool, memory: Memory
) -> None:
    use(pool, memory, "idle", 2)
    with pool.get("large", memory.loader("large", 8), bytes_needed=8):
        with (
            pytest.raises(RerankError) as caught,
            pool.get("b", memory.loader("b", 3), bytes_needed=3, timeout_s=0.05),
        ):
            pass
        assert pool.loaded() == [("idle", 2), ("large", 8)]  # nothing went for nothing
    message = str(caught.value)
    for part in ("b needs 3 bytes", "limit of the pool is 10 bytes", "0.05 s", "large (8)"):
        assert part in message
    assert caught.value.remedy
    use(pool, memory, "b", 3)
    assert memory.loads == ["idle", "large", "b"]


def test_a_model_larger_than_the_limit_is_refused_at_once(pool: ModelPool, memory: Memory) -> None:
    use(pool, memory, "a", 4)
    with (
        pytest.raises(RerankError, match=r"giant needs 2,000 bytes; .* 10 bytes") as caught,
        pool.get("giant", memory.loader("giant", 2000), bytes_needed=2000, timeout_s=1000 * LONG_S),
    ):
        pass
    assert "smaller model" in str(caught.value)
    assert pool.loaded() == [("a", 4)]


def test_a_waiting_thread_goes_on_when_a_lease_ends(pool: ModelPool, memory: Memory) -> None:
    with ThreadPoolExecutor(1) as threads:
        with pool.get("a", memory.loader("a", 8), bytes_needed=8) as model:
            waiting = threads.submit(use, pool, memory, "b", 8)
            assert not waiting.done()
            assert model.open
        waiting.result(LONG_S)
    assert memory.closed == ["a"]
    assert pool.loaded() == [("b", 8)]
    assert memory.peak_bytes == 8


def test_threads_that_ask_together_share_one_load(pool: ModelPool, memory: Memory) -> None:
    go = threading.Event()
    together = threading.Barrier(8)

    def load() -> Model:
        assert go.wait(LONG_S)
        return Model(memory, "a", 6)

    def call() -> Model:
        # Waiting for the load is no waiting for memory: it does not count.
        with pool.get("a", load, bytes_needed=6, timeout_s=0) as model:
            together.wait(LONG_S)  # all eight use it at once
            return model

    with ThreadPoolExecutor(8) as threads:
        calls = [threads.submit(call) for _ in range(8)]
        assert pool.loaded() == []
        go.set()
        models = {id(done.result(LONG_S)) for done in calls}
    assert len(models) == 1
    assert memory.loads == ["a"]


def test_two_models_load_at_the_same_time(pool: ModelPool, memory: Memory) -> None:
    together = threading.Barrier(2)

    def call(name: str) -> None:
        def load() -> Model:
            together.wait(LONG_S)
            return Model(memory, name, 5)

        with pool.get(name, load, bytes_needed=5):
            pass

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(call, name) for name in "ab"]:
            done.result(LONG_S)
    assert sorted(memory.loads) == ["a", "b"]


def test_a_load_that_fails_leaves_nothing_behind(pool: ModelPool, memory: Memory) -> None:
    def load() -> Model:
        raise OSError("no such checkpoint")

    with pytest.raises(OSError, match="no such"), pool.get("a", load, bytes_needed=10):
        pass
    assert pool.loaded() == []
    use(pool, memory, "b", 10)  # the memory is free
    use(pool, memory, "a", 10)
    assert memory.loads == ["b", "a"]


def test_a_thread_that_waited_for_a_failing_load_tries_itself(
    pool: ModelPool, memory: Memory
) -> None:
    loading, go = threading.Event(), threading.Event()

    def fail() -> Model:
        loading.set()
        assert go.wait(LONG_S)
        raise OSError("no such checkpoint")

    def first() -> None:
        with pool.get("a", fail, bytes_needed=10):
            pass

    with ThreadPoolExecutor(2) as threads:
        failing = threads.submit(first)
        assert loading.wait(LONG_S)
        waiting = threads.submit(use, pool, memory, "a", 10)
        go.set()
        with pytest.raises(OSError, match="no such"):
            failing.result(LONG_S)
        waiting.result(LONG_S)
    assert memory.loads == ["a"]


def test_an_error_of_the_user_ends_the_lease(pool: ModelPool, memory: Memory) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        pool.get("a", memory.loader("a", 8), bytes_needed=8),
    ):
        raise ZeroDivisionError
    use(pool, memory, "b", 8)
    assert memory.closed == ["a"]


def test_unload_closes_an_idle_model(pool: ModelPool, memory: Memory) -> None:
    use(pool, memory, "a", 4)
    pool.unload("a")
    pool.unload("a")
    pool.unload("never seen")
    assert memory.closed == ["a"]
    assert pool.loaded() == []
    use(pool, memory, "a", 4)
    assert memory.loads == ["a", "a"]


def test_unload_waits_for_the_last_use(pool: ModelPool, memory: Memory) -> None:
    with ThreadPoolExecutor(1) as threads, ExitStack() as uses:
        first = uses.enter_context(pool.get("a", memory.loader("a", 4), bytes_needed=4))
        with pool.get("a", memory.loader("a", 4), bytes_needed=4) as second:
            assert second is first
            pool.unload("a")
        assert first.open
        # Who comes now must not get the model that goes.
        anew = threads.submit(use, pool, memory, "a", 4)
        with (
            pytest.raises(RerankError, match=r"still in use: a \(4\)"),
            pool.get("a", memory.loader("a", 4), bytes_needed=4, timeout_s=0.05),
        ):
            pass
        assert first.open
        assert not anew.done()
        uses.close()
        anew.result(LONG_S)
    assert memory.loads == ["a", "a"]
    assert memory.closed == ["a"]


@pytest.mark.parametrize("idle", [[], ["idle"]])
def test_close_ends_waiting_and_closes_after_the_last_use(idle: list[str], memory: Memory) -> None:
    pool = ModelPool(10)
    for name in idle:
        use(pool, memory, name, 2)
    with (
        ThreadPoolExecutor(1) as threads,
        pool.get("a", memory.loader("a", 8), bytes_needed=8) as model,
    ):
        waiting = threads.submit(use, pool, memory, "b", 9)
        pool.close()
        with pytest.raises(RerankError, match="cannot lend b: the pool of models is closed"):
            waiting.result(LONG_S)
        assert memory.closed == idle
        assert model.open
    assert memory.closed == [*idle, "a"]
    with pytest.raises(RerankError, match="closed"):
        use(pool, memory, "a", 8)
    pool.close()
    assert memory.bytes == 0


def test_a_model_that_is_loading_when_the_pool_closes_is_closed_after_its_use(
    memory: Memory,
) -> None:
    pool = ModelPool(10)
    loading, go = threading.Event(), threading.Event()

    def load() -> Model:
        loading.set()
        assert go.wait(LONG_S)
        return Model(memory, "a", 4)

    def call() -> bool:
        with pool.get("a", load, bytes_needed=4) as model:
            return model.open

    with ThreadPoolExecutor(1) as threads:
        lent = threads.submit(call)
        assert loading.wait(LONG_S)
        pool.close()
        go.set()
        assert lent.result(LONG_S)
    assert memory.closed == ["a"]


def test_a_load_waits_until_the_memory_it_takes_is_free(memory: Memory) -> None:
    """Even where another thread closes the model that had it."""
    pool = ModelPool(10)
    closing, go = threading.Event(), threading.Event()

    class Slow(Model):
        def close(self) -> None:
            closing.set()
            assert go.wait(LONG_S)
            super().close()

    with pool.get("slow", lambda: Slow(memory, "slow", 6), bytes_needed=6):
        pass
    with ThreadPoolExecutor(2) as threads:
        unloading = threads.submit(pool.unload, "slow")
        assert closing.wait(LONG_S)
        waiting = threads.submit(use, pool, memory, "b", 8)
        assert not waiting.done()
        go.set()
        unloading.result(LONG_S)
        waiting.result(LONG_S)
    assert memory.peak_bytes == 8


def test_a_model_that_fails_to_close_is_logged_and_gone(
    pool: ModelPool, memory: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    class Stuck(Model):
        def close(self) -> None:
            raise OSError("the device is lost")

    with pool.get("stuck", lambda: Stuck(memory, "stuck", 8), bytes_needed=8):
        pass
    with caplog.at_level(logging.WARNING):
        use(pool, memory, "b", 8)
    assert "stuck failed to close" in caplog.text
    assert "the device is lost" in caplog.text
    assert pool.loaded() == [("b", 8)]


def test_unusable_numbers_are_refused(pool: ModelPool, memory: Memory) -> None:
    with pytest.raises(InputError, match="max_bytes is 0"):
        ModelPool(0)
    with pytest.raises(InputError, match="bytes_needed of a is -1"):
        use(pool, memory, "a", -1)


def test_many_threads_never_exceed_the_limit(memory: Memory) -> None:
    pool = ModelPool(10)
    sizes = {"a": 3, "b": 4, "c": 5, "d": 10}
    names = "abcdacbd"

    def call(thread: int) -> None:
        for turn in range(40):
            name = names[(thread + turn * (thread + 1)) % len(names)]
            use(pool, memory, name, sizes[name])
            if (thread + turn) % 9 == 0:
                pool.unload(name)

    with pool, ThreadPoolExecutor(6) as threads:
        for done in [threads.submit(call, thread) for thread in range(6)]:
            done.result(LONG_S)
    assert memory.peak_bytes <= 10
    assert memory.bytes == 0
    assert sorted(memory.loads) == sorted(memory.closed)
    assert set(memory.loads) == set(sizes)
