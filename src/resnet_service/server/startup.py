"""Start-up: bind the port, then load the model while the web framework is imported."""

import math
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from resnet_service.errors import AddressUnavailable, InvalidSettings
from resnet_service.server.process import prepare
from resnet_service.server.supervisor import process_count, supervise
from resnet_service.settings import Settings
from resnet_service.system.descriptors import allow_descriptors, captured_stderr
from resnet_service.system.memory import gc_frozen

# Descriptors of a process beside those of ``max_connections``: of the few connections beyond, files, and the log.
_OTHER_DESCRIPTORS = 128


def start(settings: Settings) -> None:
    """Serve until a signal ends the process; then raise ``SystemExit(0)``, or ``KeyboardInterrupt`` on SIGINT.

    The port is bound first, so that an occupied port is an error at once and not after seconds of loading. The model is
    loaded in parallel with the import of FastAPI: compiling a network releases the interpreter lock, and both take
    about as long.

    Raises:
        AddressUnavailable: The address cannot be bound.
        InvalidSettings: The system does not allow that many connections.
        ServiceError: The model cannot be served; no request was accepted.

    """
    prepare()
    with _bound(settings.host, settings.port) as listener:
        count = process_count(settings)
        _allow_connections(math.ceil(settings.max_connections / count))
        if count > 1:
            supervise(listener, settings, count)
            return
        # A supervisor needs none of what follows.
        with captured_stderr():
            with gc_frozen():
                from resnet_service.inference.loader import ModelLoader

                loader = ModelLoader(settings)
                from resnet_service.server.server import serve

            serve(listener, settings, loader)


def _allow_connections(count: int) -> None:
    needed = count + _OTHER_DESCRIPTORS
    allowed = allow_descriptors(needed)
    if allowed < needed:
        raise InvalidSettings(
            f"{count} connections need {needed} file descriptors, and a process may open {allowed}. "
            "Raise that limit (ulimit -n), or lower --max-connections."
        )


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """Yield a socket that is bound to the address; meanwhile, no other start can bind it."""
    with ExitStack() as stack:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            listener = stack.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            claim = stack.enter_context(socket.socket(socket.AF_UNIX))
            _claim(claim, *listener.getsockname()[:2])
        except OSError as error:
            raise AddressUnavailable(
                f"Cannot listen on {host}, port {port}: {error.strerror}. Choose another with --port or --host."
            ) from error
        yield listener


def _claim(claim: socket.socket, host: str, port: int) -> None:
    """Bind a name that only one process can have: with SO_REUSEADDR, several can bind a port until one listens.

    To listen this early would be simpler, but load balancers that only connect would take the service for ready. The
    socket is in Linux's abstract namespace, which is no file, belongs to the network namespace as ports do, and lets a
    name go with the process that holds it.
    """
    claim.bind(f"\0resnet-service {host} {port}")
