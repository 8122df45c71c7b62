"""Results of a classifier, as plain values."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from resnet_service.imaging.decode import ImageInfo
from resnet_service.imaging.preprocess import Region
from resnet_service.inference.ranking import RankedClass


class Timing(NamedTuple):
    """Milliseconds of each stage of one answer."""

    decode: float
    preprocess: float
    inference: float
    total: float


class Classification(NamedTuple):
    """The most probable classes of one image, best first."""

    predictions: list[RankedClass]
    image: ImageInfo
    timing_ms: Timing


class Scores(NamedTuple):
    """Finite logits of several images, float32 [N, classes], and the time for all of them."""

    logits: NDArray[np.float32]
    timing_ms: Timing


class Explanation(NamedTuple):
    """The class activation map of one image.

    ``values`` is the map, float32 [h, w]; it covers ``region``, in pixels of the image as displayed. ``png`` is the
    drawn map, empty for the form ``json``. The timing leaves the drawing out.
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
    """The embedding of one image, float32 [D]."""

    vector: NDArray[np.float32]
    image: ImageInfo
    timing_ms: Timing
