"""The engine of a cluster: Ray Data hands the parts to actors, one a CPU, and replaces those that die.

What goes to a worker is a part's description; images go from the store to the worker and rows from the worker to
the store, so that nothing large passes through the driver. A part that was begun on a node that died is done again
elsewhere, and writes the file of the same name: done twice, it is there once.
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

_WAITING = 2  # parts that a worker has got, so that it need not wait for the driver
# Nodes come and go, and their workers are started again elsewhere. But what ends its worker each time (an image that
# crashes a decoder, say) must not go on for ever, as it would by default.
_RESTARTS = 20


class ModelFiles:
    """A model's file and its labels', to be put into Ray's object store: there it is sent to each node once.

    The compiled network is no file, and each process needs its own: OpenVINO rearranges the weights for the CPU.
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
    """What an actor holds: the classifier, opened for one thread. Ray Data calls it with one part at a time."""

    def __init__(self, files: "ray.ObjectRef[ModelFiles]", output: Output) -> None:
        with tempfile.TemporaryDirectory(prefix="resnet-service-") as folder:  # the runtime keeps nothing open
            config = ray.get(files).unpack(Path(folder))
            self._classifier = config.open(workers=1)
        self._output = output
        self._top_k = config.top_k

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Do the part in ``row``; return what became of it, or the error of ours that ends the run."""
        outcome: Outcome | ServiceError
        try:
            outcome = run_shard(read_shard(row["shard"]), self._classifier, self._output, self._top_k)
        except ServiceError as error:  # concerns all; Ray would wrap it beyond recognition
            outcome = error
        return {"outcome": outcome_text(outcome)}


def ray_engine(
    config: BatchConfig, classifier: ImageClassifier, workers: int | None, *, restarts: int = _RESTARTS
) -> Engine:
    """Return the engine of the cluster that ``RAY_ADDRESS`` names, or else of a Ray on this machine.

    Every node needs this package in the same version, and must reach input and output under the same names: object
    stores, or a shared file system.

    Args:
        config: How to classify.
        classifier: Opened by it; tells which label file is meant.
        workers: Actors, each with a CPU; by default as many as the cluster has, and more where it grows.
        restarts: How many times a worker may die, with its node or alone, before the run ends.

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
                max_tasks_in_flight_per_actor=_WAITING,
            )
            dataset = ray.data.from_items(rows, override_num_blocks=tasks)
            with warnings.catch_warnings():
                # Ray means to give such options other names, and has none for this one yet; see pyproject.toml.
                warnings.simplefilter("ignore", RayDeprecationWarning)
                outcomes = dataset.map(
                    ShardWorker, fn_constructor_args=(files, output), compute=pool, num_cpus=1, max_restarts=restarts
                )
            for row in outcomes.iter_rows():
                yield read_outcome(row["outcome"])
        except (ray.exceptions.RayError, ConnectionError) as error:
            # After a traceback comes what happened, and after that sentence, advice about Ray.
            reason = str(error).strip().splitlines()[-1].partition(". ")[0].rstrip(".")
            raise ClusterFailed(f"Ray failed: {reason}. What was written stays; run again to go on.") from error

    return run


def _connect() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere unless it was asked for
    if not ray.is_initialized():
        ray.init(logging_level=logging.WARNING, log_to_driver=False)
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    ray.data.DataContext.get_current().enable_progress_bars = False
