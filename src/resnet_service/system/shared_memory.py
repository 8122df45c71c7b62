"""Numbers that several processes of one service share, in memory alone: no file system has to be writable."""

import fcntl
import mmap
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

_NUMBER_BYTES = 8


class SharedTable:
    """A table of float64 numbers, all 0 at first; each process has a row of its own.

    A process changes its own row without a lock, since nobody else writes there, and reads all rows at any time: an
    aligned number of eight bytes is read and written whole. What depends on several rows is done with ``lock`` held.

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
        self.lock = SharedLock(self.descriptor)

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


class SharedLock:
    """Excludes all other threads and processes that lock the same file; a process that dies releases it.

    The lock belongs to an open file description of its own. Record locks (``lockf``) belong to a process, and where
    threads of two processes wait for two of them, the kernel takes for a deadlock what is none (EDEADLK).
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        self._threads = threading.Lock()

    def __enter__(self) -> None:
        """Wait for the lock."""
        self._threads.acquire()
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        except BaseException:
            self._threads.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Release the lock."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self._threads.release()

    @contextmanager
    def attempted(self) -> Iterator[bool]:
        """Hold the lock while the block runs, if it is free now; yield whether it was."""
        locked = self._threads.acquire(blocking=False)
        try:
            if locked:
                try:
                    fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    self._threads.release()
                    locked = False
            yield locked
        finally:
            if locked:
                self.__exit__(None, None, None)
