"""Images for an export: some to calibrate with, others to compare the exported model on."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from resnet_service.errors import InvalidDataset, RequestError
from resnet_service.evaluation.datasets import Dataset, open_images
from resnet_service.imaging.decode import decode
from resnet_service.imaging.preprocess import crop
from resnet_service.models.labels import LabelSet
from resnet_service.models.metadata import Calibration, ModelMetadata
from resnet_service.types import Precision

CALIBRATION_IMAGES = 300
HELD_OUT_IMAGES = 1000
MIN_IMAGES = 20
# FP32 differs by rounding alone, which few images show; the reference may take half a second for each.
_FP32_IMAGES = 16

Pixels = NDArray[np.uint8]


class Images(NamedTuple):
    """Crops to calibrate with and to compare on (uint8 [S, S, 3]); the true classes of the latter, if known."""

    calibration: list[Pixels]
    held_out: list[Pixels]
    classes: list[int] | None
    record: Calibration | None


def choose_images(
    folder: Path | None,
    precision: Precision,
    metadata: ModelMetadata,
    labels: LabelSet,
    on_message: Callable[[str], None],
) -> Images:
    """Read the images of ``folder`` in a fixed random order: some to calibrate with, the others to compare on.

    Without a folder, the images are synthetic; they suffice to compare rounding errors, as FP32 needs.

    Raises:
        InvalidDataset: No usable images, too few, or none given although ``precision`` needs them.
        UnknownClass: The images have a class that the model does not have.

    """
    if folder is None:
        if precision != "fp32":
            raise InvalidDataset(
                f"{precision.upper()} changes the model's answers, and images are needed to measure the change. Name a "
                "folder of images like those that the model will classify: --calibration FOLDER."
            )
        return Images([], _synthetic(metadata.input_size), None, None)
    opened, labelled = open_images(folder, labels)
    # FP32 compares on fewer images than a usable folder must have.
    wanted = MIN_IMAGES if precision == "fp32" else CALIBRATION_IMAGES + HELD_OUT_IMAGES
    crops, classes = _read(opened, metadata, wanted, on_message)
    if len(crops) < MIN_IMAGES:
        raise InvalidDataset(f"{folder} has {len(crops)} readable images; at least {MIN_IMAGES} are needed.")
    used = min(CALIBRATION_IMAGES, len(crops) // 2) if precision == "int8" else 0
    calibration = Calibration(dataset=opened.name, sha256=opened.sha256, pictures=used) if used else None
    held_out = slice(used, _FP32_IMAGES if precision == "fp32" else None)
    return Images(crops[:used], crops[held_out], classes[held_out] if labelled else None, calibration)


def _read(
    opened: Dataset, metadata: ModelMetadata, wanted: int, on_message: Callable[[str], None]
) -> tuple[list[Pixels], list[int]]:
    """Preprocess up to ``wanted`` images, in a fixed random order, as the reference transforms do."""
    order = np.random.default_rng(0).permutation(len(opened.samples))
    crops: list[Pixels] = []
    classes: list[int] = []
    for index in order:
        if len(crops) == wanted:
            break
        sample = opened.samples[index]
        try:
            crops.append(crop(decode(sample.read()).image, metadata))
        except (RequestError, OSError) as error:
            on_message(f"Skipped {sample.name}: {error}")
        else:
            classes.append(sample.class_id)
    return crops, classes


def _synthetic(side: int) -> list[Pixels]:
    """Return images of coarse and fine noise, which suffice to compare rounding errors."""
    rng = np.random.default_rng(0)
    return [
        np.kron(rng.integers(0, 256, (-(-side // grain), -(-side // grain), 3)), np.ones((grain, grain, 1)))[
            :side, :side
        ].astype(np.uint8)
        for grain in (1, 4, 16, 32)
    ]
