"""The threads that do the work, apart from the event loop and from every other thread pool; and who may queue for them.

A permit is a place in the queue. It is taken before anything is done for a request, and it comes back when the thread
is done: a caller that went away does not make a CPU free.
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from types import TracebackType
from typing import Self, TypeVar

from resnet_service.errors import DeadlineExceeded, Overloaded

T = TypeVar("T")

# Of the moving average of the time per piece of work: the last ten or so count.
_WEIGHT = 0.1
# How long a thread may stand still for the others in ``run_on_each``: they may be at an image that takes long.
_TOGETHER_SECONDS = 2.0


class InferenceExecutor:
    """A pool of exactly ``threads`` threads, and at most ``slots`` permits, by default as many; runs any callable.

    AnyIO's shared pool would let 40 inferences fight over two cores, and starve everything else that uses it.
    """

    def __init__(self, threads: int, slots: int | None = None) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="inference")
        self._threads = threads
        self._slots = threads if slots is None else slots
        self._lock = threading.Lock()
        self._held = 0
        self._running = 0
        self._mean_seconds = 0.0

    @property
    def threads(self) -> int:
        """Pieces of work that can be at once."""
        return self._threads

    @property
    def running(self) -> int:
        """Pieces of work that a thread is at."""
        return self._running

    @property
    def waiting(self) -> int:
        """Permits that no thread is at: their work is queued, or they still receive what to work on."""
        return max(0, self._held - self._running)

    def admit(self) -> "Permit":
        """Take a place, at once or not at all.

        Raises:
            Overloaded: All are taken; ``retry_after`` says in how many seconds the queue of now will be worked off.

        """
        with self._lock:
            if self._held < self._slots:
                self._held += 1
                return Permit(self)
            seconds = max(1, math.ceil(self._held * self._mean_seconds / self._threads))
        raise Overloaded(f"The service is busy. Try again in {seconds} s.", retry_after=seconds)

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """Run ``function(*args)`` for the service itself, which needs no permit; return or raise what it does."""
        return await asyncio.wrap_future(self._pool.submit(function, *args))

    async def run_on_each(self, function: Callable[[], object]) -> None:
        """Run ``function()`` once in every thread of the pool, behind what is queued there; raise what it raises.

        Which thread takes which piece of work is not to be chosen. So a thread that has done its one waits until the
        others have begun theirs, lest it take them; not for ever, since one of them may be stuck.
        """
        together = threading.Event()
        to_begin = self._threads

        def once() -> None:
            nonlocal to_begin
            with self._lock:
                to_begin -= 1
                if to_begin == 0:
                    together.set()
            function()
            together.wait(_TOGETHER_SECONDS)

        await asyncio.gather(*(self.run(once) for _ in range(self._threads)))

    def close(self) -> None:
        """Let what has begun finish, drop what has not, and end the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, permit: "Permit", function: Callable[..., T], *args: object) -> Future[T]:
        """Queue a permit's work, which returns the place when it ends or is dropped."""
        # In a copy of the caller's context, so that what is logged in the thread is the request's.
        work = self._pool.submit(copy_context().run, self._timed, function, *args)
        # Called by the thread that finishes the work, or by who cancels it before it begins; never by both.
        work.add_done_callback(lambda _: self._done(permit))
        return work

    def _done(self, permit: "Permit") -> None:
        """Return a place whose work is done: to its permit, which may have more, or to whoever comes."""
        with self._lock:
            permit._mine = permit._kept
            self._held -= not permit._kept

    def _leave(self, permit: "Permit") -> None:
        """Take a permit's place back now, or when its work is done."""
        with self._lock:
            permit._kept = False
            self._held -= permit._mine
            permit._mine = False

    def _timed(self, function: Callable[..., T], *args: object) -> T:
        begun = time.monotonic()
        with self._lock:
            self._running += 1
        try:
            return function(*args)
        finally:
            seconds = time.monotonic() - begun
            with self._lock:
                self._running -= 1
                known = self._mean_seconds or seconds
                self._mean_seconds = known + (seconds - known) * _WEIGHT


class Permit:
    """One place in the queue, for one piece of work at a time; use it in a ``with`` block, so that it comes back.

    ``waited`` is how many seconds the last piece waited for a thread; ``None`` while no thread has begun with it.
    """

    def __init__(self, executor: InferenceExecutor) -> None:
        self._executor = executor
        self.waited: float | None = None
        self._mine = True  # to give back; while work is queued, it is the work that returns it
        self._kept = False  # for another piece of work, when the one that is queued is done

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Give the place back, unless the work that was queued with it still has it."""
        self._executor._leave(self)

    async def run(self, function: Callable[..., T], *args: object, deadline: float, keep: bool = False) -> T:
        """Run ``function(*args)`` in a thread of the pool; return what it returns, raise what it raises.

        Where the caller is cancelled or the deadline passes, work that has not begun never will. Work that has begun
        goes on, since a thread cannot be stopped, and keeps its place until it ends.

        Args:
            function: Anything that can be called in a thread.
            args: Its arguments.
            deadline: Seconds to wait for the result, the time in the queue included.
            keep: Keep the place for another piece of work, which then queues behind all that has come meanwhile.

        Raises:
            DeadlineExceeded: There was no result in time.

        """
        if not self._mine:
            raise RuntimeError("a permit is for one piece of work")
        queued = time.perf_counter()

        def begin() -> T:
            self.waited = time.perf_counter() - queued
            return function(*args)

        self._mine, self._kept = False, keep
        work = self._executor._submit(self, begin)
        try:
            async with asyncio.timeout(deadline) as limit:
                return await asyncio.wrap_future(work)
        except TimeoutError:
            if not limit.expired():  # the work's own
                raise
            raise DeadlineExceeded(f"There was no answer within {deadline:g} s. Try again later.") from None
