"""Preprocessing: from an RGB image to the pixels that the network takes; pure functions.

The arithmetic is that of torchvision's reference transforms (``Resize``, ``CenterCrop``, ``ToTensor``, ``Normalize``)
and of timm's evaluation transform: a network is most accurate on pixels prepared as in its training. ``exact`` equals
the reference bit for bit; otherwise the same arithmetic runs on fewer pixels.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnet_service.errors import InvalidTensor
from resnet_service.models.metadata import ModelMetadata

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

# Resizing a 1x20000 image in full would take gigabytes, although the crop shows a small part of it. If the resized
# image would have more pixels than this, only that part is computed, and a pixel may differ by 1 of 255.
_MAX_EXACT_PIXELS = 1 << 24


_PIXEL_BYTES = 4  # Pillow's RGB


class Region(NamedTuple):
    """A rectangle in an image, in pixels, with fractions."""

    left: float
    top: float
    width: float
    height: float


def region(size: tuple[int, int], metadata: ModelMetadata) -> Region:
    """Return the part of an image of ``size`` (width, height) that ``crop`` shows to the network."""
    (width, height), left, top = _window(size, metadata)
    across, down = size[0] / width, size[1] / height
    side = metadata.input_size
    return Region(left * across, top * down, side * across, side * down)


def crop(image: Image.Image, metadata: ModelMetadata, *, exact: bool = True) -> NDArray[np.uint8]:
    """Resize the shorter side to ``resize_size`` and crop the centre.

    Args:
        image: RGB.
        metadata: Metadata of the model.
        exact: Equal the reference transforms bit for bit. Otherwise only the part that the crop shows is resized, which
            may round a pixel differently, by 1 of 255.

    Returns:
        uint8 [S, S, 3], S = ``input_size``.

    """
    (width, height), left, top = _window(image.size, metadata)
    side = metadata.input_size
    resample = _FILTERS[metadata.interpolation]
    if exact and width * height <= _MAX_EXACT_PIXELS:
        resized = image if image.size == (width, height) else image.resize((width, height), resample)
        cut = resized.crop((left, top, left + side, top + side))
    else:
        shown = region(image.size, metadata)
        box = (shown.left, shown.top, shown.left + shown.width, shown.top + shown.height)
        cut = image.resize((side, side), resample, box=box)
    return np.array(cut, dtype=np.uint8)


def crop_bytes(size: tuple[int, int], metadata: ModelMetadata, *, exact: bool = True) -> int:
    """Return the bytes that an image of ``size``, upright or not, and its ``crop`` take at most, the image included.

    Pillow resizes across first, then down; in between, the image has the new width and the old height.
    """
    most = 0
    for across, down in (size, size[::-1]):
        width, height = _resized((across, down), metadata.resize_size)
        if not exact or width * height > _MAX_EXACT_PIXELS:
            width, height = metadata.input_size, metadata.input_size
        most = max(most, width * (down + height))
    return _PIXEL_BYTES * (size[0] * size[1] + most)


def normalise(crops: NDArray[np.uint8], metadata: ModelMetadata) -> NDArray[np.float32]:
    """Scale uint8 [N, S, S, 3] in 0 ... 255 to float32 of the same shape: ``(x / 255 - mean) / std``."""
    scaled = crops.astype(np.float32) / np.float32(255)
    scaled -= np.asarray(metadata.mean, dtype=np.float32)
    scaled /= np.asarray(metadata.std, dtype=np.float32)
    return scaled


def denormalise(normalised: NDArray[np.float32], metadata: ModelMetadata) -> NDArray[np.uint8]:
    """Undo ``normalise``: float32 [N, S, S, 3] to the nearest uint8 of the same shape.

    Normalised 8-bit pixels are restored exactly. Other values (of an image resized in floating point, for example) move
    by at most half of 1/255, before mean and standard deviation.

    Raises:
        InvalidTensor: NaN, infinity, or a value outside of normalised 0 ... 255.

    """
    with np.errstate(over="ignore", invalid="ignore"):  # untrusted input; NaN and infinity are checked below
        pixels = normalised * np.asarray(metadata.std, dtype=np.float32)
        pixels += np.asarray(metadata.mean, dtype=np.float32)
        pixels *= np.float32(255)
    # NaN compares false.
    if not (pixels.min() >= -0.5 and pixels.max() <= 255.5):
        raise InvalidTensor(
            "The tensor has values outside the range of normalised pixels. Each must be (x / 255 - mean) / std, where "
            f"x is a pixel value from 0 to 255, mean is {list(metadata.mean)} and std is {list(metadata.std)}."
        )
    return np.asarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _window(size: tuple[int, int], metadata: ModelMetadata) -> tuple[tuple[int, int], int, int]:
    """Return the size to resize an image of ``size`` to, and the left and top of the crop in it."""
    width, height = _resized(size, metadata.resize_size)
    side = metadata.input_size
    # Python rounds halves to even, as the reference does.
    return (width, height), round((width - side) / 2.0), round((height - side) / 2.0)


def _resized(size: tuple[int, int], shorter_side: int) -> tuple[int, int]:
    width, height = size
    longer_side = int(shorter_side * max(size) / min(size))
    return (shorter_side, longer_side) if width <= height else (longer_side, shorter_side)
