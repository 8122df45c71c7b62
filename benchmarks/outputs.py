"""The cost of additional outputs: a network exported with and without them, in turns, in milliseconds an image.

python -m benchmarks.outputs A B
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from resnet_service.runtimes.base import Runtime
from resnet_service.runtimes.registry import open_runtime
from resnet_service.system.cpus import available_cpus

_ROUNDS = 60
_IMAGES = 40  # a round


def main() -> None:
    """Print medians over the rounds as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    args = parser.parse_args()
    workers = available_cpus()
    runtimes = {str(path): open_runtime(path, workers=workers) for path in args.models}
    spent: dict[str, dict[str, list[float]]] = {
        path: {
            "logits, latency": [],
            "logits, throughput": [],
            **({"features, latency": []} if one.outputs.embedding else {}),
        }
        for path, one in runtimes.items()
    }
    with ThreadPoolExecutor(workers) as threads:
        for number in range(_ROUNDS + 1):
            # The order alternates, since the first in a round finds other cache contents than the second.
            for path, runtime in list(runtimes.items())[:: -1 if number % 2 else 1]:
                for way, milliseconds in measure(runtime, workers, threads).items():
                    if number:  # the first round warms up
                        spent[path][way].append(milliseconds)
    print(json.dumps({path: {way: _summary(of) for way, of in ways.items()} for path, ways in spent.items()}, indent=1))


def measure(runtime: Runtime, workers: int, threads: ThreadPoolExecutor) -> dict[str, float]:
    """Return milliseconds an image in one round, for each kind of call."""
    side = runtime.metadata.input_size
    pixels = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)

    def throughput(_: int) -> None:
        for _ in range(_IMAGES):
            runtime.logits(pixels, prefer_latency=False)

    ways = {
        "logits, latency": _timed(lambda: [runtime.logits(pixels) for _ in range(_IMAGES)]),
        "logits, throughput": _timed(lambda: list(threads.map(throughput, range(workers)))) / workers,
    }
    if runtime.outputs.embedding:
        ways["features, latency"] = _timed(lambda: [runtime.features(pixels[0]) for _ in range(_IMAGES)])
    return ways


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - begun) / _IMAGES


def _summary(milliseconds: list[float]) -> dict[str, float]:
    lower, median, upper = statistics.quantiles(milliseconds, n=4)
    return {"median": round(median, 3), "quartile": round(lower, 3), "upper quartile": round(upper, 3)}


if __name__ == "__main__":
    main()
