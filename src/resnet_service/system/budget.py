"""A budget of bytes that all processes of a service share."""

import time

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

    @property
    def used(self) -> int:
        """Bytes that all processes hold now."""
        return int(self._table.sum(0))

    def try_acquire(self, size: int) -> bool:
        """Take ``size`` bytes, or none if they are not free."""
        with self._table.lock():
            if self.used + size > self.limit:
                return False
            self._held[0] += size
            return True

    def acquire(self, size: int, seconds: float) -> bool:
        """Take ``size`` bytes; wait for them at most ``seconds``, and return whether they were free in time.

        Blocks the calling thread. ``size`` must not exceed ``limit``.
        """
        end = time.monotonic() + seconds
        while not self.try_acquire(size):
            if time.monotonic() >= end:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def release(self, size: int) -> None:
        """Give ``size`` bytes back that this process holds."""
        with self._table.lock():
            self._held[0] -= size
