"""The cost of each stage of an answer without HTTP: CPU and wall milliseconds, medians over the rounds.

python -m benchmarks.stages MODEL IMAGE…
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from resnet_service.imaging.decode import DRAFT_MARGIN, decode
from resnet_service.imaging.preprocess import crop
from resnet_service.inference.ranking import rank
from resnet_service.models.labels import LabelSet
from resnet_service.runtimes.registry import open_runtime

_ROUNDS = 20


def main() -> None:
    """Print the costs as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path, nargs="+")
    args = parser.parse_args()
    runtime = open_runtime(args.model, workers=2)
    metadata = runtime.metadata
    labels = LabelSet.numbered(metadata.num_classes)
    min_side = DRAFT_MARGIN * metadata.resize_size
    files = [path.read_bytes() for path in args.images]
    images = [decode(file, min_side=min_side).image for file in files]
    crops = np.stack([crop(image, metadata, exact=False) for image in images])
    logits = runtime.logits(crops)
    indices = range(len(files))
    stages: dict[str, Callable[[int], object]] = {
        "decode": lambda index: decode(files[index], min_side=min_side),
        "crop, fast": lambda index: crop(images[index], metadata, exact=False),
        "crop, exact": lambda index: crop(images[index], metadata),
        "infer, throughput": lambda index: runtime.logits(crops[index : index + 1], prefer_latency=False),
        "infer, latency": lambda index: runtime.logits(crops[index : index + 1]),
        "rank": lambda index: rank(logits[index], labels, 5),
    }
    print(json.dumps({name: measure(stage, indices) for name, stage in stages.items()}, indent=1))


def measure(stage: Callable[[int], object], indices: range) -> dict[str, float]:
    """Return the median cost of one call over ``_ROUNDS`` rounds, in milliseconds."""
    cpu, wall = [], []
    for _ in range(_ROUNDS):
        cpu_before, wall_before = time.process_time(), time.perf_counter()
        for index in indices:
            stage(index)
        cpu.append(1000 * (time.process_time() - cpu_before) / len(indices))
        wall.append(1000 * (time.perf_counter() - wall_before) / len(indices))
    return {"cpu": round(statistics.median(cpu), 3), "wall": round(statistics.median(wall), 3)}


if __name__ == "__main__":
    main()
