"""Attacks on a server's connections: endless messages, and what they do to a probe and to memory."""

import http.client
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

_POST = b"POST /predict HTTP/1.1\r\nHost: test\r\n"
_CHUNKED = _POST + b"Transfer-Encoding: chunked\r\n\r\n"
PIPELINED = b"GET /labels HTTP/1.1\r\nHost:\r\n\r\n"

# What an attacker sends first, and what it sends again and again.
ENDLESS = {
    "trailer": (_CHUNKED + b"0\r\nX-Trailer: ", b"x" * 65536),
    "trailers": (_CHUNKED + b"0\r\n", b"X: x\r\n" * 10_000),
    "chunk extension": (_CHUNKED + b"1;x=", b"x" * 65536),
    "chunk extensions": (_CHUNKED, (b"1;" + b"x" * 4000 + b"\r\nx\r\n") * 16),
    "zeros of a chunk's size": (_CHUNKED, b"0" * 65536),
    "one-byte chunks": (_CHUNKED, b"1\r\nx\r\n" * 10_000),
    "empty lines": (b"", b"\r\n" * 32768),
    "header field": (b"GET / HTTP/1.1\r\nHost: x\r\nX: ", b"x" * 65536),
    "header fields": (b"GET / HTTP/1.1\r\nHost: x\r\n", b"X: x\r\n" * 10_000),
    "pipelined requests": (b"", PIPELINED * 2000),
    "pipelined behind a body": (_POST + b"Content-Length: 10000000\r\n\r\n", PIPELINED * 2000),
    "pipelined scrapes": (b"", b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 10),
}
# An attack on the event loop's time, not on memory: the client reads its responses, so that it gets more of them.
_READ = {"pipelined scrapes"}


class Impact(NamedTuple):
    """The slowest probe in milliseconds, and how much the server's memory grew in megabytes."""

    milliseconds: float
    megabytes: float


def impact_of(
    attack: str, port: int, resident: Callable[[], float], *, clients: int = 1, seconds: float = 1.0
) -> Impact:
    """Attack a server on this machine, and ask it for its health meanwhile.

    A client connects again whenever the server closes its connection, and reads no response, except in ``_READ``.

    Args:
        attack: A name in ``ENDLESS``.
        port: The server's port on 127.0.0.1.
        resident: Returns the server's resident memory in megabytes.
        clients: Number of clients that attack.
        seconds: Duration of the attack.

    """
    before = resident()
    slowest = highest = 0.0
    with _attacked(attack, port, clients):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            slowest = max(slowest, probe(port))
            highest = max(highest, resident())
            time.sleep(0.01)
    return Impact(slowest, highest - before)


def probe(port: int, timeout: float = 30.0) -> float:
    """Return the milliseconds that ``/health/live`` takes on a new connection, all of ``timeout`` if it fails."""
    begun = time.perf_counter()
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)) as connection:
            connection.request("GET", "/health/live")
            if connection.getresponse().status != http.HTTPStatus.OK:
                return 1000 * timeout
    except (OSError, http.client.HTTPException):
        return 1000 * timeout
    return 1000 * (time.perf_counter() - begun)


@contextmanager
def _attacked(attack: str, port: int, clients: int) -> Iterator[None]:
    """Attack from another process: its threads would delay the probe by Python's lock."""
    command = [sys.executable, "-m", "fuzz.connections", attack, str(port), str(clients)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()  # it has begun
            yield
        finally:
            process.kill()


def _read_responses(connection: socket.socket, responses: int) -> None:
    """Read until the last of some responses has begun."""
    with connection.makefile("rb") as stream:
        for line in stream:
            responses -= line.startswith(b"HTTP/1.1 ")
            if not responses:
                return


def main() -> None:
    """Attack until killed; the arguments are the attack, the port and the number of clients."""
    attack, port, clients = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    first, again = ENDLESS[attack]

    def client() -> None:
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.settimeout(0.2 if attack not in _READ else 20)
                connection.sendall(first)
                while True:
                    with suppress(TimeoutError):
                        connection.sendall(again)
                    if attack in _READ:
                        _read_responses(connection, again.count(b"\r\n\r\n"))

    for _ in range(clients):
        threading.Thread(target=client).start()
    print("begun", flush=True)


if __name__ == "__main__":
    main()
