"""The order in which a server comes up: its socket, its model, and beside that the web framework."""

import socket

from resnet_service.errors import AddressUnavailable
from resnet_service.inference.loader import ModelLoader
from resnet_service.settings import Settings
from resnet_service.system.imports import block_import
from resnet_service.system.memory import gc_frozen, limit_gc, limit_heap


def start(settings: Settings) -> None:
    """Serve until a signal ends it.

    The port is taken first: whether it is free should not be found out after seconds of loading. Loading compiles a
    network, which needs no interpreter lock, and FastAPI takes as long to import: so they go on side by side.

    Raises:
        AddressUnavailable: The address cannot be listened on.
        ServiceError: The model cannot be served; nothing was answered in the meantime.

    """
    limit_heap()
    limit_gc()
    # FastAPI asks of each type whether it is one of Pydantic's first version, and imports all of that to find out.
    block_import("pydantic.v1")
    with _listener(settings.host, settings.port) as listener:
        with gc_frozen():
            opening = ModelLoader(settings)
            from resnet_service.server.server import serve

        serve(listener, settings, opening)


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
