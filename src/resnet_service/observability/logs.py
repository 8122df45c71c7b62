"""The log: one JSON or console line an event, written by a background thread.

All code logs with the standard library; structlog formats the records of this package, uvicorn and other libraries
alike.
"""

import json
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from typing import Literal

from resnet_service.observability.request_context import current
from resnet_service.system.imports import import_blocked
from resnet_service.types import LogFormat

# structlog uses rich to show local variables in tracebacks, which this log never does; importing rich takes a twentieth
# of a server's start-up.
with import_blocked("rich"):
    import structlog
    from structlog.typing import EventDict

# Fields that a line may have beside its message; any other `extra` is left out.
_REQUEST = ("request_id", "method", "route", "path", "status", "ms", "received", "sent", "client", "code", "trace_id")
FIELDS = (*_REQUEST, "process_index")  # the index is of one process of several

_MAX_LENGTH = 2000  # characters of a text
_MAX_TRACEBACK = 10 * _MAX_LENGTH  # characters of a traceback, counted from its end
_CAPACITY = 10_000  # lines, about 3 MB
_FLUSH_SECONDS = 1.0
_GATHER_SECONDS = 0.02
_BATCH_LINES = 256


@contextmanager
def writing(
    log_format: LogFormat, level: str, descriptor: int | None = None, process: int | None = None
) -> Iterator[None]:
    """Write the log of the whole process while the block runs.

    Args:
        log_format: ``auto`` is ``console`` on a terminal and ``json`` elsewhere.
        level: Lowest level to write. ``debug`` applies to this package's loggers only: those of other libraries would
            write image contents.
        descriptor: File descriptor to write to; standard error by default.
        process: Number of this process in a service of several; each line has it.

    """
    target = sys.stderr.fileno() if descriptor is None else descriptor
    terminal = os.isatty(target)
    handler = BackgroundWriter(target)
    handler.setFormatter(
        formatter("console" if terminal else "json", colors=terminal)
        if log_format == "auto"
        else formatter(log_format, colors=terminal)
    )
    root, ours = logging.getLogger(), logging.getLogger("resnet_service")
    lowest = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(max(lowest, logging.INFO))
    ours.setLevel(lowest)
    root.addHandler(handler)

    def number(record: logging.LogRecord) -> bool:
        record.process_index = process
        return True

    if process is not None:
        handler.addFilter(number)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def count_lost_lines(count: Callable[[int], None]) -> None:
    """Call ``count`` with the number of lines that the log has lost, and whenever it loses more; from its thread."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, BackgroundWriter):
            handler.on_lost = count


def share_log(lock: AbstractContextManager[None]) -> None:
    """Write only with ``lock`` held, which excludes other processes: a pipe may mix long lines of several writers."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, BackgroundWriter):
            handler.lock_out_others = lock


def formatter(log_format: Literal["json", "console"], *, colors: bool = False) -> logging.Formatter:
    """Return the formatter that makes a record one line; in ``console``, a traceback adds lines, all indented."""
    if log_format == "json":
        return _JSONFormatter()
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
            _escape,
            structlog.dev.ConsoleRenderer(
                pad_event_to=0,
                colors=colors,
                # The default shows local variables, image contents included.
                exception_formatter=structlog.dev.plain_traceback,
            ),
        ],
    )


class _JSONFormatter(logging.Formatter):
    """Makes a record a JSON object, in a third of the time that structlog's chain of processors takes."""

    def format(self, record: logging.LogRecord) -> str:
        event: EventDict = {"event": record.getMessage()}
        _add_request_id(None, "", event)
        event["level"] = record.levelname.lower()
        event["logger"] = record.name
        found = record.__dict__
        event.update((name, found[name]) for name in FIELDS if name in found)
        event["timestamp"] = datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z")
        if record.exc_info and record.exc_info[0] is not None:
            event["exception"] = self.formatException(record.exc_info)
        return json.dumps(_escape(None, "", event), default=repr)


def printable(text: str, max_length: int = _MAX_LENGTH) -> str:
    r"""Return at most ``max_length`` characters of ``text`` on one line: ``\n``, ``\x1b`` and the like are escaped."""
    bounded = text if len(text) <= max_length else f"{text[:max_length]}…"
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


