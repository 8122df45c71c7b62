"""HTTP servers under attack and at work: the evidence for decision 0034.

    python -m benchmarks.http_servers

Each server but this service runs an ASGI application of six lines. The servers take turns; each figure is the median
of the rounds. Attacks are those of ``fuzz.connections``, by one client for a second, with a probe every 10 ms. Servers
stay up between attacks, so what one leaves behind burdens the next, as it would in operation.
"""

import argparse
import http.client
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks import environments
from benchmarks.paths import BENCHMARKS, REPOSITORY
from benchmarks.processes import ProcessTree, await_port, free_port
from fuzz.connections import ENDLESS, Impact, impact_of

_MEGABYTE = 2**20
_BODY = bytes(100_000)
_APP = "benchmarks.servers.bare_asgi:app"


class Running(NamedTuple):
    """A server that runs."""

    tree: ProcessTree
    port: int

    def resident(self) -> float:
        """Return its memory in megabytes."""
        return self.tree.resident_bytes() / _MEGABYTE


def main() -> None:
    """Print two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=2000)
    args = parser.parse_args()
    found = {name: _measured(name, args.rounds, args.requests) for name in commands(Path(sys.executable), 0)}
    print(table(found))


def commands(python: Path, port: int) -> dict[str, list[str]]:
    """Return the command of each server; ``python`` is that of an environment with the peers."""
    uvicorn = [str(python), "-m", "uvicorn", "--port", str(port), "--log-level", "critical", "--no-access-log"]
    granian = [str(python), "-m", "granian", "--interface", "asgi", "--port", str(port), "--no-log", "--loop", "uvloop"]
    service = [sys.executable, "-m", "resnet_service", "serve", "--port", str(port), "--log-level", "error"]
    return {
        "this service": service,
        "uvicorn, h11": [*uvicorn, "--http", "h11", _APP],
        "uvicorn, httptools": [*uvicorn, "--http", "httptools", _APP],
        "uvicorn, zttp": [*uvicorn, "--http", "zttp", _APP],
        "Granian": [*granian, _APP],
    }


class Measured(NamedTuple):
    """The CPU milliseconds of a request, where the application is the same, and the impact of each attack."""

    cpu: float | None
    impacts: Mapping[str, Impact]


def _measured(name: str, rounds: int, requests: int) -> Measured:
    print(f"Measuring {name}", file=sys.stderr, flush=True)
    with _running(name) as server:
        costs = [] if name == "this service" else [_cost(server, requests) for _ in range(rounds)]
        impacts = {
            attack: [impact_of(attack, server.port, server.resident) for _ in range(rounds)] for attack in ENDLESS
        }
    return Measured(
        statistics.median(costs) if costs else None,
        {
            attack: Impact(*(statistics.median(values) for values in zip(*found, strict=True)))
            for attack, found in impacts.items()
        },
    )


def _cost(server: Running, requests: int) -> float:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        before = server.tree.cpu_seconds()
        for _ in range(requests):
            connection.request("POST", "/", _BODY, {"Content-Type": "image/jpeg"})
            connection.getresponse().read()
        return 1000 * (server.tree.cpu_seconds() - before) / requests


@contextmanager
def _running(name: str) -> Iterator[Running]:
    port = free_port()
    python = environments.make_one("http", BENCHMARKS / "requirements" / "http.txt")
    with tempfile.TemporaryFile() as log:
        tree = ProcessTree(commands(python, port)[name], {"PYTHONPATH": str(REPOSITORY)}, log)
        try:
            await_port(port, tree)
            yield Running(tree, port)
        finally:
            tree.stop()


def table(found: Mapping[str, Measured]) -> str:
    """Return a table with a column a server: the slowest probe in ms and the growth of memory in MB."""
    lines = [f"| | {' | '.join(found)} |", f"|---{'|--:' * len(found)}|"]
    cpu = " | ".join("" if one.cpu is None else f"{one.cpu:.3f}" for one in found.values())
    lines.append(f"| CPU ms of a request of 100 kB | {cpu} |")
    for attack in ENDLESS:
        cells = (one.impacts[attack] for one in found.values())
        lines.append(f"| {attack} | {' | '.join(f'{c.milliseconds:.0f} ms, {c.megabytes:+.0f} MB' for c in cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
