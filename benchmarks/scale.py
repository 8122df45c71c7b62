"""What 1, 10 and 1,000 nodes would do, calculated from what was measured on one.

python -m benchmarks.scale [docs/benchmarks/batch.json]

Prints the table of docs/scale.md. What is assumed and not measured stands here by name.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.paths import REPOSITORY

FIGURES = REPOSITORY / "docs" / "benchmarks" / "batch.json"

NODES = (1, 10, 1000)
CORES = 16  # a node
NETWORK_BITS = 10e9  # a second and node, towards the store
# What Amazon S3 documents for each prefix of a bucket ("Best practices design patterns: optimizing Amazon S3
# performance"); a bucket may have any number of prefixes, and comes to this only after it has grown into it.
STORE_READS = 5500
TASK_PICTURES = 500  # as in ray/batch.py


class Bound(NamedTuple):
    """What limits a cluster, and to how many pictures a second."""

    name: str
    per_second: float


def bounds(figures: dict[str, Any], nodes: int) -> list[Bound]:
    """Return the bounds for a number of nodes, the lowest first; pictures are single objects under one prefix."""
    core = statistics.median(figures["per_second"]["one thread"]) * min(
        1.0, statistics.median(figures["ray_of_threads"])
    )
    return sorted(
        [
            Bound("CPU (decode and network)", nodes * CORES * core),
            Bound("the nodes' links", nodes * NETWORK_BITS / 8 / (figures["picture_bytes"] + figures["row_bytes"])),
            Bound("reads from one prefix of the store", STORE_READS),
            Bound("Ray's driver", 1000 / figures["ray_task_ms"] * TASK_PICTURES),
        ],
        key=lambda bound: bound.per_second,
    )


def table(figures: dict[str, Any]) -> str:
    """Return the table of docs/scale.md: each bound by itself, and what is left when the store's is lifted."""
    lines = [
        "| nodes | CPU | links | one prefix | driver | bound by | pictures/s | with many prefixes | a billion takes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for nodes in NODES:
        found = bounds(figures, nodes)
        each = {bound.name: bound.per_second for bound in found}
        first = found[0]
        lifted = next(bound for bound in found if not bound.name.startswith("reads"))
        order = ("CPU (decode and network)", "the nodes' links", "reads from one prefix of the store", "Ray's driver")
        cells = " | ".join(_number(each[name]) for name in order)
        hours = 1e9 / lifted.per_second / 3600
        lines.append(
            f"| {nodes:,} | {cells} | {first.name} | {_number(first.per_second)} | "
            f"{_number(lifted.per_second)}: {lifted.name} | {hours:,.1f} h |"
        )
    return "\n".join(lines)


def _number(value: float) -> str:
    """Write two significant digits: the assumptions do not bear more."""
    return f"{float(f'{value:.2g}'):,.0f}"


if __name__ == "__main__":
    print(table(json.loads(Path(sys.argv[1] if len(sys.argv) > 1 else FIGURES).read_text())))
