"""Logits and labels in, the k most probable classes out; pure."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from resnet_service.errors import InvalidModelOutput, InvalidTopK
from resnet_service.models.labels import LabelSet
from resnet_service.types import DEFAULT_TOP_K


class RankedClass(NamedTuple):
    """One answer: output index, the label's name, and its probability in 0 ... 1 among all classes."""

    class_id: int
    label: str
    score: float


def check_top_k(top_k: int | None, classes: int) -> int:
    """Return the number of answers to give; ``None`` means ``DEFAULT_TOP_K``, or all classes where there are fewer.

    Raises:
        InvalidTopK: Below 1 or above ``classes``; a client that asks for 10 answers should not get 3 unnoticed.

    """
    if top_k is None:
        return min(DEFAULT_TOP_K, classes)
    if not 1 <= top_k <= classes:
        raise InvalidTopK(f"top_k is {top_k}; this model has {classes} classes, so it must lie in 1 to {classes}.")
    return top_k


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Turn logits of any shape [..., classes] into probabilities along the last axis, without overflow."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def check_sound(logits: NDArray[np.float32], labels: LabelSet) -> None:
    """Accept one image's logits, float32 [classes].

    Raises:
        InvalidModelOutput: The wrong number of logits, NaN or infinity.

    """
    if logits.shape != (len(labels),) or not np.isfinite(logits).all():
        raise InvalidModelOutput("The model's output is not a finite number for each class.")


def best(scores: NDArray[np.floating], top_k: int) -> list[int]:
    """Return the indices of the ``top_k`` highest of one image's scores, [classes]; equal ones in their order."""
    return [int(index) for index in np.argsort(-scores, kind="stable")[:top_k]]


def rank(logits: NDArray[np.float32], labels: LabelSet, top_k: int) -> list[RankedClass]:
    """Rank one image's logits, float32 [classes]; equal scores come in the order of their class index.

    Raises:
        InvalidModelOutput: The wrong number of logits, NaN or infinity.

    """
    check_sound(logits, labels)
    scores = softmax(logits)
    return [RankedClass(index, labels.classes[index].name, float(scores[index])) for index in best(scores, top_k)]
