"""The thread pool that runs inferences, and its bounded queue.

A permit is a slot in the queue. A request acquires one before any work is done for it. The slot is released when the
thread has finished, not when the client disconnects: until then the CPU is still occupied.
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
from resnet_service.inference.deadline import set_deadline

T = TypeVar("T")

# Weight of the latest task in the moving average of seconds a task: about the last ten count.
_WEIGHT = 0.1
# How long a thread waits for the others in ``run_on_each``; another thread may be busy with a slow image.
_BARRIER_SECONDS = 2.0


class InferenceExecutor:
    """A pool of ``threads`` threads that runs any callable, with at most ``slots`` permits (by default, ``threads``).

    In AnyIO's shared pool, 40 inferences would compete for two CPUs and starve everything else that uses the pool.
    """

    def __init__(self, threads: int, slots: int | None = None) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="inference")
        self._threads = threads
        self._slots = threads if slots is None else slots
        self._lock = threading.Lock()
        self._held = 0
        self._running = 0
        self._begun: dict[object, float] = {}  # when each running task began, the service's own included
        self._mean_seconds = 0.0

    @property
    def threads(self) -> int:
        """Number of tasks that can run at once."""
        return self._threads

    @property
    def running(self) -> int:
        """Number of tasks that run now."""
        return self._running

    @property
    def longest_seconds(self) -> float:
        """Seconds since the oldest running task began; 0 if none runs."""
        with self._lock:
            return time.monotonic() - min(self._begun.values()) if self._begun else 0.0

    @property
    def waiting(self) -> int:
        """Number of permits without a running task: the task is queued, or the request body is still arriving."""
        return max(0, self._held - self._running)

    def admit(self) -> "Permit":
        """Take a slot without waiting.

        Raises:
            Overloaded: The queue is full; ``retry_after`` estimates the seconds until its current tasks are done.

        """
        with self._lock:
            if self._held < self._slots:
                self._held += 1
                return Permit(self)
            seconds = max(1, math.ceil(self._held * self._mean_seconds / self._threads))
        raise Overloaded(f"The request queue is full. Try again in {seconds} s.", retry_after=seconds)

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """Run ``function(*args)`` for the service itself, without a permit; return or raise what it does."""
        return await asyncio.wrap_future(self._pool.submit(self._tracked, function, *args))

    async def run_on_each(self, function: Callable[[], object]) -> None:
        """Run ``function()`` once in every thread of the pool, after the queued tasks; raise what it raises.

        The pool chooses the thread of each task. So a thread that has run ``function`` waits until every thread has
        started it, and cannot take a second call. The wait is bounded, since a thread may be stuck.
        """
        all_started = threading.Event()
        remaining = self._threads

        def once() -> None:
            nonlocal remaining
            with self._lock:
                remaining -= 1
                if remaining == 0:
                    all_started.set()
            function()
            all_started.wait(_BARRIER_SECONDS)

        await asyncio.gather(*(self.run(once) for _ in range(self._threads)))

    def close(self, seconds: float = 5.0) -> bool:
        """Drop the queued tasks, and wait for the running ones for at most ``seconds``; return whether all ended."""
        # The pool's own wait has no limit.
        closing = threading.Thread(
            target=self._pool.shutdown, kwargs={"wait": True, "cancel_futures": True}, name="closing", daemon=True
        )
        closing.start()
        closing.join(seconds)
        return not closing.is_alive()

    def _submit(self, permit: "Permit", function: Callable[..., T], *args: object) -> Future[T]:
        """Queue a permit's task, which releases the slot when it ends or is cancelled."""
        # In a copy of the caller's context, so that log lines of the thread have the request's ID.
        task = self._pool.submit(copy_context().run, self._timed, function, *args)
        # Called exactly once: by the thread that finishes the task, or by its cancellation before it starts.
        task.add_done_callback(lambda _: self._task_done(permit))
        return task

    def _task_done(self, permit: "Permit") -> None:
        """After a task, return its slot to the permit if the permit keeps it; otherwise release the slot."""
        with self._lock:
            permit._holds_slot = permit._keeps_slot
            self._held -= not permit._keeps_slot

    def _release(self, permit: "Permit") -> None:
        """Release a permit's slot now, or when its task is done."""
        with self._lock:
            permit._keeps_slot = False
            self._held -= permit._holds_slot
            permit._holds_slot = False

    def _tracked(self, function: Callable[..., T], *args: object) -> T:
        """Call ``function(*args)``, and count it as running meanwhile."""
        task = object()
        with self._lock:
            self._begun[task] = time.monotonic()
        try:
            return function(*args)
        finally:
            with self._lock:
                del self._begun[task]

    def _timed(self, function: Callable[..., T], *args: object) -> T:
        begun = time.monotonic()
        with self._lock:
            self._running += 1
        try:
            return self._tracked(function, *args)
        finally:
            seconds = time.monotonic() - begun
            with self._lock:
                self._running -= 1
                mean = self._mean_seconds or seconds
                self._mean_seconds = mean + (seconds - mean) * _WEIGHT


class Permit:
    """A slot in the queue, for one task at a time; use it in a ``with`` block, which releases it.

    ``waited`` is how many seconds the last task waited for a thread; ``None`` until a thread has started one.
    """

    def __init__(self, executor: InferenceExecutor) -> None:
        self._executor = executor
        self.waited: float | None = None
        self._holds_slot = True  # False while a task has the slot, and after its release
        self._keeps_slot = False  # whether the slot comes back after the task

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Release the slot now, or when its task is done."""
        self._executor._release(self)

    async def run(self, function: Callable[..., T], *args: object, deadline: float, keep: bool = False) -> T:
        """Run ``function(*args)`` in a thread of the pool; return what it returns, raise what it raises.

        If the caller is cancelled or the deadline passes, a queued task never starts. A running task continues, since a
        thread cannot be stopped, and keeps its slot until it ends.

        Args:
            function: A callable that is safe to run in a thread.
            args: Its arguments.
            deadline: Seconds to wait for the result, the time in the queue included.
            keep: Keep the slot for another task, which then queues behind all tasks that came in between.

        Raises:
            DeadlineExceeded: There was no result in time.

        """
        if not self._holds_slot:
            raise RuntimeError("a permit is for one task at a time")
        queued = time.monotonic()
        end = queued + deadline

        def begin() -> T:
            self.waited = time.monotonic() - queued
            set_deadline(end)
            return function(*args)

        self._holds_slot, self._keeps_slot = False, keep
        task = self._executor._submit(self, begin)
        try:
            async with asyncio.timeout(deadline) as limit:
                return await asyncio.wrap_future(task)
        except TimeoutError:
            if not limit.expired():  # the function itself raised it
                raise
            raise DeadlineExceeded(f"There was no answer within {deadline:g} s. Try again later.") from None
