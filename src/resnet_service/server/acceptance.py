"""Connections: accepted many at a time, and shared evenly among the processes that listen on one socket."""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

from resnet_service.errors import OutOfResources
from resnet_service.observability.metrics import Metrics
from resnet_service.system.resources import is_exhaustion
from resnet_service.system.shared_state import Column, SharedState

log = logging.getLogger("resnet_service")

_BACKLOG = 2048
# Connections accepted in one turn of the event loop. Uvloop's servers accept one, so that a new connection waits for as
# many turns as there are others before it.
_AT_ONCE = 100
# A process with more connections than another leaves new ones to that one for so long, and looks again so often.
_PATIENCE_SECONDS = 0.02
_LOOK_SECONDS = 0.002
# After an error such as too many open files, it does not accept for so long, and logs the next one after so long.
_PAUSE_SECONDS = 0.1
_LOG_SECONDS = 60.0


class CountedConnections(set[Any]):
    """Uvicorn's set of open connections; it tells the other processes how many there are."""

    def __init__(self, shared: SharedState) -> None:
        super().__init__()
        self._row = shared.own

    def add(self, connection: Any) -> None:
        """Add a connection."""
        super().add(connection)
        self._row[Column.CONNECTIONS] = len(self)

    def discard(self, connection: Any) -> None:
        """Remove a connection, if it is there."""
        super().discard(connection)
        self._row[Column.CONNECTIONS] = len(self)


class Acceptor:
    """Accepts connections while no other responsive process has fewer.

    Otherwise it leaves them to the others for a moment, and then takes one all the same: a process that is busy or
    hangs delays a connection, and cannot keep it out.

    Args:
        listener: A bound socket.
        make_protocol: Returns the protocol of a new connection.
        metrics: Counts the failures to accept one.
        shared: What the processes tell each other; ``None`` if there is one process.

    """

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
        metrics: Metrics,
        shared: SharedState | None = None,
    ) -> None:
        self._listener, self._make_protocol, self._metrics, self._shared = listener, make_protocol, metrics, shared
        self._loop = asyncio.get_running_loop()
        self._left_until: float | None = None
        self._silent_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._starting: set[asyncio.Task[Any]] = set()
        listener.setblocking(False)
        # The first process that is ready opens the port: load balancers that only connect take an open one for ready.
        listener.listen(_BACKLOG)
        self._loop.add_reader(listener.fileno(), self._accept)

    async def close(self) -> None:
        """Stop listening, in this process, and return when all accepted connections have their protocol."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        await asyncio.gather(*self._starting, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            if self._leaves_to_others():
                self._pause(_LOOK_SECONDS)
                return
            try:
                accepted, _ = self._listener.accept()
            except BlockingIOError:  # none, or another process has it
                return
            except OSError as error:
                if is_exhaustion(error):
                    self._failed(error)
                    return
                continue  # the error of one connection: accept(2)
            accepted.setblocking(False)
            if self._shared is not None:
                # Counted at once; the set counts it again, as the same one, when the protocol has it.
                self._shared.own[Column.CONNECTIONS] += 1
            task = self._loop.create_task(self._loop.connect_accepted_socket(self._make_protocol, accepted))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    def _leaves_to_others(self) -> bool:
        """Return whether another process should take the next connection."""
        if self._shared is None or self._shared.may_accept():
            self._left_until = None
            return False
        now = self._loop.time()
        if self._left_until is None or now > self._left_until + _PATIENCE_SECONDS:
            self._left_until = now + _PATIENCE_SECONDS
        if now < self._left_until:
            return True
        self._left_until = None
        return False

    def _failed(self, error: OSError) -> None:
        """Say so, and wait: connections stay with the kernel, which would wake the event loop again at once."""
        self._metrics.failed(OutOfResources.code)
        now = self._loop.time()
        if now >= self._silent_until:
            self._silent_until = now + _LOG_SECONDS
            log.error("Connections cannot be accepted: %s. Trying again.", error.strerror)
        self._pause(_PAUSE_SECONDS)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._timer = self._loop.call_later(
            seconds, lambda: self._loop.add_reader(self._listener.fileno(), self._accept)
        )
