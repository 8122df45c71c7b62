"""The CPU time of the HTTP path for each request, beside handlers without protections.

    python -m benchmarks.overhead

The classifier costs nothing. Each round sends the same requests to every server, one server after another, over a few
connections that are kept open, and reads the server's user and system time from ``/proc``.
"""

import argparse
import http.client
import statistics
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from benchmarks.client import Upload, upload
from benchmarks.images import PHOTOGRAPHS, make
from benchmarks.machine import describe
from benchmarks.overhead_servers import H11, KEY
from benchmarks.paths import CACHE, REPOSITORY
from benchmarks.processes import ProcessTree, await_port, free_port

_TARGET = REPOSITORY / "docs" / "benchmarks" / "overhead.md"
_START_SECONDS, _ANSWER_SECONDS = 60.0, 30.0
_CONNECTIONS = 4


# From a profile of the server's process.
_MISSED = """\
The bars are what this project aims at. Two things keep the ratios above them. The first is the parser. h11 is written
in Python, and what it adds to FastAPI's handler of raw bodies is about as much as the bar allows for all protections
together; [decision 0036](../decisions/0036-h11-parses-requests.md) says why it is there. The second is what the
references do without, the most expensive first in a profile of a request with a raw body:

- the line in the log: a record, its JSON, and the thread that writes it;
- the response: h11 validates and encodes a header with twice as many fields;
- the wait for the inference: the permit, the deadline, and their timers;
- parameters that are validated, and an answer that is made of models;
- the limits of the body: a timer and three wrappers for each message;
- the metrics and the middleware itself: context, CORS, early responses, keys.

A form costs python-multipart in addition, as it does FastAPI's tutorial.
"""


class Row(NamedTuple):
    """One way to send an image to one server, the rows that it is compared with, and the largest ratio to the first."""

    server: str
    field: str | None
    against: tuple[str, ...] = ()
    bar: float | None = None


ROWS = {
    "this service, form": Row("service", "file", ("FastAPI's tutorial, form", "FastAPI's tutorial, form, on h11"), 1.0),
    "this service, raw body": Row("service", None, ("FastAPI, raw body", "FastAPI, raw body, on h11"), 1.3),
    "FastAPI's tutorial, form": Row("form", "file"),
    "FastAPI's tutorial, form, on h11": Row(f"form{H11}", "file"),
    "FastAPI, raw body": Row("raw", None),
    "FastAPI, raw body, on h11": Row(f"raw{H11}", None),
    "ASGI alone, raw body": Row("asgi", None),
    "ASGI alone, raw body, on h11": Row(f"asgi{H11}", None),
    "ASGI alone, raw body, on this service's server": Row("server", None),
}


def main() -> None:
    """Measure, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=1000, help="requests of each row in a round")
    parser.add_argument("--output", type=Path, default=_TARGET)
    args = parser.parse_args()
    image = make(PHOTOGRAPHS, CACHE)[0].read_bytes()
    costs = measure(image, args.rounds, args.requests)
    text = table(costs)
    print(text)
    args.output.write_text(_page(text, args.rounds, args.requests, len(image)))


def measure(image: bytes, rounds: int, requests: int) -> dict[str, list[float]]:
    """Return the CPU milliseconds a request of each row, one value a round."""
    costs: dict[str, list[float]] = {name: [] for name in ROWS}
    ports = {row.server: free_port() for row in ROWS.values()}
    with tempfile.TemporaryFile() as log:
        trees = {
            name: ProcessTree([sys.executable, "-m", "benchmarks.overhead_servers", name, str(port)], {}, log)
            for name, port in ports.items()
        }
        try:
            for name, tree in trees.items():
                await_port(ports[name], tree)
            for row in ROWS.values():
                _send(ports[row.server], upload(image, row.field), 100)  # imports and caches
            for _ in range(rounds):
                for name, row in ROWS.items():
                    tree = trees[row.server]
                    before = tree.cpu_seconds()
                    _send(ports[row.server], upload(image, row.field), requests)
                    costs[name].append(1000 * (tree.cpu_seconds() - before) / requests)
        finally:
            for tree in trees.values():
                tree.stop()
    return costs


def ratios(costs: Mapping[str, list[float]], name: str, against: str) -> list[float]:
    """Return, for each round, the cost of a row over that of another."""
    return [own / other for own, other in zip(costs[name], costs[against], strict=True)]


def table(costs: Mapping[str, list[float]]) -> str:
    """Return the medians as a Markdown table."""
    lines = ["| handler | CPU ms a request | ratio | bar | ratio on h11 |", "|---|--:|--:|--:|--:|"]
    for name, row in ROWS.items():
        found = [f"{statistics.median(ratios(costs, name, other)):.2f}" for other in row.against] or ["", ""]
        bar = f"{row.bar:g}" if row.bar is not None else ""
        lines.append(f"| {name} | {statistics.median(costs[name]):.2f} | {found[0]} | {bar} | {found[1]} |")
    return "\n".join(lines)


def _page(text: str, rounds: int, requests: int, size: int) -> str:
    machine = describe()
    return (
        "# The cost of the HTTP path\n\n"
        f"CPU time (user and system) of the server for each `POST /predict` with a JPEG of {size:,} bytes and a\n"
        "classifier that costs nothing: medians, and medians of the ratios within a round. This service has all its\n"
        "protections on; the other handlers have none. They run on uvicorn with httptools, its default, and with h11,\n"
        "the parser of this service's server: the ratios on h11 are what its application costs beside theirs.\n"
        "Written by `python -m benchmarks.overhead`\n"
        f"({rounds} rounds of {requests} requests over {_CONNECTIONS} connections;\n"
        f"{machine['processor']}, {machine['cores']} CPUs).\n\n"
        f"{text}\n\n{_MISSED}"
    )


def _send(port: int, sent: Upload, requests: int) -> None:
    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_SECONDS)
        try:
            for _ in range(number):
                connection.request("POST", "/predict", sent.body, {"Content-Type": sent.content_type, "X-API-Key": KEY})
                response = connection.getresponse()
                body = response.read()
                if response.status != 200:
                    raise RuntimeError(f"the answer is {response.status} {body[:200]!r}")
        finally:
            connection.close()

    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        list(pool.map(client, [requests // _CONNECTIONS] * _CONNECTIONS))


if __name__ == "__main__":
    main()
