"""How much more two processes answer than one, when nothing but HTTP costs time.

python -m benchmarks.scaling [--rounds 5] [--seconds 4] [--model MODEL]

The classifier costs nothing; with ``--model``, it is that of an exported model, and the CPU times show what threads of
one process cost each other. wrk sends raw bodies over 16 connections. One process and two are measured in turns.
wrk takes CPU time from them, so on as many CPUs as processes the ratio has a bound: one process answers 1 / (its CPU
time of a request) and leaves wrk the other CPU; two and wrk share all of them. On a machine that does other work, only
the CPU times and this bound mean anything.

Two CPUs are often the two threads of one core, which share its units, also where a virtual machine does not say so.
Then each is slower while the other computes. A loop that shares nothing with others shows by how much.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks import load
from benchmarks.free_worker import free_of_cost
from benchmarks.images import PHOTOGRAPHS, make
from benchmarks.paths import CACHE
from benchmarks.processes import ProcessTree, await_port, free_port
from resnet_service.server import startup, supervisor
from resnet_service.settings import Settings

_COUNTS = (1, 2)
_CONNECTIONS = 16


def main() -> None:
    """Measure, and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--model", type=Path, help="an exported model, instead of a classifier that costs nothing")
    parser.add_argument("--serve", type=int, nargs=2, metavar=("PROCESSES", "PORT"), help="only serve")
    args = parser.parse_args()
    if args.serve:
        _serve(args.serve[0], args.serve[1], args.model)
        return
    image = make(PHOTOGRAPHS, CACHE)[0]
    measured = _measure(image, args.rounds, args.seconds, args.model)
    rate, server, wrk = (
        {count: round(statistics.median(values), 3) for count, values in each.items()} for each in measured
    )
    ratios = [two / one for one, two in zip(measured[0][1], measured[0][2], strict=True)]
    results = {
        "bytes of the image": image.stat().st_size,
        "requests a second": rate,
        "CPU ms of the service a request": server,
        "CPU ms of wrk a request": wrk,
        "ratio, median of the rounds": round(statistics.median(ratios), 2),
        "CPU time of a loop beside another loop, relative to alone": round(_slowdown(args.rounds), 2),
        "bound of the ratio on two CPUs": round(2 * server[1] / (server[2] + wrk[2]), 2),
    }
    print(json.dumps(results, indent=1))


def _measure(image: Path, rounds: int, seconds: float, model: Path | None) -> tuple[dict[int, list[float]], ...]:
    """Return requests a second, CPU ms of the service and CPU ms of wrk a request, by the number of processes."""
    rate: dict[int, list[float]] = {count: [] for count in _COUNTS}
    server: dict[int, list[float]] = {count: [] for count in _COUNTS}
    wrk: dict[int, list[float]] = {count: [] for count in _COUNTS}
    ports = {count: free_port() for count in _COUNTS}
    command = [sys.executable, "-m", "benchmarks.scaling", *(["--model", str(model)] if model else []), "--serve"]
    with Path(os.devnull).open("wb") as log:
        trees = {count: ProcessTree([*command, f"{count}", f"{port}"], {}, log) for count, port in ports.items()}
        try:
            for count, tree in trees.items():
                await_port(ports[count], tree)
                load.run(_url(ports[count]), None, [image], connections=_CONNECTIONS, seconds=1)
            for _ in range(rounds):
                for count, tree in trees.items():
                    before, wrk_before = tree.cpu_seconds(), _children_seconds()
                    found = load.run(_url(ports[count]), None, [image], connections=_CONNECTIONS, seconds=seconds)
                    if found.errors:
                        raise RuntimeError(f"{found.errors} requests failed")
                    rate[count].append(found.per_second)
                    server[count].append(1000 * (tree.cpu_seconds() - before) / found.requests)
                    wrk[count].append(1000 * (_children_seconds() - wrk_before) / found.requests)
        finally:
            for tree in trees.values():
                tree.stop()
    return rate, server, wrk


def _slowdown(rounds: int) -> float:
    """Return the CPU time of work beside the same work in another process, relative to its time alone."""
    ratios = []
    for _ in range(rounds):
        alone = _loop()
        with ProcessPoolExecutor(2) as pool:
            beside = statistics.mean(pool.map(_loop_at, [time.monotonic() + 0.5] * 2))
        ratios.append(beside / alone)
    return statistics.median(ratios)


def _loop_at(begin: float) -> float:
    time.sleep(max(begin - time.monotonic(), 0))
    return _loop()


def _loop() -> float:
    """Return the CPU seconds of a fixed amount of work in the interpreter."""
    begun = time.process_time()
    sum(number % 7 for number in range(20_000_000))
    return time.process_time() - begun


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}/predict"


def _children_seconds() -> float:
    """Return the CPU time of the children that have ended, which only wrk's runs do meanwhile."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _serve(count: int, port: int, model: Path | None) -> None:
    if model is None:
        free_of_cost()
        supervisor.WORKER = "benchmarks.free_worker"
    settings = Settings(processes=count, workers=max(_COUNTS), port=port, host="127.0.0.1", log_format="json")
    startup.start(settings if model is None else settings.model_copy(update={"checkpoint": model}))


if __name__ == "__main__":
    main()
