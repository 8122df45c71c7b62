"""One process of a service of several: it serves until its supervisor tells it to end, or has ended itself."""

import json
import logging
import signal
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from resnet_service.system.budget import SharedBudget
from resnet_service.system.memory import gc_frozen, limit_gc, limit_heap, limit_malloc_arenas
from resnet_service.system.shared_state import Descriptors, SharedState

if TYPE_CHECKING:
    from resnet_service.settings import Settings

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# What is said over the control socket, one message each. ``FAILED`` is followed by the sentence.
READY, FAILED, RELOADED, RELOAD_FAILED, DONE = b"ready", b"failed:", b"reloaded", b"reload failed", b"done"
DRAIN, STOP, RELOAD_KEYS, RELOAD_MODEL, RETIRE = b"drain", b"stop", b"keys", b"model", b"retire"
MESSAGE_BYTES = 1 << 16


@dataclass(frozen=True)
class Assignment:
    """The first message to a worker: what it serves. It holds secrets, so it is no argument and no variable."""

    settings: "Settings"
    index: int
    count: int
    listener: int
    shared: Descriptors

    def written(self) -> bytes:
        """Return the message, in JSON."""
        keys = self.settings.api_keys
        digests = None if keys is None else [digest.hex() for digest in keys.digests]
        settings = self.settings.model_dump(mode="json", exclude={"api_keys"})
        return json.dumps([settings, digests, self.index, self.count, self.listener, self.shared]).encode()

    @classmethod
    def read(cls, message: bytes) -> Self:
        """Return the assignment that a message holds."""
        from resnet_service.api_keys import Keys
        from resnet_service.settings import Settings

        values, digests, index, count, listener, shared = json.loads(message)
        keys = None if digests is None else Keys.of_digests(map(bytes.fromhex, digests))
        return cls(Settings(**values, api_keys=keys), index, count, listener, Descriptors(*shared))


def main() -> None:
    """Serve what the supervisor assigns; the control socket's descriptor is the argument."""
    # A terminal and some service managers send signals to all processes; the supervisor alone decides what follows.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    limit_malloc_arenas()
    control = socket.socket(fileno=int(sys.argv[1]))
    message = control.recv(MESSAGE_BYTES)
    if not message:  # the supervisor has ended already
        return
    assignment = Assignment.read(message)
    from resnet_service.observability.logs import writing
    from resnet_service.system.descriptors import captured_stderr, log_descriptor

    settings = assignment.settings
    with (
        log_descriptor() as descriptor,
        writing(settings.log_format, settings.log_level, descriptor, assignment.index),
        captured_stderr(),
    ):
        _serve(control, assignment)


def _serve(control: socket.socket, assignment: Assignment) -> None:
    from resnet_service.errors import ServiceError
    from resnet_service.observability.logs import share_log
    from resnet_service.system.imports import block_import

    limit_heap()
    limit_gc()
    block_import("pydantic.v1")
    try:
        with gc_frozen():
            from resnet_service.inference.loader import ModelLoader

            shared = SharedState.open(assignment.count, assignment.index, assignment.shared)
            share_log(shared.log.lock)
            decoding = SharedBudget(assignment.settings.max_decoding_bytes, shared.decoding, shared.index)
            loader = ModelLoader(assignment.settings, decoding)
            from resnet_service.server.worker_server import serve_assigned

        serve_assigned(control, assignment, shared, loader)
    except ServiceError as error:
        control.send(FAILED + str(error).encode(errors="replace")[: MESSAGE_BYTES // 2])
        logging.shutdown()
        sys.exit(1)


if __name__ == "__main__":
    main()
