"""Clients that do what HTTP libraries do not: send half a request, read half an answer, wait."""

import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

WAIT_SECONDS = 20


@contextmanager
def connected(url: str, *, receive_buffer: int | None = None) -> Iterator[socket.socket]:
    """Open a connection to ``http://host:port``."""
    host, port = url.removeprefix("http://").rstrip("/").split(":")
    with socket.socket() as connection:
        connection.settimeout(WAIT_SECONDS)
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.connect((host, int(port)))
        yield connection


def head(method: str = "POST", path: str = "/predict", **fields: str | int) -> bytes:
    """Return a request's head; ``Content_Length=3`` is the field Content-Length."""
    lines = [f"{method} {path} HTTP/1.1", "Host: test", *(f"{key.replace('_', '-')}: {fields[key]}" for key in fields)]
    return "\r\n".join([*lines, "", ""]).encode()


def read_to_end(connection: socket.socket) -> bytes:
    """Return what comes until the server closes."""
    received = b""
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionResetError:
        received += b"(reset)"
    return received


def read_answer(connection: socket.socket) -> bytes:
    """Return one whole answer, or what comes of it until the server closes."""
    received = b""
    while not (found := re.search(rb"(?i)content-length: (\d+)\r\n(?:.*?\r\n)?\r\n", received, re.DOTALL)) or (
        len(received) < found.end() + int(found[1])
    ):
        data = connection.recv(65536)
        if not data:
            break
        received += data
    return received


def drip(connection: socket.socket, data: bytes, seconds: float = WAIT_SECONDS) -> float:
    """Send a byte every 50 ms until the server closes; return the seconds that took."""
    begun = time.monotonic()
    connection.settimeout(0.05)
    position = 0
    while time.monotonic() - begun < seconds:
        try:
            connection.send(data[position % len(data) :][:1])
            position += 1
            if connection.recv(65536) == b"":
                break
        except TimeoutError:
            continue
        except (ConnectionResetError, BrokenPipeError):
            break
    connection.settimeout(WAIT_SECONDS)
    return time.monotonic() - begun
