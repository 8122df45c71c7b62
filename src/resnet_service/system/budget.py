"""A budget of bytes that all processes of a service share."""

import errno
import fcntl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from resnet_service.system.shared_memory import SharedTable

# A waiting thread looks this often whether bytes have been released: another process cannot wake it.
_POLL_SECONDS = 0.005


class SharedBudget:
    """At most ``limit`` bytes in use at once, over all processes together. Thread-safe.

    Args:
        limit: The bytes in all.
        table: One column; by default, this process shares the budget with no other.
        row: This process's row. What a process held that has died comes back when its row is set to 0.

    """

    def __init__(self, limit: int, table: SharedTable | None = None, row: int = 0) -> None:
        self.limit = limit
        self._table = table or SharedTable.local(1)
        self._held = self._table.row(row)
        self._turn = threading.Lock()

    @property
    def used(self) -> int:
        """Bytes that all processes hold now."""
        return int(self._table.sum(0))

    def try_acquire(self, size: int) -> bool:
        """Take ``size`` bytes, or none if they are not free."""
        with self._table.lock:
            if self.used + size > self.limit:
                return False
            self._held[0] += size
            return True

    def acquire(self, size: int, seconds: float) -> bool:
        """Take ``size`` bytes; wait for them at most ``seconds``, and return whether they were free in time.

        Blocks the calling thread. Calls are served in order, so that a large size is
        not starved by small ones. ``size`` must not exceed ``limit``.
        """
        end = time.monotonic() + seconds
        if not self._turn.acquire(timeout=max(0, min(seconds, threading.TIMEOUT_MAX))):
            return False
        try:
            with self._turn_among_processes(end) as got:
                return got and _poll(lambda: self.try_acquire(size), end)
        finally:
            self._turn.release()

    @contextmanager
    def _turn_among_processes(self, end: float) -> Iterator[bool]:
        """Hold the turn, if it comes before ``end``; a process that dies gives it up."""
        got = _poll(self._try_turn, end)
        try:
            yield got
        finally:
            if got:
                fcntl.lockf(self._table.descriptor, fcntl.LOCK_UN)

    def _try_turn(self) -> bool:
        # A record lock, which ``SharedTable.lock`` of the same file does not meet. It is never waited for.
        try:
            fcntl.lockf(self._table.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        return True

    def release(self, size: int) -> None:
        """Give ``size`` bytes back that this process holds."""
        with self._table.lock:
            self._held[0] -= size


def _poll(condition: Callable[[], bool], end: float) -> bool:
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(_POLL_SECONDS)
    return True
