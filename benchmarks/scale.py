"""What 1, 10 and 1,000 nodes would do, calculated from what was measured on one.

python -m benchmarks.scale [docs/benchmarks/batch.json]

Prints the table of docs/scale.md, and the figures that stand around it. What is assumed and not measured stands here
by name.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.paths import REPOSITORY
from resnet_service.batch.shards import part_size, task_count

FIGURES = REPOSITORY / "docs" / "benchmarks" / "batch.json"

NODES = (1, 10, 1000)
CORES = 16  # a node
LINK_BITS = 10e9  # a second, of each node and of the driver's
# What Amazon S3 documents for each prefix of a bucket ("Best practices design patterns: optimizing Amazon S3
# performance"); a bucket may have any number of prefixes, and comes to this only after it has grown into it.
STORE_READS = 5500
BATCH = 100_000_000  # images of one run: what its driver can hold in memory

CPU, LINKS, STORE, DRIVER = "CPU", "links", "one prefix", "driver"


class Bound(NamedTuple):
    """What limits a cluster, and to how many images a second."""

    name: str
    per_second: float


def bounds(figures: dict[str, Any], nodes: int) -> list[Bound]:
    """Return the bounds for a number of nodes, the lowest first; images are single objects under one prefix."""
    core = statistics.median(figures["per_second"]["threads"]) / figures["cpus"]
    core *= min(1.0, statistics.median(figures["ray_of_threads"]))
    cpus = nodes * CORES
    tasks = task_count(BATCH // part_size(BATCH), BATCH, cpus)
    handed = min(1000 / figures["ray_task_ms"] * BATCH / tasks, LINK_BITS / 8 / figures["described_bytes"])
    return sorted(
        [
            Bound(CPU, cpus * core),
            Bound(LINKS, nodes * LINK_BITS / 8 / (figures["image_bytes"] + figures["row_bytes"])),
            Bound(STORE, STORE_READS),
            Bound(DRIVER, handed),
        ],
        key=lambda bound: bound.per_second,
    )


def table(figures: dict[str, Any]) -> str:
    """Return the table of docs/scale.md: each bound by itself, and what is left when the store's is lifted."""
    lines = [
        "| nodes | CPU | links | one prefix | driver | bound by | with enough prefixes | 100 million take |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for nodes in NODES:
        found = bounds(figures, nodes)
        each = {bound.name: bound.per_second for bound in found}
        first = found[0]
        lifted = next(bound for bound in found if bound.name != STORE)
        cells = " | ".join(_number(each[name]) for name in (CPU, LINKS, STORE, DRIVER))
        hours = BATCH / lifted.per_second / 3600
        lines.append(
            f"| {nodes:,} | {cells} | {first.name} | {_number(lifted.per_second)}: {lifted.name} | {hours:.2g} h |"
        )
    return "\n".join(lines)


def around(figures: dict[str, Any]) -> str:
    """Return the figures that stand around the table."""
    stages = figures["stage_ms"]
    whole = sum(stages.values())
    shares = ", ".join(f"{stage} {spent} ms ({spent / whole:.0%})" for stage, spent in stages.items())
    store = NODES[-1] * CORES * statistics.median(figures["per_second"]["threads"]) / figures["cpus"]
    return "\n".join(
        (
            f"one image on one core: {shares}",
            f"Ray relative to the local engine, images per second: {statistics.median(figures['ray_of_threads']):.2f} "
            f"({min(figures['ray_of_threads']):.2f} to {max(figures['ray_of_threads']):.2f})",
            f"seconds until Ray's first shard: {statistics.median(figures['ray_start_seconds']):.0f}",
            f"the driver: {figures['ray_task_ms']} ms per task, {figures['described_bytes']} bytes sent per image",
            f"the driver's memory for {BATCH:,} images: {_number(figures['listed_bytes'] * BATCH / 1e9)} GB",
            f"prefixes that {NODES[-1]:,} nodes would need: {_number(store / STORE_READS)}",
        )
    )


def _number(value: float) -> str:
    """Write two significant digits: the assumptions do not bear more."""
    return f"{float(f'{value:.2g}'):,.0f}"


if __name__ == "__main__":
    measured = json.loads(Path(sys.argv[1] if len(sys.argv) > 1 else FIGURES).read_text())
    print(around(measured), table(measured), sep="\n\n")
