"""A batch from its input to its output, by whichever engine."""

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
from resnet_service.types import Fidelity

_SHOWN = 10


@dataclass(frozen=True)
class BatchConfig:
    """How a batch is classified: the model file, how it is opened, and how many classes are named for each image."""

    model: Path
    classifier: ClassifierConfig = DEFAULT_CONFIG
    top_k: int | None = None

    def open(self, workers: int) -> Classifier:
        """Open the classifier for ``workers`` images at once, a thread each; errors as for ``Classifier.open``."""
        return Classifier.open(self.model, replace(self.classifier, workers=workers, threads=1))


@dataclass
class Totals:
    """How far a batch is; the names are those of ``Outcome``, ``before`` counts what an earlier run has done."""

    images: int
    before: int = 0
    written: int = 0
    refused: int = 0
    unread: int = 0
    seconds: float = 0
    examples: list[str] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Images a second of this run."""
        return self.written / self.seconds if self.seconds else 0.0

    def summary(self) -> str:
        """Return one sentence or two about all of it."""
        before = f", {self.before:,} were done before" if self.before else ""
        refused = f", {self.refused:,} of them with an error" if self.refused else ""
        unread = f" {self.unread:,} could not be read; run again to try them once more." if self.unread else ""
        speed = f" in {self.seconds:.1f} s, {self.per_second:,.0f}/s" if self.written else ""
        return f"{self.written:,} of {self.images:,} images written{refused}{speed}{before}.{unread}"

    def as_dict(self) -> dict[str, object]:
        """Return everything, for JSON."""
        figures = asdict(self)
        # The field that 1.0 published.
        return {"pictures": figures.pop("images"), **figures, "per_second": self.per_second}

    def add(self, outcome: Outcome) -> None:
        """Count a part."""
        self.written += outcome.written
        self.refused += outcome.refused
        self.unread += outcome.unread
        self.examples += outcome.examples[: _SHOWN - len(self.examples)]


# Takes the parts and the output; yields what became of each part.
Engine = Callable[[Sequence[Shard], Output], Iterator[Outcome]]


def local_engine(classifier: ImageClassifier, top_k: int | None, workers: int) -> Engine:
    """Return the engine of this machine."""
    return lambda shards, output: run_local(shards, classifier, output, top_k=top_k, workers=workers)


def classify_batch(
    source: str,
    target: str,
    classifier: ImageClassifier,
    engine: Engine,
    *,
    top_k: int | None = None,
    decoding: Fidelity = "fast",
    progress: Callable[[Totals], None] = lambda totals: None,
) -> Totals:
    """Classify what of ``source`` has no row in ``target`` yet.

    Args:
        source: Folder, glob, image or Parquet file; a path or an fsspec URL.
        target: Folder for the results; a path or an fsspec URL.
        classifier: Says what the answers are of; the engine's own may be copies of it.
        engine: Does the work.
        top_k: Classes to name for each image; ``None`` for the default.
        decoding: As the classifier was opened with.
        progress: Told at the start and after each part.

    Raises:
        InvalidTopK: Out of range.
        BatchError: Input or output cannot be used.
        FileNotWritten: Results cannot be written. What was written before stays, and the next run goes on from there.

    """
    output = Output(target, _made_by(classifier, check_top_k(top_k, len(classifier.model.labels)), decoding))
    images = list_images(source, outside=output.url)
    with output.held():
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


def _made_by(classifier: ImageClassifier, top_k: int, decoding: Fidelity) -> dict[str, object]:
    names = "\0".join(label.name for label in classifier.model.labels.classes)
    return {
        "model": classifier.model.name,
        "version": classifier.model.version,
        "runtime": classifier.model.runtime,
        "labels": hashlib.sha256(names.encode()).hexdigest()[:12],
        "top_k": top_k,
        "decode": decoding,
    }
