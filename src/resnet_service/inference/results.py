"""What a classifier answers, as plain values."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from resnet_service.imaging.decode import ImageInfo
from resnet_service.imaging.preprocess import Region
from resnet_service.inference.ranking import RankedClass


class Timing(NamedTuple):
    """Milliseconds spent in each stage of one answer."""

    decode: float
    preprocess: float
    inference: float
    total: float


class Classification(NamedTuple):
    """The answer for one image: its most probable classes, best first."""

    predictions: list[RankedClass]
    image: ImageInfo
    timing_ms: Timing


class Scores(NamedTuple):
    """The network's answers for several images: finite logits, float32 [N, classes], and the time for all of them."""

    logits: NDArray[np.float32]
    timing_ms: Timing


class Explanation(NamedTuple):
    """Which places of an image speak for a class.

    ``values``, float32 [h, w] as ``class_activation_map`` computes them, cover ``region``, in pixels of the image as
    displayed. ``png`` is empty where only numbers were asked for. Drawing it is not part of the timing.
    """

    class_id: int
    label: str
    score: float
    values: NDArray[np.float32]
    region: Region
    png: bytes
    image: ImageInfo
    timing_ms: Timing


class Embedding(NamedTuple):
    """An image as a vector, float32 [D]."""

    vector: NDArray[np.float32]
    image: ImageInfo
    timing_ms: Timing
