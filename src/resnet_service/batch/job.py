"""A batch job: lists the input, plans shards, runs an engine, counts results."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from resnet_service.batch.inputs import list_images
from resnet_service.batch.local import run_local
from resnet_service.batch.outputs import Output
from resnet_service.batch.shards import Shard, plan
from resnet_service.batch.worker import Outcome
from resnet_service.inference.base import ImageClassifier
from resnet_service.inference.classifier import DEFAULT_CONFIG, Classifier, ClassifierConfig
from resnet_service.inference.ranking import check_top_k

_MAX_EXAMPLES = 10


@dataclass(frozen=True)
class BatchConfig:
    """The options of a batch: model file, how to open it, and number of classes for each image."""

    model: Path
    classifier: ClassifierConfig = DEFAULT_CONFIG
    top_k: int | None = None

    def open(self, workers: int) -> Classifier:
        """Open the classifier for ``workers`` images at once, one thread each; errors as for ``Classifier.open``."""
        return Classifier.open(self.model, replace(self.classifier, workers=workers, threads=1))


@dataclass
class Totals:
    """Progress of a batch; fields as in ``Outcome``, and ``before``: images that an earlier run has written."""

    images: int
    before: int = 0
    written: int = 0
    refused: int = 0
    unread: int = 0
    seconds: float = 0
    examples: list[str] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Images a second in this run."""
        return self.written / self.seconds if self.seconds else 0.0

    def summary(self) -> str:
        """Return the totals in one or two sentences."""
        before = f"; {self.before:,} already had results" if self.before else ""
        refused = f", {self.refused:,} of them errors" if self.refused else ""
        unread = f" {self.unread:,} could not be read; run again to retry them." if self.unread else ""
        speed = f" in {self.seconds:.1f} s ({self.per_second:,.0f}/s)" if self.written else ""
        return f"Wrote results for {self.written:,} of {self.images:,} images{speed}{refused}{before}.{unread}"

    def as_dict(self) -> dict[str, object]:
        """Return the totals for JSON."""
        figures = asdict(self)
        # The field name of version 1.0.
        return {"pictures": figures.pop("images"), **figures, "per_second": self.per_second}

    def add(self, outcome: Outcome) -> None:
        """Add the outcome of a shard."""
        self.written += outcome.written
        self.refused += outcome.refused
        self.unread += outcome.unread
        self.examples += outcome.examples[: _MAX_EXAMPLES - len(self.examples)]


# Takes the shards and the output; yields the outcome of each shard.
Engine = Callable[[Sequence[Shard], Output], Iterator[Outcome]]


def local_engine(classifier: ImageClassifier, workers: int, top_k: int | None = None) -> Engine:
    """Return the engine of this machine; ``classifier`` was opened for at least ``workers`` images at once."""
    return lambda shards, output: run_local(shards, classifier, output, top_k=top_k, workers=workers)


def classify_batch(
    source: str,
    target: str,
    classifier: ImageClassifier,
    engine: Engine,
    config: BatchConfig,
    *,
    progress: Callable[[Totals], None] = lambda totals: None,
) -> Totals:
    """Classify the images of ``source`` that have no row in ``target`` yet.

    Args:
        source: Folder, glob, image or Parquet file; a path or an fsspec URL.
        target: Folder for the results; a path or an fsspec URL.
        classifier: The model, which the results record; the engine may use copies of it.
        engine: Runs the shards.
        config: The options that the classifier was opened with.
        progress: Called at the start and after each shard.

    Raises:
        InvalidTopK: ``config.top_k`` is out of range.
        BatchError: Input or output cannot be used.
        FileNotWritten: Results cannot be written. Earlier results stay, and the next run continues from them.

    """
    output = Output(target, _made_by(classifier, config))
    images = list_images(source, outside=output.url)
    with output.locked():
        done = output.done()
        shards = list(plan(images, done))
        missing = sum(len(shard.images) for shard in shards)
        totals = Totals(len(images), before=len(images) - missing)
        progress(totals)
        begun = time.monotonic()
        for outcome in engine(shards, output) if shards else ():
            totals.add(outcome)
            totals.seconds = time.monotonic() - begun
            progress(totals)
    return totals


def _made_by(classifier: ImageClassifier, config: BatchConfig) -> dict[str, object]:
    """Return what the results depend on; the same for every run that may add to them."""
    names = "\0".join(label.name for label in classifier.model.labels.classes)
    return {
        "model": classifier.model.name,
        "version": classifier.model.version,
        "runtime": classifier.model.runtime,
        "labels": hashlib.sha256(names.encode()).hexdigest()[:12],
        "top_k": check_top_k(config.top_k, len(classifier.model.labels)),
        "decode": config.classifier.decoding,
    }
