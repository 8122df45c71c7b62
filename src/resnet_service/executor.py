"""The threads that do the work, apart from the event loop and from every other thread pool."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class InferenceExecutor:
    """A pool of exactly ``workers`` threads; runs any callable.

    AnyIO's shared pool would let 40 inferences fight over two cores, and starve everything else that uses it.
    """

    def __init__(self, workers: int) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="inference")

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """Run ``function(*args)`` in a thread of the pool; return what it returns, raise what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)

    def close(self) -> None:
        """Let what has begun finish, drop what has not, and end the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)
