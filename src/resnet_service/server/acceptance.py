"""Connections, shared evenly among the processes that listen on one socket."""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

from resnet_service.system.shared_state import Column, SharedState

log = logging.getLogger("resnet_service")

# A process with more connections than another leaves new ones to that one for so long, and looks again so often.
_PATIENCE_SECONDS = 0.02
_LOOK_SECONDS = 0.002
# After an error such as too many open files, it does not accept for so long.
_PAUSE_SECONDS = 0.1

_BACKLOG = 2048


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
    """

    def __init__(
        self, listener: socket.socket, make_protocol: Callable[[], asyncio.Protocol], shared: SharedState
    ) -> None:
        self._listener, self._make_protocol, self._shared = listener, make_protocol, shared
        self._loop = asyncio.get_running_loop()
        self._left_until: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._starting: set[asyncio.Task[Any]] = set()
        listener.setblocking(False)
        # The first process that is ready opens the port: load balancers that only connect take an open one for ready.
        listener.listen(_BACKLOG)
        self._loop.add_reader(listener.fileno(), self._accept)

    def close(self) -> None:
        """Stop listening, in this process."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()

    def _accept(self) -> None:
        if not self._shared.may_accept():
            now = self._loop.time()
            if self._left_until is None or now > self._left_until + _PATIENCE_SECONDS:
                self._left_until = now + _PATIENCE_SECONDS
            if now < self._left_until:
                self._pause(_LOOK_SECONDS)
                return
        self._left_until = None
        try:
            accepted, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):  # another process has taken it
            return
        except OSError as error:
            log.error("Connections cannot be accepted: %s", error.strerror)
            self._pause(_PAUSE_SECONDS)
            return
        accepted.setblocking(False)
        # Counted at once; the set counts it again, as the same one, when the protocol has it.
        self._shared.own[Column.CONNECTIONS] += 1
        task = self._loop.create_task(self._loop.connect_accepted_socket(self._make_protocol, accepted))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._timer = self._loop.call_later(
            seconds, lambda: self._loop.add_reader(self._listener.fileno(), self._accept)
        )
