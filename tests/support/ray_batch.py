"""A program for the tests: a Ray cluster of several nodes on this machine, a batch on it, a node killed meanwhile.

python ray_batch.py MODEL INPUT OUTPUT [--kill]

Prints what came of it as JSON, with the pictures a second between the first part and the last. Apart from the tests'
process, which is not to hold Ray's threads, signal handlers and warnings.
"""

import argparse
import json
import threading
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from resnet_service.batch.job import Recipe, Totals, classify_batch
from resnet_service.ray.batch import ray_engine

_NODES = 2  # with a CPU each, beside the head, which works on nothing
_WAIT_SECONDS = 120


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("input")
    parser.add_argument("output", type=Path)
    parser.add_argument("--kill", action="store_true")
    args = parser.parse_args()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(_NODES)]
        cluster.wait_for_nodes(_WAIT_SECONDS)
        ray.init(address=cluster.address, log_to_driver=False)
        recipe = Recipe(args.model)
        classifier = recipe.open(1)
        marks: list[tuple[float, int]] = []
        killed_at: list[int] = []

        def kill() -> None:
            """Kill a node as soon as results arrive, and put another one in its place."""
            deadline = time.monotonic() + _WAIT_SECONDS
            while time.monotonic() < deadline and not killed_at:
                there = len(list(args.output.glob("part-*.parquet")))
                if there >= 3:
                    killed_at.append(there)
                    cluster.remove_node(nodes[0], allow_graceful=False)
                    cluster.add_node(num_cpus=1)
                time.sleep(0.01)

        if args.kill:
            threading.Thread(target=kill, daemon=True).start()

        def progress(totals: Totals) -> None:
            marks.append((time.monotonic(), totals.written))

        totals = classify_batch(
            args.input, str(args.output), classifier, ray_engine(recipe, classifier, None), progress=progress
        )
        (begun, before), (ended, written) = marks[1], marks[-1]
        speed = (written - before) / (ended - begun) if ended > begun else 0.0
        print(json.dumps({**totals.as_dict(), "killed_at": killed_at, "steady_per_second": speed}))
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main()
