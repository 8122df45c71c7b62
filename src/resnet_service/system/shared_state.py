"""What the processes of one service share: counts, budgets of bytes, and what each tells the others of itself."""

import json
import os
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Self

from resnet_service.system.shared_memory import SharedLock, SharedTable

# Label values are bounded by routes, statuses and error codes; memory that no metric uses is never touched.
_METRIC_COLUMNS = 1 << 16
# The first columns are gauges, which end with their process.
GAUGES = 3
# A process whose event loop has been silent for longer is passed over when connections are shared out.
_RESPONSIVE_SECONDS = 0.5


class Column(IntEnum):
    """Columns of the table of processes."""

    PID = 0
    HEARTBEAT = 1  # monotonic seconds, written by the event loop; 0 before it runs
    CONNECTIONS = 2
    READY = 3
    DEAD_CPU = 4  # seconds of CPU that earlier processes of this row have used
    STARTED = 5  # the supervisor's row: 1 when all processes have been ready once
    DRAINING = 6  # the supervisor's row: 1 from the signal to end
    RESTARTS = 7  # the supervisor's row
    BEGUN = 8  # the supervisor's row: seconds since the epoch


class SharedDescriptors(NamedTuple):
    """SharedDescriptors by which a started process opens what it shares."""

    processes: int
    metrics: int
    keys: int
    bodies: int
    decoding: int
    log: int


@dataclass
class SharedState:
    """The shared memory, as one process sees it.

    Of several processes, ``serving`` serve at a time. Tables have one more row, so that a process can be started before
    the one that it replaces ends. The table of processes has one more still, the supervisor's.
    ``bodies`` and ``decoding`` are tables for ``SharedBudget``; of ``log``, only the lock is used.
    """

    serving: int
    index: int
    processes: SharedTable
    metrics: SharedTable
    keys: "SharedKeys"
    bodies: SharedTable
    decoding: SharedTable
    log: SharedTable

    @classmethod
    def open(cls, serving: int, index: int, descriptors: SharedDescriptors | None = None) -> Self:
        """Create the memory, or open what another process has created."""
        given = descriptors or (None,) * len(SharedDescriptors._fields)
        processes, metrics, keys, bodies, decoding, log = given
        rows = serving + 1
        state = cls(
            serving,
            index,
            SharedTable(rows + 1, len(Column), processes),
            SharedTable(rows, _METRIC_COLUMNS, metrics),
            SharedKeys(keys),
            SharedTable(rows, 1, bodies),
            SharedTable(rows, 1, decoding),
            SharedTable(1, 1, log),
        )
        if descriptors is None:
            state.supervisor[Column.BEGUN] = time.time()
        return state

    @classmethod
    def local(cls) -> Self:
        """Return the state of a service of one process."""
        state = cls.open(1, 0)
        state.own[Column.PID] = os.getpid()
        state.supervisor[Column.STARTED] = 1
        return state

    @property
    def descriptors(self) -> SharedDescriptors:
        """What another process needs for ``open``."""
        tables = (self.processes, self.metrics, self.keys, self.bodies, self.decoding, self.log)
        return SharedDescriptors(*(table.descriptor for table in tables))

    @property
    def rows(self) -> int:
        """Number of rows for processes that serve; the supervisor's follows."""
        return self.serving + 1

    @property
    def own(self) -> "memoryview[float]":
        """This process's row of the table of processes."""
        return self.processes.row(self.index)

    @property
    def supervisor(self) -> "memoryview[float]":
        """The supervisor's row of the table of processes."""
        return self.processes.row(self.rows)

    def tell(self, *, ready: bool) -> None:
        """Tell the others that this process's event loop runs, and whether it is ready."""
        self.own[Column.READY] = ready
        self.own[Column.HEARTBEAT] = time.monotonic()

    @property
    def ready(self) -> bool:
        """Whether the service is: all were ready once, it does not end, and at most one process is not ready now."""
        if not self.supervisor[Column.STARTED] or self.supervisor[Column.DRAINING]:
            return False
        return self.processes.sum(Column.READY) >= max(1, self.serving - 1)

    def may_accept(self) -> bool:
        """Return whether no other responsive process has fewer open connections than this one."""
        own, now = self.own[Column.CONNECTIONS], time.monotonic()
        return not any(
            row[Column.CONNECTIONS] < own and now - row[Column.HEARTBEAT] < _RESPONSIVE_SECONDS
            for row in map(self.processes.row, range(self.rows))
        )

    def release(self, index: int) -> None:
        """Give back what a process held that has ended; its counters stay.

        Nobody else writes the row, so that needs no lock, which a process that hangs might hold.
        """
        for table in (self.bodies, self.decoding):
            table.row(index)[0] = 0
        for column in range(GAUGES):
            self.metrics.row(index)[column] = 0

    def pids(self) -> list[int]:
        """Return the processes that live, the supervisor included."""
        return [int(pid) for index in range(self.rows + 1) if (pid := self.processes.row(index)[Column.PID])]


class SharedKeys:
    """An append-only list of keys, each with a range of columns that all processes use for it."""

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = os.memfd_create("resnet-service-keys") if descriptor is None else descriptor
        weakref.finalize(self, os.close, self.descriptor)
        self._lock = SharedLock(self.descriptor)
        self._read = 0  # bytes
        self._columns: dict[tuple[str, ...], int] = {}
        self._next = 0

    def columns(self, key: tuple[str, ...], width: int) -> int:
        """Return the first of ``width`` columns of ``key``; they are its own from the first call on."""
        if key not in self._columns:
            with self._lock:
                self._update()
                if key not in self._columns:
                    # A process that died while it wrote has left half a line, which this overwrites.
                    os.ftruncate(self.descriptor, self._read)
                    os.pwrite(self.descriptor, f"{json.dumps([width, *key])}\n".encode(), self._read)
                    self._update()
        return self._columns[key]

    def __iter__(self) -> Iterator[tuple[tuple[str, ...], int]]:
        """Iterate over keys and their first columns, those of other processes included."""
        self._update()
        return iter(list(self._columns.items()))

    def _update(self) -> None:
        size = os.fstat(self.descriptor).st_size
        text = os.pread(self.descriptor, size - self._read, self._read)
        whole = text[: text.rfind(b"\n") + 1]
        for line in whole.splitlines():
            width, *key = json.loads(line)
            self._columns[tuple(key)] = self._next
            self._next += width
        self._read += len(whole)
