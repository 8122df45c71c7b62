"""Evaluation of a model on a data set: accuracy, calibration, latency."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from resnet_service.errors import InvalidDataset, RequestError
from resnet_service.evaluation.datasets import Dataset, Sample
from resnet_service.inference.base import ImageClassifier
from resnet_service.models.labels import LabelSet
from resnet_service.models.metadata import EvaluationRecord

CALIBRATION_BINS = 15
_TOP = 5
_PREFETCH = 4  # samples read ahead, for each worker


class CalibrationBin(NamedTuple):
    """The answers within a range of confidence: their number, mean confidence, and share of right ones."""

    size: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    ``truth``, ``answers`` (int64 [N]: class indices), ``confidences`` (float64 [N]: 0 ... 1), ``among_top`` (bool [N]:
    the true class is among the first 5) and ``milliseconds`` (float64 [N]) have one entry for each readable image, in
    the order of the data set; ``unreadable`` lists the names of the others, with the reasons.
    """

    dataset: str
    sha256: str
    labels: LabelSet
    truth: NDArray[np.int64]
    answers: NDArray[np.int64]
    confidences: NDArray[np.float64]
    among_top: NDArray[np.bool_]
    milliseconds: NDArray[np.float64]
    unreadable: list[tuple[str, str]]

    @property
    def top1(self) -> float:
        """Share of images whose first answer is right, in percent."""
        return 100 * float(np.mean(self.truth == self.answers))

    @property
    def top5(self) -> float:
        """Share of images with the true class among the first 5 answers, in percent."""
        return 100 * float(np.mean(self.among_top))

    @property
    def confusion(self) -> NDArray[np.int64]:
        """int64 [classes, classes]: row, the true class; column, the answer."""
        matrix = np.zeros((len(self.labels), len(self.labels)), np.int64)
        np.add.at(matrix, (self.truth, self.answers), 1)
        return matrix

    @property
    def per_class(self) -> dict[str, float]:
        """Top-1 in percent for each class that the data set has, by name."""
        matrix = self.confusion
        return {
            label.name: 100 * float(matrix[label.index, label.index] / matrix[label.index].sum())
            for label in self.labels.classes
            if matrix[label.index].sum()
        }

    @property
    def calibration(self) -> list[CalibrationBin]:
        """The answers by confidence, in bins of equal width over 0 ... 1; an empty bin has zeros."""
        right = self.truth == self.answers
        index = np.minimum((self.confidences * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
        bins = []
        for number in range(CALIBRATION_BINS):
            chosen = index == number
            size = int(chosen.sum())
            means = (float(self.confidences[chosen].mean()), float(right[chosen].mean())) if size else (0.0, 0.0)
            bins.append(CalibrationBin(size, *means))
        return bins

    @property
    def calibration_error(self) -> float:
        """Expected calibration error, 0 ... 1: the mean of |accuracy - confidence| over the bins, weighted by size.

        Guo et al., On Calibration of Modern Neural Networks (2017), equation 3.
        """
        total = len(self.truth)
        return sum(one.size / total * abs(one.accuracy - one.confidence) for one in self.calibration)

    @property
    def latency_ms(self) -> dict[str, float]:
        """Percentiles of the time from an image's bytes to its classification, in milliseconds."""
        return {f"p{percent}": float(np.percentile(self.milliseconds, percent)) for percent in (50, 95, 99)}

    def record(self) -> EvaluationRecord:
        """Return the record for the model's metadata."""
        return EvaluationRecord(
            dataset=self.dataset,
            sha256=self.sha256,
            pictures=len(self.truth),
            top1=round(self.top1, 4),
            top5=round(self.top5, 4),
            calibration_error=round(self.calibration_error, 6),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        return {
            **self.record().model_dump(),
            "per_class": self.per_class,
            "latency_ms": self.latency_ms,
            "confusion": self.confusion.tolist(),
            "unreadable": [{"name": name, "reason": reason} for name, reason in self.unreadable],
        }


class _Outcome(NamedTuple):
    answer: int
    confidence: float
    among_top: bool
    milliseconds: float


def evaluate(
    classifier: ImageClassifier,
    dataset: Dataset,
    *,
    workers: int = 1,
    progress: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """Classify each image of ``dataset`` and compare the answer with its true class.

    An image that cannot be decoded is reported in the result; the others are still evaluated.

    Args:
        classifier: Loaded and warmed up.
        dataset: With class indices of the classifier's label set.
        workers: Images processed at once; more workers take less time in total, with a higher latency per image.
        progress: Called after each image with the number of finished images.

    Raises:
        InvalidDataset: No image can be read.

    """
    outcomes: list[_Outcome | str] = []
    for outcome in _in_order(lambda sample: _classify(classifier, sample), dataset.samples, workers):
        outcomes.append(outcome)
        progress(len(outcomes))
    readable = [
        (sample.class_id, outcome)
        for sample, outcome in zip(dataset.samples, outcomes, strict=True)
        if isinstance(outcome, _Outcome)
    ]
    unreadable = [
        (sample.name, outcome)
        for sample, outcome in zip(dataset.samples, outcomes, strict=True)
        if isinstance(outcome, str)
    ]
    if not readable:
        name, reason = unreadable[0]
        raise InvalidDataset(f"No image of {dataset.name} can be read. The first, {name}: {reason}")
    return Evaluation(
        dataset=dataset.name,
        sha256=dataset.sha256,
        labels=classifier.model.labels,
        truth=np.array([class_id for class_id, _ in readable]),
        answers=np.array([outcome.answer for _, outcome in readable]),
        confidences=np.array([outcome.confidence for _, outcome in readable]),
        among_top=np.array([outcome.among_top for _, outcome in readable]),
        milliseconds=np.array([outcome.milliseconds for _, outcome in readable]),
        unreadable=unreadable,
    )


def _classify(classifier: ImageClassifier, sample: Sample) -> _Outcome | str:
    try:
        answer = classifier.classify(sample.read(), min(_TOP, len(classifier.model.labels)))
    except OSError as error:
        return f"The file cannot be read: {error.strerror}."
    except RequestError as error:
        return str(error)
    first = answer.predictions[0]
    return _Outcome(
        answer=first.class_id,
        confidence=first.score,
        among_top=any(ranked.class_id == sample.class_id for ranked in answer.predictions),
        milliseconds=answer.timing_ms.total,
    )


def _in_order(
    function: Callable[[Sample], _Outcome | str], samples: list[Sample], workers: int
) -> Iterator[_Outcome | str]:
    """Map in ``workers`` threads, in order, with only a few samples in memory."""
    with ThreadPoolExecutor(workers, thread_name_prefix="evaluation") as pool:
        window = workers * _PREFETCH
        for start in range(0, len(samples), window):
            yield from pool.map(function, samples[start : start + window])
