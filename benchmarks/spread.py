"""How connections spread over the processes of a service, and what counting a request costs.

python -m benchmarks.spread MODEL [--processes 4] [--rounds 5]

Connections are opened one after the other, and each sends one request. `ours` is this service; `shared accept` and
`SO_REUSEPORT` are event loops that accept without regard to one another. The figure is the busiest process's number of
connections divided by the mean: the median of all rounds.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resnet_service.observability.metrics import STAGES, Metrics

_REQUEST = b"GET /labels HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n"
_UPDATES = 20_000


def main() -> None:
    """Measure, and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    results: dict[str, float] = {"microseconds_of_cpu_to_count_a_request": _count_seconds() * 1e6}
    for connections in (16, 64):
        with _ours(args.model.absolute(), args.processes) as port:
            results[f"ours, {connections}"] = _median(port, connections, args)
        for name in ("shared accept", "SO_REUSEPORT"):
            with _plain(args.processes, reuse=name == "SO_REUSEPORT") as port:
                results[f"{name}, {connections}"] = _median(port, connections, args)
    print(json.dumps({name: round(value, 2) for name, value in results.items()}, indent=1))


def _count_seconds() -> float:
    metrics, seconds = Metrics(), []
    for _ in range(7):
        begun = time.process_time()
        for _ in range(_UPDATES):
            metrics.begin()
            for stage in STAGES:
                metrics.stage(stage, 0.002)
            metrics.answered("/predict", "POST", 200, 0.01, None)
        seconds.append((time.process_time() - begun) / _UPDATES)
    return statistics.median(seconds)


def _median(port: int, connections: int, args: argparse.Namespace) -> float:
    return statistics.median(_busiest(port, connections, args.processes) for _ in range(args.rounds))


def _busiest(port: int, connections: int, processes: int) -> float:
    """Return the most connections that one process has, relative to the mean."""
    sockets = []
    try:
        for _ in range(connections):
            sockets.append(socket.create_connection(("127.0.0.1", port), timeout=10))
            sockets[-1].sendall(_REQUEST)
            sockets[-1].recv(1 << 16)
        owners = _owners(port)
        counts = Counter(owners[each.getsockname()[1]] for each in sockets)
        return max(counts.values()) / (connections / processes)
    finally:
        for each in sockets:
            each.close()
        time.sleep(0.3)  # until the processes have noticed


def _owners(port: int) -> dict[int, int]:
    """Return the process that holds the server's end of each connection to ``port``, by the client's port."""
    inodes = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == port:
            inodes[fields[9]] = int(fields[2].rpartition(":")[2], 16)
    found = {}
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            name = os.readlink(link)
        except OSError:  # it has ended, or belongs to somebody else
            continue
        if (match := re.fullmatch(r"socket:\[(\d+)\]", name)) and match[1] in inodes:
            found[inodes[match[1]]] = int(link.parts[2])
    return found


@contextmanager
def _ours(model: Path, processes: int) -> Iterator[int]:
    flags = ["--port", "0", "--checkpoint", str(model), "--processes", str(processes), "--workers", str(processes)]
    command = [sys.executable, "-m", "resnet_service", "serve", "--log-format", "json", *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            for line in server.stderr or ():
                if found := re.search(r"Ready on http://[^:]+:(\d+)/", line):
                    yield int(found[1])
                    break
        finally:
            server.kill()  # its processes end with it


@contextmanager
def _plain(processes: int, *, reuse: bool) -> Iterator[int]:
    """Serve one fixed answer from forked event loops."""
    with _listening(0, reuse=reuse) as listener:
        port = listener.getsockname()[1]
        children = []
        for number in range(processes):
            child = os.fork()
            if child == 0:
                asyncio.run(_answer(listener if number == 0 or not reuse else _listening(port, reuse=True)))
            children.append(child)
        time.sleep(1)
        try:
            yield port
        finally:
            for child in children:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


def _listening(port: int, *, reuse: bool) -> socket.socket:
    listener = socket.socket()
    if reuse:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(2048)
    return listener


async def _answer(listener: socket.socket) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 16):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    server = await asyncio.start_server(talk, sock=listener)
    await server.serve_forever()


if __name__ == "__main__":
    main()
