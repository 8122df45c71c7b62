"""Numbers that several processes of one service share, in memory alone: no file system has to be writable."""

import fcntl
import mmap
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Self

_NUMBER_BYTES = 8


class SharedTable:
    """A table of float64 numbers, all 0 at first; each process has a row of its own.

    A process changes its own row without a lock, since nobody else writes there, and reads all rows at any time: an
    aligned number of eight bytes is read and written whole. What depends on several rows is done within ``lock``.

    The memory outlives a process that dies, so its row keeps what it has counted. A child process that runs a new
    program opens the table by its inherited ``descriptor``.
    """

    def __init__(self, rows: int, columns: int, descriptor: int | None = None) -> None:
        self.rows, self.columns = rows, columns
        self.descriptor = os.memfd_create("resnet-service") if descriptor is None else descriptor
        size = rows * columns * _NUMBER_BYTES
        if descriptor is None:
            os.ftruncate(self.descriptor, size)
        weakref.finalize(self, os.close, self.descriptor)
        self._numbers = memoryview(mmap.mmap(self.descriptor, size)).cast("d")
        self._thread_lock = threading.Lock()

    @classmethod
    def local(cls, columns: int) -> Self:
        """Return a table of one row, for a service of one process."""
        return cls(1, columns)

    def row(self, index: int) -> "memoryview[float]":
        """Return the numbers of one row, float64 [columns], to read and to change."""
        begin = index * self.columns
        return self._numbers[begin : begin + self.columns]

    def sum(self, column: int) -> float:
        """Return the sum of one column over all rows."""
        return sum(self._numbers[column :: self.columns])

    def lock(self) -> AbstractContextManager[None]:
        """Exclude all other threads and processes while the block runs; a process that dies releases the lock."""
        return locked(self.descriptor, self._thread_lock)


@contextmanager
def locked(descriptor: int, threads: threading.Lock) -> Iterator[None]:
    """Exclude all other threads and processes that lock the same descriptor while the block runs."""
    # Only the first byte; ``system.budget`` locks the second.
    with threads:  # a record lock excludes processes, but not the threads of one
        fcntl.lockf(descriptor, fcntl.LOCK_EX, 1)
        try:
            yield
        finally:
            fcntl.lockf(descriptor, fcntl.LOCK_UN, 1)
