"""Uvicorn with this service's application, limits, signals and reload."""

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from resnet_service.api.app import create_app
from resnet_service.api.dependencies import Service
from resnet_service.api.response_headers import RESPONSE_HEADERS
from resnet_service.errors import ServiceError
from resnet_service.inference.loader import ModelLoader
from resnet_service.server.acceptance import Acceptor
from resnet_service.server.http_protocol import BoundedProtocol, sweep
from resnet_service.server.process import log_address
from resnet_service.settings import Settings
from resnet_service.system.shared_state import SharedState
from resnet_service.system.signals import end_at_once

# After the last answer and the end of the inference threads, or the limit for it, the process has this time to end.
_EXIT_SECONDS = 3.0

log = logging.getLogger("resnet_service")


def serve(listener: socket.socket, settings: Settings, loader: ModelLoader) -> None:
    """Serve the model that ``loader`` loads, until a signal ends the process.

    After SIGTERM, this raises ``SystemExit(0)``; after SIGINT, ``KeyboardInterrupt``.

    Raises:
        ServiceError: The model cannot be served; no request was accepted.

    """
    app = create_app(settings, loader=loader)
    server = Server(app, settings)

    def end(number: int, frame: FrameType | None) -> None:
        """End as Python does by default, but with 0 on SIGTERM: uvicorn raises the signal again when it has drained."""
        if not server.started:
            end_at_once(number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(0)

    # A script starts its background jobs with SIGINT ignored, and Python keeps that; this changes it there, too.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    # Until a model is loaded there is nothing to reload, and an unhandled SIGHUP would end the process.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    run(server, app, [listener])


def run(server: "Server", app: FastAPI, sockets: list[socket.socket] | None = None) -> None:
    """Run a server, and raise the error with which a start fails; uvicorn would print its traceback, and exit.

    Raises:
        ServiceError: The model cannot be served; no request was accepted.

    """

    def no_startup_error(record: logging.LogRecord) -> bool:
        return app.state.startup_error is None

    logging.getLogger("uvicorn.error").addFilter(no_startup_error)
    try:
        server.run(sockets)
    except SystemExit:
        error: ServiceError | None = app.state.startup_error
        if error is not None:
            raise error from None
        raise


class Server(uvicorn.Server):
    """Uvicorn with bounded connections, a delayed drain, and a reload."""

    def __init__(self, app: FastAPI, settings: Settings, port: int | None = None) -> None:
        logging.getLogger("uvicorn.error").setLevel(logging.DEBUG if settings.log_level == "debug" else logging.WARNING)
        super().__init__(
            uvicorn.Config(
                app,
                port=settings.port if port is None else port,
                loop="uvloop",  # explicit, so that a missing package is an error, not a slower server
                http=BoundedProtocol,
                ws="none",  # by default, uvicorn uses any package for WebSockets that is installed
                lifespan="on",
                log_config=None,
                access_log=False,  # RequestContextMiddleware writes the access log
                timeout_keep_alive=settings.keep_alive,
                server_header=False,
                proxy_headers=False,  # uvicorn would believe any local client; see trusted_proxies
                headers=[*RESPONSE_HEADERS],
            )
        )
        self._drain_delay = settings.drain_delay
        self._drain: tuple[float, int] | None = None  # time to start the shutdown, and its signal
        self._acceptors: list[Acceptor] = []

    @property
    def service(self) -> Service:
        """The service that the application has started."""
        service: Service = self.lifespan.state["service"]
        return service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Load the model, listen, and log the address."""
        await super().startup(None if sockets is None else [])
        self._sweeping = asyncio.create_task(sweep(self.server_state.connections))
        if sockets:  # without sockets, the server is embedded, and signals belong to its host
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.service.reload)
        for listener in sockets or ():
            self.accept_from(listener)
            log_address(listener)

    def accept_from(self, listener: socket.socket, shared: SharedState | None = None) -> None:
        """Accept connections; ``shared`` is what several processes that do so share."""

        def make_protocol() -> asyncio.Protocol:
            return self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )

        self._acceptors.append(Acceptor(listener, make_protocol, self.service.metrics, shared))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listening sockets, finish the accepted requests, and end."""
        self.service.health.draining = True
        for acceptor in self._acceptors:
            await acceptor.close()
        await super().shutdown(sockets)
        self._sweeping.cancel()
        if sockets:
            self._limit_exit()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start the shutdown; at a second signal, exit at once.

        SIGTERM delays the shutdown by ``drain_delay``, so that load balancers can see that the service is unready.
        Ctrl-C does not.
        """
        if self._drain is not None or self.should_exit:
            log.warning("A second signal: exiting at once, without answering open requests.")
            logging.shutdown()  # writes the queued log lines
            # sys.exit would wait for the threads.
            os._exit(128 + sig)
        if not self.started:
            end_at_once(sig)
        self.service.health.draining = True
        delay = self._drain_delay if sig == signal.SIGTERM else 0
        if delay:
            self._drain = time.monotonic() + delay, sig
        else:
            super().handle_exit(sig, frame)

    def _limit_exit(self) -> None:
        end = threading.Timer(_EXIT_SECONDS, self._end)
        end.daemon = True
        end.start()

    def _end(self) -> None:
        """End the process, which should have ended by itself: Python waits for all threads, without a limit."""
        log.error("Threads have not come back; exiting without them.")
        end_at_once(signal.SIGINT if signal.SIGINT in self._captured_signals else signal.SIGTERM)

    async def on_tick(self, counter: int) -> bool:
        """Start a delayed shutdown when it is due; uvicorn calls this ten times a second."""
        if self._drain is not None and not self.should_exit and time.monotonic() >= self._drain[0]:
            super().handle_exit(self._drain[1], None)
        return await super().on_tick(counter)
