"""The batch engine of a Ray cluster: Ray Data hands shards to actors, one a CPU, and replaces actors that die.

The driver sends a worker only the names of images. The worker reads the images from the store and writes the rows to
it, so that no large data passes through the driver. If a node dies, its shards run again elsewhere and write files of
the same names, so that no image gets two rows.
"""

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import ray.data
import ray.exceptions
from ray.util.annotations import RayDeprecationWarning

from resnet_service.batch.job import BatchConfig, Engine
from resnet_service.batch.messages import outcome_text, read_outcome, read_shard, shard_text
from resnet_service.batch.outputs import Output
from resnet_service.batch.shards import Shard, task_count
from resnet_service.batch.worker import Outcome, run_shard
from resnet_service.errors import ClusterFailed, ServiceError
from resnet_service.inference.base import ImageClassifier
from resnet_service.models.labels import label_file_for
from resnet_service.system.files import atomic_write, read_model_file

_TASKS_IN_FLIGHT = 2  # tasks that a worker has, so that it need not wait for the driver
# If a node dies, Ray starts its workers again elsewhere. By default it does so without limit, also for a shard that
# crashes every worker (an image that crashes a decoder, for example).
_RESTARTS = 20


class ModelFiles:
    """The files of a model and its labels, for Ray's object store, which sends them to each node once.

    Each process compiles the network for itself, since OpenVINO rearranges the weights for the CPU.
    """

    def __init__(self, config: BatchConfig, label_file: Path | None) -> None:
        self._config = config
        self._model = read_model_file(config.model)
        self._labels = None if label_file is None else label_file.read_bytes()

    def unpack(self, folder: Path) -> BatchConfig:
        """Write the files into ``folder``; return the configuration that names them."""
        model, label_file = folder / self._config.model.name, None
        atomic_write(model, self._model)
        if self._labels is not None:
            label_file = folder / "labels.json"
            atomic_write(label_file, self._labels)
        return replace(self._config, model=model, classifier=replace(self._config.classifier, label_file=label_file))


class ShardWorker:
    """An actor with a classifier, opened for one thread. Ray Data calls it with one shard at a time."""

    def __init__(self, files: "ray.ObjectRef[ModelFiles]", output: Output) -> None:
        with tempfile.TemporaryDirectory(prefix="resnet-service-") as folder:  # the runtime keeps no file open
            config = ray.get(files).unpack(Path(folder))
            self._classifier = config.open(workers=1)
        self._output = output
        self._top_k = config.top_k

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Run the shard in ``row``; return its outcome, or the service error that ends the run."""
        outcome: Outcome | ServiceError
        try:
            outcome = run_shard(read_shard(row["shard"]), self._classifier, self._output, self._top_k)
        except ServiceError as error:  # Ray would wrap it in an error of its own
            outcome = error
        return {"outcome": outcome_text(outcome)}


def ray_engine(
    config: BatchConfig, classifier: ImageClassifier, workers: int | None, *, restarts: int = _RESTARTS
) -> Engine:
    """Return the engine of the cluster at ``RAY_ADDRESS``, or of a local Ray if that is not set.

    Every node needs the same version of this package, and must reach input and output under the same names: in object
    stores, or on a shared file system.

    Args:
        config: The options of the batch.
        classifier: Opened with them; its metadata name the label file.
        workers: Actors, one CPU each; by default one for each CPU of the cluster, also if it grows.
        restarts: How many times a worker may die, with or without its node, before the run fails.

    """

    def run(shards: Sequence[Shard], output: Output) -> Iterator[Outcome]:
        label_file = label_file_for(classifier.model.metadata, config.model, config.classifier.label_file)
        try:
            _connect()
            files = ray.put(ModelFiles(config, None if label_file is None else label_file.path))
            rows: list[dict[str, Any]] = [{"shard": shard_text(shard)} for shard in shards]
            cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
            tasks = task_count(len(shards), sum(len(shard.images) for shard in shards), workers or cpus)
            pool = ray.data.ActorPoolStrategy(
                min_size=1,
                max_size=workers,
                initial_size=min(workers or cpus, tasks),
                max_tasks_in_flight_per_actor=_TASKS_IN_FLIGHT,
            )
            dataset = ray.data.from_items(rows, override_num_blocks=tasks)
            with warnings.catch_warnings():
                # Ray deprecates such options, but has no replacement for this one yet; see pyproject.toml.
                warnings.simplefilter("ignore", RayDeprecationWarning)
                outcomes = dataset.map(
                    ShardWorker, fn_constructor_args=(files, output), compute=pool, num_cpus=1, max_restarts=restarts
                )
            for row in outcomes.iter_rows():
                yield read_outcome(row["outcome"])
        except (ray.exceptions.RayError, ConnectionError) as error:
            # Ray's message is a traceback, then a sentence with the reason, then advice about Ray.
            reason = str(error).strip().splitlines()[-1].partition(". ")[0].rstrip(".")
            raise ClusterFailed(f"Ray failed: {reason}. Written results stay; run again to continue.") from error

    return run


def _connect() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry, unless the user asks for it
    if not ray.is_initialized():
        ray.init(logging_level=logging.WARNING, log_to_driver=False)
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    ray.data.DataContext.get_current().enable_progress_bars = False
