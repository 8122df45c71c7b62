"""The throughput of classify-batch with threads, processes and Ray, in turns on one machine.

python -m benchmarks.batch MODEL IMAGES [--rounds 5] [--number 2000] [--output docs/benchmarks/batch.json]

IMAGES is a folder; its JPEGs are repeated until there are ``number``. It needs a Python with the extra `ray`. The
figures of the two engines are those of the last two thirds of the shards, since start-up takes as long for ten images
as for ten million; start-up time is a separate figure.
"""

import argparse
import json
import logging
import multiprocessing
import os
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data

from resnet_service.batch.items import BatchImage
from resnet_service.batch.job import BatchConfig, Engine, classify_batch, local_engine
from resnet_service.batch.messages import shard_text
from resnet_service.batch.shards import plan, shard_size
from resnet_service.ray.batch import ray_engine
from resnet_service.system.cpus import available_cpus

_TASKS = 500
_LISTED = 100_000


class Speed(NamedTuple):
    """Images a second, and the seconds before the first; 0 if the start was not measured."""

    per_second: float
    start_seconds: float = 0.0


def main() -> None:
    """Measure, and print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--number", type=int, default=2000)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    files = sorted(path.read_bytes() for path in args.images.glob("*.jpg"))
    taken = [files[index % len(files)] for index in range(args.number)]
    cpus = available_cpus()
    config = BatchConfig(args.model.absolute())
    speeds: dict[str, list[Speed]] = {"one thread": [], "processes": [], "threads": [], "ray": []}
    with tempfile.TemporaryDirectory(prefix="batch-", dir="/tmp") as folder:  # Ray's sockets need a short path
        source = Path(folder) / "images.parquet"
        pq.write_table(pa.table({"image": taken}), source, row_group_size=shard_size(len(taken)))
        ray.init(
            num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, _temp_dir=folder
        )
        for number in range(args.rounds):
            for name, found in speeds.items():
                target = Path(folder) / f"{name}-{number}"
                found.append(_speed(name, config, source, target, cpus, files))
        row_bytes = sum(path.stat().st_size for path in target.glob("part-*")) / len(taken)
        task_ms = _task_ms()
        ray.shutdown()
    pairs = zip(speeds["ray"], speeds["threads"], strict=True)
    listed_bytes, described_bytes = _described()
    figures: dict[str, Any] = {
        "cpus": cpus,
        "load_average": round(os.getloadavg()[0], 1),
        "images": len(taken),
        "image_bytes": round(statistics.mean(map(len, files))),
        "row_bytes": round(row_bytes),
        "stage_ms": _stages(config, files),
        "ray_task_ms": round(task_ms, 1),
        "ray_start_seconds": [round(speed.start_seconds, 1) for speed in speeds["ray"]],
        "listed_bytes": round(listed_bytes),
        "described_bytes": round(described_bytes),
        "per_second": {name: [round(speed.per_second, 1) for speed in found] for name, found in speeds.items()},
        "ray_of_threads": [round(ours.per_second / own.per_second, 3) for ours, own in pairs],
    }
    text = json.dumps(figures, indent=1)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")


def _speed(name: str, config: BatchConfig, source: Path, target: Path, cpus: int, files: Sequence[bytes]) -> Speed:
    if name == "processes":
        return Speed(_processes(config, cpus, files))
    workers = 1 if name == "one thread" else cpus
    classifier = config.open(workers)
    engine: Engine = (
        ray_engine(config, classifier, cpus) if name == "ray" else local_engine(classifier, workers, config.top_k)
    )
    begun = time.time()
    classify_batch(str(source), str(target), classifier, engine, config)
    # The files' times are exact; the engine reports shards later and several together.
    written = sorted((path.stat().st_mtime, pq.read_metadata(path).num_rows) for path in target.glob("part-*"))
    # Ray's workers start some seconds apart; after a third of the shards, all are running.
    steady = written[len(written) // 3 :]
    return Speed(sum(rows for _, rows in steady[1:]) / (steady[-1][0] - steady[0][0]), written[0][0] - begun)


def _processes(config: BatchConfig, count: int, files: Sequence[bytes]) -> float:
    """Return images a second of ``count`` processes with a classifier each, without reading and writing."""
    context = multiprocessing.get_context("spawn")
    barrier, spans = context.Barrier(count), context.SimpleQueue()
    processes = [context.Process(target=_process, args=(config, files, barrier, spans)) for _ in range(count)]
    for process in processes:
        process.start()
    found = [spans.get() for _ in processes]
    for process in processes:
        process.join()
    seconds: float = max(end for _, end in found) - min(begin for begin, _ in found)
    return count * _EACH / seconds


_EACH = 500  # images of each process


def _process(config: BatchConfig, files: Sequence[bytes], barrier: Any, spans: Any) -> None:
    classifier = config.open(1)
    classifier.warm_up()
    barrier.wait()
    begun = time.monotonic()
    for index in range(_EACH):
        classifier.classify(files[index % len(files)])
    spans.put((begun, time.monotonic()))


def _stages(config: BatchConfig, files: Sequence[bytes]) -> dict[str, float]:
    """Return the milliseconds of each stage of an image on one thread."""
    classifier = config.open(1)
    classifier.warm_up()
    timings = [classifier.classify(files[index % len(files)]).timing_ms for index in range(_EACH)]
    return {
        stage: round(statistics.median(getattr(timing, stage) for timing in timings), 2)
        for stage in ("decode", "preprocess", "inference")
    }


class _Nothing:
    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return row


def _task_ms() -> float:
    """Return the milliseconds between two results of an idle worker: the cost of Ray and its driver."""
    rows: list[dict[str, Any]] = [{"number": number} for number in range(_TASKS)]
    dataset = ray.data.from_items(rows, override_num_blocks=_TASKS)
    pool = ray.data.ActorPoolStrategy(size=1, max_tasks_in_flight_per_actor=4)
    marks = [time.perf_counter() for _ in dataset.map(_Nothing, compute=pool, num_cpus=1).iter_rows()]
    return 1000 * (marks[-1] - marks[0]) / (len(marks) - 1)


def _described() -> tuple[float, float]:
    """Return the bytes of a listed image in the driver's memory, and the bytes that a worker is sent for it."""
    tracemalloc.start()
    images = [BatchImage(f"s3://a-bucket/a-folder/of-images/{n:012}.jpg", None, 100_000 + n) for n in range(_LISTED)]
    shards = list(plan(images, set()))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held / _LISTED, sum(len(shard_text(shard)) for shard in shards) / _LISTED


if __name__ == "__main__":
    main()