def _escape(logger: object, name: str, event: EventDict) -> EventDict:
    """Escape and bound every text: paths and messages of exceptions contain untrusted input."""
    for key, value in event.items():
        if key == "exception":
            # Indentation keeps a traceback's lines from passing for log lines.
            lines = value[-_MAX_TRACEBACK:].splitlines()
            event[key] = "\n".join(f"    {printable(line)}" for line in lines)
        elif isinstance(value, str):
            event[key] = printable(value.rstrip("\n"))
    return event


class BackgroundWriter(logging.Handler):
    """Queues lines for a background thread, which writes them to a file descriptor.

    A write to a full pipe blocks until its reader reads on; in the event loop, it would stop the service. Once
    ``capacity`` lines are queued, new ones are dropped. Lines that cannot be written, to a full disk for example, are
    lost. The next write that succeeds is followed by a line with the number of both.

    ``on_lost``, if it is set, is called in the background thread with the number of lines that were newly lost.

    ``QueueListener`` of the standard library does not suffice. With a reader that has stopped, its ``stop`` and
    ``logging.shutdown`` wait for ever; it also wakes for each line, which nearly doubles the CPU time of one.
    """

    def __init__(self, descriptor: int, capacity: int = _CAPACITY) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._capacity = capacity
        self.lock_out_others: AbstractContextManager[None] = nullcontext()
        self.on_lost: Callable[[int], None] | None = None
        self._dropped = 0  # counted by the threads that log, one at a time
        self._unwritten = self._counted = self._reported = 0  # counted by the thread that writes
        self._torn = False  # the last line in the file is incomplete
        self._ended = False
        self._lines: queue.SimpleQueue[bytes | threading.Event | None] = queue.SimpleQueue()
        # A daemon thread, since it may be blocked in a write when the process ends.
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Format a record and queue its line, or count it as dropped."""
        if self._lines.qsize() >= self._capacity:
            self._dropped += 1
            return
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - as in the standard library: a wrong log call fails no request
            self.handleError(record)
            return
        self._lines.put(f"{line}\n".encode(errors="backslashreplace"))

    def flush(self) -> None:
        """Wait until the queued lines are written, at most a second: the reader may have stopped."""
        if self._ended:
            return
        written = threading.Event()
        self._lines.put(written)
        written.wait(_FLUSH_SECONDS)

    def close(self) -> None:
        """Write the queued lines and end the thread; further calls, as at the process's exit, do nothing."""
        if not self._ended:
            self.flush()
            self._ended = True
            self._lines.put(None)
            self._thread.join(_FLUSH_SECONDS)
        super().close()

    @property
    def lost(self) -> int:
        """The number of lines so far that were dropped or could not be written."""
        return self._dropped + self._unwritten

    def _write_all(self) -> None:
        ended = False
        while not ended:
            batch = [self._lines.get()]
            # Waking for each line would take the interpreter lock from the event loop more often than formatting does.
            time.sleep(_GATHER_SECONDS)
            while len(batch) < _BATCH_LINES and not self._lines.empty():
                batch.append(self._lines.get())
            lines = [line for line in batch if isinstance(line, bytes)]
            try:
                unwritten = self._write(lines)
            except Exception:  # noqa: BLE001 - without this thread there is no log, so it survives whatever fails
                unwritten = len(lines)
            self._unwritten += unwritten
            with suppress(Exception):
                self._report_lost()
            for waiting in batch:
                if isinstance(waiting, threading.Event):
                    waiting.set()
            ended = None in batch

    def _report_lost(self) -> None:
        """Count the lines that were lost since the last call, and write their number as soon as that succeeds."""
        lost = self.lost
        if self.on_lost is not None and lost > self._counted:
            self.on_lost(lost - self._counted)
            self._counted = lost
        if lost > self._reported:
            text = "%d log lines were dropped here."
            arguments = (lost - self._reported,)
            record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, arguments, None)
            if self._write([f"{self.format(record)}\n".encode()]) == 0:
                self._reported = lost

    def _write(self, lines: list[bytes]) -> int:
        """Write lines; return how many of the last are not, or not wholly, written, as on a full disk."""
        left = b"\n" * self._torn + b"".join(lines)
        try:
            with self.lock_out_others:
                while left:
                    left = left[os.write(self._descriptor, left) :]
        except OSError:  # there is nowhere to report it yet
            pass
        missing, unwritten = len(left), 0
        for line in reversed(lines):
            if missing <= 0:
                break
            missing -= len(line)
            unwritten += 1
        # Either a part of a line is written, or the end of an earlier torn one still is not.
        self._torn = missing != 0
        return unwritten
