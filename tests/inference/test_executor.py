import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from resnet_service.errors import DeadlineExceeded, Overloaded
from resnet_service.inference.deadline import remaining_seconds
from resnet_service.inference.executor import InferenceExecutor


def test_as_many_at_once_as_there_are_threads_and_no_more() -> None:
    running, most = 0, 0
    lock = threading.Lock()
    together = threading.Barrier(2, timeout=10)

    def work(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait()
        with lock:
            running -= 1
        return number

    async def main() -> list[int]:
        executor = InferenceExecutor(2)
        try:
            return list(await asyncio.gather(*(executor.run(work, number) for number in range(8))))
        finally:
            executor.close()

    assert asyncio.run(main()) == list(range(8))
    assert most == 2


def test_a_thread_knows_how_long_its_request_may_take() -> None:
    async def main() -> tuple[float, float]:
        executor = InferenceExecutor(1)
        try:
            with executor.admit() as permit:
                return await permit.run(remaining_seconds, deadline=5), await executor.run(remaining_seconds)
        finally:
            executor.close()

    of_request, of_service = asyncio.run(main())
    assert 4 < of_request <= 5
    assert of_service == math.inf


def test_what_is_raised_arrives() -> None:
    async def main() -> None:
        executor = InferenceExecutor(1)
        try:
            await executor.run(int, "x")
        finally:
            executor.close()

    with pytest.raises(ValueError, match="invalid literal"):
        asyncio.run(main())


def test_each_thread_runs_it_once_even_where_one_is_late() -> None:
    ran: list[str] = []

    async def main() -> None:
        with held_up(threads=4) as (executor, gate):
            late = asyncio.create_task(executor.run(gate.wait))
            await asyncio.sleep(0)
            each = asyncio.create_task(executor.run_on_each(lambda: ran.append(threading.current_thread().name)))
            await until(lambda: len(ran) == 3)
            await asyncio.sleep(0.1)
            assert len(ran) == 3
            gate.set()
            await asyncio.gather(late, each)

    asyncio.run(main())
    assert len(ran) == len(set(ran)) == 4


def test_a_stuck_thread_does_not_hold_up_the_others_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnet_service.inference.executor._BARRIER_SECONDS", 0.1)

    async def main() -> None:
        with held_up(threads=2) as (executor, gate):
            stuck = asyncio.create_task(executor.run(gate.wait))
            await asyncio.sleep(0)
            await asyncio.wait_for(executor.run_on_each(lambda: None), 10)
            gate.set()
            await stuck

    asyncio.run(main())


def test_close_ends_the_threads() -> None:
    async def main() -> None:
        executor = InferenceExecutor(3)
        await asyncio.gather(*(executor.run(str, number) for number in range(3)))
        executor.close()

    asyncio.run(main())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("inference")]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@contextmanager
def held_up(threads: int = 1, slots: int | None = None) -> Iterator[tuple[InferenceExecutor, threading.Event]]:
    """Yield an executor, and the gate that the tests' tasks wait for."""
    executor, gate = InferenceExecutor(threads, slots), threading.Event()
    try:
        yield executor, gate
    finally:
        gate.set()
        executor.close()


def test_there_are_as_many_slots_as_configured() -> None:
    with held_up(threads=2, slots=5) as (executor, _):
        permits = [executor.admit() for _ in range(5)]
        with pytest.raises(Overloaded):
            executor.admit()
        permits[0].release()
        permits[0].release()  # once is enough
        executor.admit()
        with pytest.raises(Overloaded):
            executor.admit()


def test_retry_after_is_the_time_to_work_off_the_queue() -> None:
    async def main() -> int:
        with held_up(threads=2, slots=20) as (executor, _):
            with executor.admit() as permit:
                await permit.run(time.sleep, 0.3, deadline=10)
            for _ in range(20):
                executor.admit()
            with pytest.raises(Overloaded) as refused:
                executor.admit()
            return refused.value.retry_after

    assert asyncio.run(main()) == 4  # 20 slots x a little more than 0.3 s / 2 threads, rounded up


def test_a_slot_is_released_when_the_thread_is_done_not_when_the_caller_left() -> None:
    async def main() -> None:
        with held_up() as (executor, gate):
            with executor.admit() as permit:
                caller = asyncio.create_task(permit.run(gate.wait, deadline=10))
                await until(lambda: executor.running == 1)
                caller.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await caller
            with pytest.raises(Overloaded):
                executor.admit()
            gate.set()
            await until(lambda: executor.running == 0)
            await until(lambda: executor.waiting == 0)
            executor.admit()

    asyncio.run(main())


@pytest.mark.parametrize("ending", ["deadline", "departure"])
def test_abandoned_work_never_starts(ending: str) -> None:
    begun: list[str] = []

    async def main() -> None:
        with held_up(slots=2) as (executor, gate):
            first = asyncio.create_task(executor.admit().run(gate.wait, deadline=10))
            await until(lambda: executor.running == 1)
            second = asyncio.create_task(
                executor.admit().run(begun.append, "x", deadline=0.05 if ending == "deadline" else 10)
            )
            await asyncio.sleep(0)
            if ending == "departure":
                second.cancel()
            with pytest.raises(DeadlineExceeded if ending == "deadline" else asyncio.CancelledError):
                await asyncio.wait_for(second, 10)
            assert executor.waiting == 0
            gate.set()
            await first

    asyncio.run(main())
    assert begun == []


def test_a_timeout_of_the_work_is_not_the_deadline() -> None:
    def work() -> None:
        raise TimeoutError("its own")

    async def main() -> None:
        with held_up() as (executor, _):
            await executor.admit().run(work, deadline=10)

    with pytest.raises(TimeoutError, match="its own"):
        asyncio.run(main())
