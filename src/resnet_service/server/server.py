"""One server process: application, uvicorn, signals."""

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from resnet_service.api.app import create_app
from resnet_service.api.dependencies import Service
from resnet_service.errors import ServiceError
from resnet_service.inference.loader import ModelLoader
from resnet_service.server.http_protocol import BoundedProtocol, sweep
from resnet_service.settings import Settings

log = logging.getLogger("resnet_service")

# On every answer, those included that no application sees: a browser is to take none for another type than it says,
# and to show none inside another site's page.
EVERY_ANSWER = (("X-Content-Type-Options", "nosniff"), ("Cross-Origin-Resource-Policy", "same-origin"))


def serve(listener: socket.socket, settings: Settings, opening: ModelLoader) -> None:
    """Serve the model that is being opened, until a signal ends it.

    Raises:
        ServiceError: The model cannot be served; nothing was answered in the meantime.

    """
    app = create_app(settings, loader=opening)

    def no_startup_error(record: logging.LogRecord) -> bool:
        return app.state.startup_error is None

    # Uvicorn would log a traceback; an error of ours is told in one line by whoever called this.
    logging.getLogger("uvicorn.error").addFilter(no_startup_error)
    logging.getLogger("uvicorn.error").setLevel(logging.DEBUG if settings.log_level == "debug" else logging.WARNING)
    # Uvicorn ends gracefully on SIGTERM and then raises it again; what was asked for went well, so exit with 0.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    # A script starts its background jobs with SIGINT ignored, and Python keeps that. Uvicorn ends on SIGINT all the
    # same; this handler makes the exit code 130 there too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Until there is something to reload; unhandled, it would end the process.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        Server(app, settings).run(sockets=[listener])
    except SystemExit:
        error: ServiceError | None = app.state.startup_error
        if error is not None:
            raise error from None
        raise


class Server(uvicorn.Server):
    """Uvicorn with bounded connections, a delayed drain, and a reload."""

    def __init__(self, app: FastAPI, settings: Settings, port: int | None = None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                port=settings.port if port is None else port,
                loop="uvloop",  # named, so that a missing package is an error and not a slower server
                http=BoundedProtocol,
                ws="none",  # else it depends on whether some package for WebSockets happens to be installed
                lifespan="on",
                log_config=None,
                access_log=False,  # we write our own
                timeout_keep_alive=settings.keep_alive,
                server_header=False,
                headers=[*EVERY_ANSWER],
            )
        )
        self._drain_delay = settings.drain_delay
        self._drain: tuple[float, int] | None = None  # when, and because of which signal

    @property
    def service(self) -> Service:
        """What the started application has made."""
        service: Service = self.lifespan.state["service"]
        return service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Load the model, listen, and say so."""
        await super().startup(sockets)
        self._sweeping = asyncio.create_task(sweep(self.server_state.connections))
        if sockets:  # else it is not the whole process, and its signals are not ours
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.service.reload)
        for listener in sockets or ():
            host, port = listener.getsockname()[:2]
            log.info("Ready on http://%s:%d/", f"[{host}]" if ":" in host else host, port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, answer what was accepted, and end."""
        self.service.health.draining = True
        await super().shutdown(sockets)
        self._sweeping.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; at a second signal, end at once.

        With SIGTERM, load balancers are given time to see that the service is unready. Nobody who presses Ctrl-C waits
        for one.
        """
        if self._drain is not None or self.should_exit:
            log.warning("A second signal: ending at once, whatever is unanswered.")
            logging.shutdown()  # writes what the log still holds
            # Not sys.exit, which would wait for the threads.
            os._exit(128 + sig)
        if self.started:
            self.service.health.draining = True
        delay = self._drain_delay if self.started and sig == signal.SIGTERM else 0
        if delay:
            self._drain = time.monotonic() + delay, sig
        else:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Look, ten times a second, whether to end."""
        if self._drain is not None and not self.should_exit and time.monotonic() >= self._drain[0]:
            super().handle_exit(self._drain[1], None)
        return await super().on_tick(counter)
