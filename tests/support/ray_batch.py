"""A program for the tests: batches on a Ray cluster of several nodes on this machine, one of which is killed.

python ray_batch.py MODEL INPUT OUTPUT

Writes the results of three runs into folders below OUTPUT: ``undisturbed``; ``killed``, in the middle of which a node
dies for good; ``deadly``, where one part ends each worker that begins it. Prints what came of each as JSON, by that
name. Apart from the tests' process, which is not to hold Ray's threads, signal handlers and warnings.
"""

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from resnet_service.batch.job import BatchConfig, Totals, classify_batch
from resnet_service.batch.outputs import Output, Result
from resnet_service.batch.shards import Shard
from resnet_service.batch.worker import Outcome
from resnet_service.errors import ClusterFailed
from resnet_service.ray.batch import ray_engine

_NODES = 2  # with a CPU each, besides the head, which has none
_WAIT_SECONDS = 120
_FEW_SHARDS = 20


class DeadlyOutput(Output):
    """Ends the process that writes a certain part, as a crash in C code would."""

    def __init__(self, output: Output, deadly: str) -> None:
        self.__dict__.update(output.__dict__)
        self._deadly = deadly

    def write(self, name: str, results: Sequence[Result]) -> None:
        if name == self._deadly:
            os._exit(1)
        super().write(name, results)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("input")
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(_NODES)]
    cluster.wait_for_nodes(_WAIT_SECONDS)
    ray.init(address=cluster.address, log_to_driver=False)
    config = BatchConfig(args.model)
    classifier = config.open(1)
    engine = ray_engine(config, classifier, None)
    killed_at: list[int] = []

    def kill(totals: Totals) -> None:
        if not killed_at and totals.written >= totals.images // 4:
            killed_at.append(totals.written)
            cluster.remove_node(nodes[0], allow_graceful=False)

    def deadly(shards: Sequence[Shard], output: Output) -> Iterator[Outcome]:
        few = shards[:_FEW_SHARDS]
        yield from ray_engine(config, classifier, None, restarts=1)(few, DeadlyOutput(output, few[7].name))

    def batch(name: str, **options: Any) -> dict[str, object]:
        target = str(args.output / name)
        return classify_batch(args.input, target, classifier, config=config, **{"engine": engine, **options}).as_dict()

    try:
        answers = {"undisturbed": batch("undisturbed"), "killed": batch("killed", progress=kill)}
        try:
            answers["deadly"] = batch("deadly", engine=deadly)
        except ClusterFailed as error:
            answers["deadly"] = {"error": str(error)}
        print(json.dumps({**answers, "killed_at": killed_at}))
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main()
