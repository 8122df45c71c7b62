"""Start-up: bind the port, then load the model while the web framework is imported."""

import socket

from resnet_service.errors import AddressUnavailable
from resnet_service.server.supervisor import process_count, supervise
from resnet_service.settings import Settings
from resnet_service.system.imports import block_import
from resnet_service.system.memory import gc_frozen, limit_gc, limit_heap


def start(settings: Settings) -> None:
    """Serve until a signal ends the process.

    The port is bound first, so that an occupied port is an error at once and not after seconds of loading. The model is
    loaded in parallel with the import of FastAPI: compiling a network releases the interpreter lock, and both take
    about as long.

    Raises:
        AddressUnavailable: The address cannot be bound.
        ServiceError: The model cannot be served; no request was accepted.

    """
    limit_heap()
    limit_gc()
    # FastAPI checks each type for Pydantic 1, and would import all of that for it.
    block_import("pydantic.v1")
    with _listener(settings.host, settings.port) as listener:
        count = process_count(settings)
        if count > 1:
            supervise(listener, settings, count)
            return
        with gc_frozen():
            # A supervisor needs none of this.
            from resnet_service.inference.loader import ModelLoader

            loader = ModelLoader(settings)
            from resnet_service.server.server import serve

        serve(listener, settings, loader)


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
