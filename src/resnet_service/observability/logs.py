"""One line for each thing that happens: as JSON for machines, or to be read; written beside the work, never in its way.

Everything logs with the standard library; structlog turns the records into lines, ours, uvicorn's and anyone's alike.
"""

import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from resnet_service.observability.request_context import current
from resnet_service.system.imports import import_blocked

# For tracebacks with local variables, which are never shown here; and a twentieth of a server's start.
with import_blocked("rich"):
    import structlog
    from structlog.typing import EventDict, Processor

LogFormat = Literal["auto", "json", "console"]

# What a line may carry beside its sentence. What is not named here does not get into a log by being passed along.
FIELDS = ("request_id", "method", "route", "path", "status", "ms", "received", "sent", "code", "trace_id")

_LONGEST = 2000  # characters of one text; of a traceback, the last
_CAPACITY = 10_000  # lines, about 3 MB
_FLUSH_SECONDS = 1.0
_GATHER_SECONDS = 0.02
_BATCH = 256  # lines


@contextmanager
def writing(log_format: LogFormat, level: str, descriptor: int | None = None) -> Iterator[None]:
    """Write the whole process's log while the block runs.

    Args:
        log_format: ``auto`` is ``console`` on a terminal and ``json`` elsewhere.
        level: Least severe to write. ``debug`` is for our own loggers only: others' would show what is in images.
        descriptor: Where to; by default standard error.

    """
    where = sys.stderr.fileno() if descriptor is None else descriptor
    terminal = os.isatty(where)
    handler = BackgroundWriter(where)
    handler.setFormatter(
        formatter("console" if terminal else "json", colors=terminal)
        if log_format == "auto"
        else formatter(log_format, colors=terminal)
    )
    root, ours = logging.getLogger(), logging.getLogger("resnet_service")
    least = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(max(least, logging.INFO))
    ours.setLevel(least)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def formatter(log_format: Literal["json", "console"], *, colors: bool = False) -> logging.Formatter:
    """Return what turns a record into a line (a traceback of the console takes several, all of them indented)."""
    renderer: Processor
    if log_format == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(
            pad_event_to=0,
            colors=colors,
            # The default shows local variables, images among them.
            exception_formatter=structlog.dev.plain_traceback,
        )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            _add_request_id,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(FIELDS),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _defuse,
            renderer,
        ],
    )


def printable(text: str, longest: int = _LONGEST) -> str:
    r"""Return ``text`` bounded, and such that it cannot pass for two: ``\n``, ``\x1b`` and their like written out."""
    bounded = text if len(text) <= longest else f"{text[:longest]}…"
    if bounded.isprintable():
        return bounded
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in bounded
    )


def _add_request_id(logger: object, name: str, event: EventDict) -> EventDict:
    ctx = current.get()
    if ctx is not None:
        event["request_id"] = ctx.request_id
    return event


def _defuse(logger: object, name: str, event: EventDict) -> EventDict:
    """Make every text harmless: what strangers send gets into paths and into messages of exceptions."""
    for key, value in event.items():
        if key == "exception":
            # Indented, no line of it looks like one of the log.
            lines = value[-10 * _LONGEST :].splitlines()
            event[key] = "\n".join(f"    {printable(line)}" for line in lines)
        elif isinstance(value, str):
            event[key] = printable(value.rstrip("\n"))
    return event


class BackgroundWriter(logging.Handler):
    """Hands lines to a thread of its own, which writes them to a file descriptor.

    Whoever reads the log may be slow, or stop: a full pipe would stop the event loop with everything in it. So lines
    wait, and where too many wait, new ones are dropped and counted, and the count is told when it goes on.
    """

    def __init__(self, descriptor: int, capacity: int = _CAPACITY) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._capacity = capacity
        self._dropped = 0
        self._ended = False
        self._lines: queue.SimpleQueue[bytes | threading.Event | None] = queue.SimpleQueue()
        # A daemon, as it may be stuck in a write when the process ends.
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Put a record's line among those that wait."""
        if self._lines.qsize() >= self._capacity:
            self._dropped += 1
            return
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - as the standard library has it: a bad log call breaks no request
            self.handleError(record)
            return
        self._lines.put(f"{line}\n".encode(errors="backslashreplace"))

    def flush(self) -> None:
        """Wait until what waits now has been written, but not for a reader that has stopped."""
        if self._ended:
            return
        written = threading.Event()
        self._lines.put(written)
        written.wait(_FLUSH_SECONDS)

    def close(self) -> None:
        """Write what waits, and end the thread; the process's end asks for it again, and waits no second time."""
        if not self._ended:
            self.flush()
            self._ended = True
            self._lines.put(None)
            self._thread.join(_FLUSH_SECONDS)
        super().close()

    def _write_all(self) -> None:
        ended = False
        while not ended:
            batch = [self._lines.get()]
            # Waking up for each line would cost the event loop more than making it: they share one interpreter.
            time.sleep(_GATHER_SECONDS)
            while len(batch) < _BATCH and not self._lines.empty():
                batch.append(self._lines.get())
            self._write(b"".join(line for line in batch if isinstance(line, bytes)))
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                record = logging.LogRecord(
                    __name__, logging.WARNING, __file__, 0, "%d lines of the log were dropped here.", (dropped,), None
                )
                self._write(f"{self.format(record)}\n".encode())
            for waiting in batch:
                if isinstance(waiting, threading.Event):
                    waiting.set()
            ended = None in batch

    def _write(self, line: bytes) -> None:
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except OSError:  # nobody reads any more; there is nowhere to say so
            pass
