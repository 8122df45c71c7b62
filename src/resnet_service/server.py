"""One server process: socket, application, uvicorn."""

import logging
import signal
import socket
import sys

import uvicorn

from resnet_service.api.app import create_app
from resnet_service.errors import AddressUnavailable, ServiceError
from resnet_service.memory import keep_heap_compact
from resnet_service.settings import Settings

log = logging.getLogger("resnet_service")


def run(settings: Settings) -> None:
    """Serve until a signal ends it.

    The port is taken first: whether it is free should not be found out after seconds of loading.

    Raises:
        AddressUnavailable: The address cannot be listened on.
        ServiceError: The model cannot be served; nothing was answered in the meantime.

    """
    keep_heap_compact()
    with _listener(settings.host, settings.port) as listener:
        app = create_app(settings)

        def no_startup_error(record: logging.LogRecord) -> bool:
            return app.state.startup_error is None

        # Uvicorn would log a traceback; an error of ours is told in one line by whoever called this.
        logging.getLogger("uvicorn.error").addFilter(no_startup_error)
        logging.getLogger("uvicorn.error").setLevel(logging.DEBUG if settings.log_level == "debug" else logging.WARNING)
        # Uvicorn ends gracefully on SIGTERM and then raises it again; what was asked for went well, so exit with 0.
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
        config = uvicorn.Config(
            app,
            # Named, so that a missing package is an error and not a slower server.
            loop="uvloop",
            http="httptools",
            lifespan="on",
            log_config=None,
            timeout_keep_alive=settings.keep_alive,
            server_header=False,
        )
        try:
            _Server(config).run(sockets=[listener])
        except SystemExit:
            error: ServiceError | None = app.state.startup_error
            if error is not None:
                raise error from None
            raise


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            host, port = listener.getsockname()[:2]
            log.info("Ready on http://%s:%d/", f"[{host}]" if ":" in host else host, port)


def _listener(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise AddressUnavailable(
            f"Cannot listen on {host}, port {port}: {error.strerror}. Choose another with --port or --host."
        ) from error
    return listener
