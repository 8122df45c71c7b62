"""Descriptors: enough of them, the standard ones open, and standard error out of the hands of native libraries."""

import faulthandler
import logging
import os
import resource
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

log = logging.getLogger("resnet_service.native")

_STDOUT, _STDERR = 1, 2
_MAX_LINES = 20  # logged in each interval; the others are counted
_INTERVAL_SECONDS = 60.0
_PIECE_BYTES = 65_536
_END_SECONDS = 1.0


def allow_descriptors(count: int) -> int:
    """Let this process, and those that it starts, open ``count`` descriptors; return how many they may open.

    Only root may exceed the hard limit, and this function does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count and hard != soft:
        soft = min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft


def open_standard_descriptors() -> None:
    """Open the null device for each of standard input, output and error that is closed.

    Otherwise the next socket or file would get its number, and what any library prints would go there.
    ``sys.__stderr__`` stays ``None`` if standard error was closed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
            os.set_inheritable(opened, True)


@contextmanager
def log_descriptor() -> Iterator[int]:
    """Yield a descriptor for the log: of standard error or, if that was closed at the start, standard output."""
    descriptor = os.dup(_STDOUT if sys.__stderr__ is None else _STDERR)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def captured_stderr() -> Iterator[None]:
    """While the block runs, log what anything else writes to standard error, at most some lines a minute.

    Native libraries write there directly. That would tear the lines of the log, and block the writing threads as soon
    as nobody reads. The pipe that they write to instead never blocks: what does not fit is lost. So no writer waits for
    the reading thread, which needs the interpreter lock that the writer may hold.

    If the process crashes, what is in the pipe is lost. So the traceback of a crash goes to the real standard error.
    """
    real = os.dup(_STDERR)
    crash = _never_blocking(real)
    faulthandler.enable(crash)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    os.dup2(writing, _STDERR)
    os.close(writing)
    reader = threading.Thread(target=_log_lines, args=(reading,), name="stderr", daemon=True)
    reader.start()
    try:
        yield
    finally:
        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(real, _STDERR)  # closes the last writing end, so the reader ends
        faulthandler.enable(_STDERR)
        os.close(crash)
        os.close(real)
        reader.join(_END_SECONDS)


def _never_blocking(descriptor: int) -> int:
    """Return a descriptor for the same file; if it is a pipe that can be opened again, writes to it never block."""
    if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        with suppress(OSError):  # another user's
            # The flag would also hold for other processes that share the opened pipe, so it is opened once more.
            return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK)
    return os.dup(descriptor)


def _log_lines(descriptor: int) -> None:
    """Log the lines from a pipe, until all of its writing ends are closed."""
    begun, logged, dropped = time.monotonic(), 0, 0
    rest = b""
    with os.fdopen(descriptor, "rb", buffering=0) as pipe:
        while piece := pipe.read(_PIECE_BYTES):
            if time.monotonic() - begun > _INTERVAL_SECONDS:
                begun, logged, dropped = time.monotonic(), 0, 0
            *lines, rest = (rest + piece).split(b"\n")
            rest = rest[:_PIECE_BYTES]
            for line in filter(None, lines):
                if logged < _MAX_LINES:
                    logged += 1
                    log.warning("On stderr: %s", line.decode(errors="backslashreplace"))
                else:
                    dropped += 1
                    if dropped == 1:
                        log.warning("More lines on stderr are left out, for up to %.0f s.", _INTERVAL_SECONDS)
    if rest and logged < _MAX_LINES:
        log.warning("On stderr: %s", rest.decode(errors="backslashreplace"))
