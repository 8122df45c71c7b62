"""The throughput of several instances on one machine against one instance with the same CPUs, in turns.

python -m benchmarks.instances MODEL IMAGES [--instances 2] [--connections 16] [--rounds 5] [--seconds 4]

IMAGES is a folder of JPEGs. Each instance has its share of workers and connections. There is no load balancer, so its
cost is not included.
"""

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from benchmarks.load import run
from benchmarks.ray_serve import own_server
from resnet_service.system.cpus import available_cpus


def main() -> None:
    """Measure, and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--instances", type=int, default=2)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    args = parser.parse_args()
    model, images = args.model.absolute(), sorted(args.images.absolute().glob("*.jpg"))
    cpus = available_cpus()
    with ExitStack() as servers:
        one = [servers.enter_context(own_server(model, cpus))]
        share = max(1, cpus // args.instances)
        several = [servers.enter_context(own_server(model, share)) for _ in range(args.instances)]
        pairs = []
        for _ in range(args.rounds):
            pair = []
            for urls in (one, several):
                _per_second(urls, images, args.connections, 1)
                pair.append(_per_second(urls, images, args.connections, args.seconds))
            pairs.append(pair)
    print(json.dumps(_summary(cpus, args.instances, pairs)))


def _per_second(urls: Sequence[str], images: Sequence[Path], connections: int, seconds: int) -> float:
    """Return requests a second of all ``urls`` together, under simultaneous load."""
    each = max(1, connections // len(urls))

    def of_one(url: str) -> float:
        return run(f"{url}/predict", "file", images, connections=each, seconds=seconds).per_second

    with ThreadPoolExecutor(len(urls)) as pool:
        return sum(pool.map(of_one, urls))


def _summary(cpus: int, instances: int, pairs: Sequence[Sequence[float]]) -> dict[str, object]:
    """Return medians over the rounds, and the rounds' ratios."""
    ratios = sorted(several / one for one, several in pairs)
    return {
        "cpus": cpus,
        "load_average": round(os.getloadavg()[0], 1),
        "one": round(statistics.median(one for one, _ in pairs), 1),
        str(instances): round(statistics.median(several for _, several in pairs), 1),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "ratio": round(statistics.median(ratios), 2),
    }


if __name__ == "__main__":
    main()
