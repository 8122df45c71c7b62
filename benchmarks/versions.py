"""Two versions of this service, in turns: ``python -m benchmarks.versions OLD NEW``, each the folder of a checkout.

Both serve the model of the repository, run by this environment's Python. Each round starts both, measures the time to
the first answer, requests a second and CPU time a request at one and at 16 connections, and resident memory afterwards.
The table shows the medians of all rounds and the ratio of NEW to OLD. Needs ``wrk``.
"""

import argparse
import socket
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from benchmarks import client, load
from benchmarks.paths import REPOSITORY
from benchmarks.processes import ProcessTree

_MODEL = REPOSITORY / "checkpoints" / "resnet18-fashion-mnist-int8.onnx"
_IMAGES = sorted((REPOSITORY / "examples" / "images").glob("*.jpg"))
_START_SECONDS = 60.0
_CONNECTIONS = (1, 16)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.versions", description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3, help="for each measurement under load")
    args = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {"old": defaultdict(list), "new": defaultdict(list)}
    for number in range(args.rounds):
        # Each goes first in half of the rounds.
        for name in ("old", "new") if number % 2 == 0 else ("new", "old"):
            for figure, value in _measure(getattr(args, name), args.seconds).items():
                found[name][figure].append(value)
    print(
        f"{'medians of ' + str(args.rounds) + ' rounds':36} {'old':>9} {'new':>9}  new / old (lowest to highest round)"
    )
    for figure, old in found["old"].items():
        new = found["new"][figure]
        ratios = [after / before for before, after in zip(old, new, strict=True)]
        median = statistics.median(new) / statistics.median(old)
        print(
            f"{figure:36} {statistics.median(old):9.3f} {statistics.median(new):9.3f}  "
            f"{median:.3f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


def _measure(checkout: Path, seconds: float) -> dict[str, float]:
    """Start the version in ``checkout``, and return its figures by name."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "resnet_service", "serve", "--checkpoint", str(_MODEL), "--port", str(port)]
    variables = {"PYTHONPATH": str((checkout / "src").resolve()), "RESNET_SERVICE_LOG_LEVEL": "warning"}
    sent = client.upload(_IMAGES[0].read_bytes(), None)
    with tempfile.TemporaryFile() as log:
        begun = time.perf_counter()
        tree = ProcessTree(command, variables, log)
        try:
            client.first_answer(port, "/predict", sent, ended=lambda: tree.ended, within=_START_SECONDS)
            figures = {"first answer, s": time.perf_counter() - begun}
            for connections in _CONNECTIONS:
                before = tree.cpu_seconds()
                under = load.run(
                    f"http://127.0.0.1:{port}/predict", None, _IMAGES, connections=connections, seconds=seconds
                )
                spent = 1000 * (tree.cpu_seconds() - before) / under.requests
                figures[f"requests/s, {connections} connections"] = under.per_second
                figures[f"CPU a request, ms, {connections} connections"] = spent
                tree.settle()
            return {**figures, "memory, MB": tree.resident_bytes() / 2**20}
        finally:
            tree.stop()


if __name__ == "__main__":
    main()
