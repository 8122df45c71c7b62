"""Ranking: from logits and labels to the k most probable classes; pure functions."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from resnet_service.defaults import DEFAULT_TOP_K
from resnet_service.errors import InvalidModelOutput, InvalidTopK
from resnet_service.models.labels import LabelSet


class RankedClass(NamedTuple):
    """A class: output index, label name, and probability among all classes, 0 ... 1."""

    class_id: int
    label: str
    score: float


def check_top_k(top_k: int | None, classes: int) -> int:
    """Return the number of classes to name; ``None`` means ``DEFAULT_TOP_K``, or all classes where there are fewer.

    Raises:
        InvalidTopK: Below 1 or above ``classes``: a client that asks for 10 classes must notice that there are 3.

    """
    if top_k is None:
        return min(DEFAULT_TOP_K, classes)
    if not 1 <= top_k <= classes:
        raise InvalidTopK(
            f"top_k is {top_k}; it must be between 1 and {classes}, because this model has {classes} classes."
        )
    return top_k


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the probabilities of logits [..., classes], along the last axis and without overflow."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def check_logits(logits: NDArray[np.float32], labels: LabelSet) -> None:
    """Check one image's logits, float32 [classes].

    Raises:
        InvalidModelOutput: The wrong number of logits, NaN or infinity.

    """
    if logits.shape != (len(labels),) or not np.isfinite(logits).all():
        raise InvalidModelOutput("The model's output is not one finite number for each class.")


def best(scores: NDArray[np.floating], top_k: int) -> list[int]:
    """Return the indices of the ``top_k`` highest scores of one image, [classes]; ties in order of their index."""
    return [int(index) for index in np.argsort(-scores, kind="stable")[:top_k]]


def rank(logits: NDArray[np.float32], labels: LabelSet, top_k: int) -> list[RankedClass]:
    """Rank one image's logits, float32 [classes]; ties in order of their index.

    Raises:
        InvalidModelOutput: The wrong number of logits, NaN or infinity.

    """
    check_logits(logits, labels)
    scores = softmax(logits)
    return [RankedClass(index, labels.classes[index].name, float(scores[index])) for index in best(scores, top_k)]
