"""What classify-batch does a second: threads beside processes, and Ray beside both, in turns on one machine.

python -m benchmarks.batch MODEL PICTURES [--rounds 3] [--number 1500] [--output docs/benchmarks/batch.json]

PICTURES is a folder; its files are taken again and again until there are ``number``. Run it with a Python that has the
extra `ray`. Ray's figure is from its first part to its last, since starting Ray costs the same for ten pictures and for
ten million.
"""

import argparse
import json
import logging
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data

from resnet_service.batch.job import Engine, Recipe, Totals, classify_batch, local_engine
from resnet_service.batch.parts import part_size
from resnet_service.cpus import available_cpus
from resnet_service.ray.batch import ray_engine

_TASKS = 500


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--number", type=int, default=1500)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    files = sorted(path.read_bytes() for path in args.pictures.iterdir() if path.is_file())
    taken = [files[index % len(files)] for index in range(args.number)]
    cpus = available_cpus()
    recipe = Recipe(args.model.absolute())
    rates: dict[str, list[float]] = {"one thread": [], "threads": [], "processes": [], "ray": []}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "pictures.parquet"
        pq.write_table(pa.table({"image": taken}), source, row_group_size=part_size(len(taken)))
        ray.init(num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        for number in range(args.rounds):
            for name, found in rates.items():
                target = Path(folder) / f"{name}-{number}"
                found.append(_rate(name, recipe, source, target, cpus, files))
        row_bytes = sum(path.stat().st_size for path in target.glob("part-*")) / len(taken)
        task_ms = _task_ms()
        ray.shutdown()
    figures: dict[str, Any] = {
        "cpus": cpus,
        "load_average": round(os.getloadavg()[0], 1),
        "pictures": len(taken),
        "picture_bytes": round(statistics.mean(map(len, files))),
        "row_bytes": round(row_bytes),
        "ray_task_ms": round(task_ms, 1),
        "per_second": {name: [round(rate, 1) for rate in found] for name, found in rates.items()},
        "ray_of_threads": [round(ours / local, 3) for ours, local in zip(rates["ray"], rates["threads"], strict=True)],
    }
    text = json.dumps(figures, indent=1)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")


def _rate(name: str, recipe: Recipe, source: Path, target: Path, cpus: int, files: Sequence[bytes]) -> float:
    if name == "processes":
        return _processes(recipe, cpus, files)
    workers = 1 if name == "one thread" else cpus
    classifier = recipe.open(workers)
    engine: Engine = ray_engine(recipe, classifier, cpus) if name == "ray" else local_engine(classifier, None, workers)
    marks: list[tuple[float, int]] = []

    def progress(totals: Totals) -> None:
        marks.append((time.perf_counter(), totals.written))

    classify_batch(str(source), str(target), classifier, engine, progress=progress)
    (begun, before), (ended, written) = marks[1], marks[-1]
    rate: float = (written - before) / (ended - begun)
    return rate


def _processes(recipe: Recipe, count: int, files: Sequence[bytes]) -> float:
    """Return pictures a second of ``count`` processes with a classifier each, nothing read and nothing written."""
    context = multiprocessing.get_context("spawn")
    barrier, spans = context.Barrier(count), context.SimpleQueue()
    processes = [context.Process(target=_process, args=(recipe, files, barrier, spans)) for _ in range(count)]
    for process in processes:
        process.start()
    found = [spans.get() for _ in processes]
    for process in processes:
        process.join()
    seconds: float = max(end for _, end in found) - min(begin for begin, _ in found)
    return count * _EACH / seconds


_EACH = 500  # pictures of each process


def _process(recipe: Recipe, files: Sequence[bytes], barrier: Any, spans: Any) -> None:
    classifier = recipe.open(1)
    classifier.warm_up()
    barrier.wait()
    begun = time.monotonic()
    for index in range(_EACH):
        classifier.classify(files[index % len(files)])
    spans.put((begun, time.monotonic()))


class _Nothing:
    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return row


def _task_ms() -> float:
    """Return the milliseconds between two results of a worker that does nothing: what Ray and its driver cost."""
    rows: list[dict[str, Any]] = [{"number": number} for number in range(_TASKS)]
    dataset = ray.data.from_items(rows, override_num_blocks=_TASKS)
    pool = ray.data.ActorPoolStrategy(size=1, max_tasks_in_flight_per_actor=4)
    marks = [time.perf_counter() for _ in dataset.map(_Nothing, compute=pool, num_cpus=1).iter_rows()]
    return 1000 * (marks[-1] - marks[0]) / (len(marks) - 1)


if __name__ == "__main__":
    main()
