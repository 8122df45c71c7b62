import asyncio
import threading

import pytest

from resnet_service.executor import InferenceExecutor


def test_as_many_at_once_as_there_are_workers_and_no_more() -> None:
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


def test_what_is_raised_arrives() -> None:
    async def main() -> None:
        executor = InferenceExecutor(1)
        try:
            await executor.run(int, "x")
        finally:
            executor.close()

    with pytest.raises(ValueError, match="invalid literal"):
        asyncio.run(main())


def test_close_ends_the_threads() -> None:
    async def main() -> None:
        executor = InferenceExecutor(3)
        await asyncio.gather(*(executor.run(str, number) for number in range(3)))
        executor.close()

    asyncio.run(main())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("inference")]
