"""The throughput of larger machines, and of 1, 10 and 1,000 nodes, calculated from measurements on one machine.

python -m benchmarks.scale [docs/benchmarks/batch.json]

Prints the tables of docs/scale.md and the figures in its text. The constants of this module are assumptions, not
measurements, except for ``HTTP_MS``.
"""

import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.bars import BUSY
from benchmarks.paths import REPOSITORY
from benchmarks.results import Results
from resnet_service.batch.shards import shard_size, task_count
from resnet_service.server.supervisor import CPUS_PER_PROCESS

FIGURES = REPOSITORY / "docs" / "benchmarks" / "batch.json"
SERVED = REPOSITORY / "docs" / "benchmarks" / "results.json"

# CPU time of HTTP for one form, which a process spends on one CPU; docs/benchmarks/overhead.md.
HTTP_MS = 0.71
CPUS = (2, 4, 16, 64)

NODES = (1, 10, 1000)
CORES = 16  # a node
LINK_BITS = 10e9  # a second, of each node and of the driver
# Reads a second for each prefix of a bucket, as Amazon documents ("Best practices design patterns: optimizing Amazon S3
# performance"). A bucket may have any number of prefixes, and reaches this rate only after scaling up to it.
STORE_READS = 5500
BATCH = 100_000_000  # images of one run; the driver holds their names in memory

CPU, LINKS, STORE, DRIVER = "CPU", "links", "one prefix", "driver"


class Bound(NamedTuple):
    """A limit of a cluster, in images a second."""

    name: str
    per_second: float


def bounds(figures: dict[str, Any], nodes: int) -> list[Bound]:
    """Return the bounds for a number of nodes, lowest first; each image is an object under one prefix."""
    core = statistics.median(figures["per_second"]["threads"]) / figures["cpus"]
    core *= min(1.0, statistics.median(figures["ray_of_threads"]))
    cpus = nodes * CORES
    tasks = task_count(BATCH // shard_size(BATCH), BATCH, cpus)
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


def machines(results: Results) -> str:
    """Return the table of docs/scale.md for one machine that serves the exported INT8 model to all of its CPUs."""
    cpus = int(results.machine["cores"])
    measured = statistics.median(results.loads("int8", "per_second", BUSY, "photographs").values())
    lines = [
        "| CPUs | processes | CPUs allow | event loops allow | requests per second |",
        "|--:|--:|--:|--:|--:|",
    ]
    for count in CPUS:
        processes = math.ceil(count / CPUS_PER_PROCESS)
        computed, looped = measured * count / cpus, processes * 1000 / HTTP_MS
        figure = f"{_number(min(computed, looped))} ({'measured' if count == cpus else 'calculated'})"
        lines.append(f"| {count} | {processes} | {_number(computed)} | {_number(looped)} | {figure} |")
    return "\n".join(lines)


def table(figures: dict[str, Any]) -> str:
    """Return the table of docs/scale.md: each bound, and the result without the store's bound."""
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
    """Return the figures of the text around the table."""
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
    """Return two significant digits; the assumptions do not justify more."""
    return f"{float(f'{value:.2g}'):,.0f}"


if __name__ == "__main__":
    measured = json.loads(Path(sys.argv[1] if len(sys.argv) > 1 else FIGURES).read_text())
    print(machines(Results.read(SERVED)), around(measured), table(measured), sep="\n\n")
