"""One process of a service of several: it serves until its supervisor tells it to end, or has ended itself."""

import contextlib
import json
import logging
import os
import signal
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TextIO

from resnet_service.system.budget import SharedBudget
from resnet_service.system.memory import gc_frozen, limit_malloc_arenas
from resnet_service.system.shared_state import SharedDescriptors, SharedState

if TYPE_CHECKING:
    from resnet_service.settings import Settings

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# What is said over the control socket, one message each. ``READY`` and ``RELOADED`` are followed by the model's
# version, ``FAILED`` by the sentence.
READY, FAILED, RELOADED, RELOAD_FAILED, DONE = b"ready:", b"failed:", b"reloaded:", b"reload failed", b"done"
DRAIN, STOP, RELOAD_KEYS, RELOAD_MODEL, RETIRE = b"drain", b"stop", b"keys", b"model", b"retire"
MESSAGE_BYTES = 1 << 16


@dataclass(frozen=True)
class Assignment:
    """What a worker serves. It holds secrets, so it is not passed on the command line or in the environment.

    It is passed in a file in memory: the keys alone may be larger than any message.
    """

    settings: "Settings"
    index: int
    count: int
    listener: int
    shared: SharedDescriptors

    def written(self) -> TextIO:
        """Return a file in memory that holds the assignment in JSON, for a started process to read."""
        keys = self.settings.api_keys
        digests = None if keys is None else [digest.hex() for digest in keys.digests]
        settings = self.settings.model_dump(mode="json", exclude={"api_keys"})
        file = open(os.memfd_create("resnet-service-assignment"), "w+")  # noqa: SIM115 - the caller closes it
        json.dump([settings, digests, self.index, self.count, self.listener, self.shared], file)
        file.seek(0)
        return file

    @classmethod
    def read(cls, descriptor: int) -> Self:
        """Return the assignment that a file holds, and close it."""
        from resnet_service.api_keys import Keys
        from resnet_service.settings import Settings

        with open(descriptor) as file:
            values, digests, index, count, listener, shared = json.load(file)
        keys = None if digests is None else Keys.of_digests(map(bytes.fromhex, digests))
        return cls(Settings(**values, api_keys=keys), index, count, listener, SharedDescriptors(*shared))


def report(control: socket.socket, message: bytes) -> None:
    """Tell the supervisor something, unless it has ended."""
    with contextlib.suppress(OSError):
        control.send(message)


def main() -> None:
    """Serve what the supervisor assigns; the descriptors of control socket and assignment are the arguments."""
    # A terminal and some service managers send signals to all processes; the supervisor alone decides what follows.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    limit_malloc_arenas()
    control = socket.socket(fileno=int(sys.argv[1]))
    assignment = Assignment.read(int(sys.argv[2]))
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
    from resnet_service.server.process import prepare

    prepare()
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
        report(control, FAILED + str(error).encode(errors="replace")[: MESSAGE_BYTES // 2])
        logging.shutdown()
        sys.exit(1)


if __name__ == "__main__":
    main()
