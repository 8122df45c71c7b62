"""The server of one process of several, which obeys its supervisor instead of signals."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import FastAPI

from resnet_service.api.app import create_app
from resnet_service.inference.loader import ModelLoader
from resnet_service.server.acceptance import CountedConnections
from resnet_service.server.server import Server, run
from resnet_service.server.worker import (
    DONE,
    DRAIN,
    MESSAGE_BYTES,
    READY,
    RELOAD_FAILED,
    RELOAD_KEYS,
    RELOAD_MODEL,
    RELOADED,
    RETIRE,
    STOP,
    Assignment,
    report,
)
from resnet_service.settings import Settings
from resnet_service.system.shared_state import Column, SharedState

_BEAT_SECONDS = 0.1


def serve_assigned(control: socket.socket, assignment: Assignment, shared: SharedState, loader: ModelLoader) -> None:
    """Serve until the supervisor says otherwise; after a drain, this returns.

    Raises:
        ServiceError: The model cannot be served.

    """
    shared.own[Column.PID] = os.getpid()
    app = create_app(assignment.settings, loader=loader, shared=shared)
    listener = socket.socket(fileno=assignment.listener)
    run(WorkerServer(app, assignment.settings, shared, control, listener), app)


class WorkerServer(Server):
    """A server that accepts its share of the connections and obeys its supervisor."""

    def __init__(
        self, app: FastAPI, settings: Settings, shared: SharedState, control: socket.socket, listener: socket.socket
    ) -> None:
        super().__init__(app, settings)
        self._shared, self._control, self._listener = shared, control, listener
        self.server_state.connections = CountedConnections(shared)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the supervisor."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Load the model, obey the supervisor, and accept connections."""
        await super().startup(sockets=[])
        loop = asyncio.get_running_loop()
        self._control.setblocking(False)
        loop.add_reader(self._control.fileno(), self._obey)
        self.service.reloader.on_idle = self._reloaded
        self.accept_from(self._listener, self._shared)
        self._shared.tell(ready=self.service.health.ready)
        self._heart = asyncio.create_task(self._beat())
        self._report_model(READY)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, finish the accepted requests, and end."""
        await super().shutdown(sockets=[])
        self._limit_exit()
        self._heart.cancel()
        report(self._control, DONE)

    async def _beat(self) -> None:
        """Tell the others ten times a second that this process lives, and what it does; also while it drains."""
        while True:
            self._shared.tell(ready=self.service.health.ready)
            self.service.metrics.publish()
            await asyncio.sleep(_BEAT_SECONDS)

    def _obey(self) -> None:
        try:
            message = self._control.recv(MESSAGE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            message = b""
        if message == RELOAD_KEYS:
            self.service.reload_keys()
        elif message == RELOAD_MODEL:
            self.service.reloader.request()
        elif message == STOP:
            self.handle_exit(signal.SIGINT, None)
        elif message == DRAIN:
            self.handle_exit(signal.SIGTERM, None)
        elif message in (RETIRE, b""):  # another takes its place, or the supervisor has ended
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self.should_exit = True

    def _reloaded(self, succeeded: bool) -> None:
        if succeeded:
            self._report_model(RELOADED)
        else:
            report(self._control, RELOAD_FAILED)

    def _report_model(self, message: bytes) -> None:
        report(self._control, message + self.service.classifier.model.version.encode())
