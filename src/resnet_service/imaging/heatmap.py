"""Class activation maps drawn as PNG: over the image that they explain, or alone.

Values are stretched so that a map's minimum is dark violet and its maximum yellow: a map shows where, not how much.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnet_service.imaging.preprocess import Region
from resnet_service.types import MapForm

LONGEST_SIDE = 1024  # of an overlay, in pixels; PNG compression time grows with the pixels
OPACITY = 0.5

# Colours in Oklab's polar form (lightness 0 ... 1, chroma, hue in degrees), in which equal steps look equally large
# (B. Ottosson, A perceptual color space for image processing, 2020, https://bottosson.github.io/posts/oklab).
# Lightness rises evenly, so that the order of values is visible in grey, in print and to colour-blind people.
_DARKEST, _LIGHTEST = (0.35, 0.13, 300.0), (0.93, 0.13, 465.0)
_STEPS = 256


def draw(form: MapForm, image: Image.Image, values: NDArray[np.float32], region: Region, side: int) -> bytes:
    """Return the PNG of ``form``, by ``overlay`` or ``bare``; no bytes for ``json``."""
    if form == "overlay":
        return overlay(image, values, region)
    return bare(values, side) if form == "map" else b""


def overlay(image: Image.Image, values: NDArray[np.float32], region: Region) -> bytes:
    """Draw a map over the part of an image that the network saw; the rest is unchanged.

    Args:
        image: RGB, upright.
        values: float32 [h, w], finite, in any range.
        region: The part of ``image`` that the network saw, in its pixels.

    Returns:
        A PNG of the whole image, its longer side at most ``LONGEST_SIDE`` pixels.

    """
    scale = min(1.0, LONGEST_SIDE / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    canvas = image.copy() if size == image.size else image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2)
    across, down = size[0] / image.width, size[1] / image.height
    left, top = round(region.left * across), round(region.top * down)
    right = max(left + 1, round((region.left + region.width) * across))
    bottom = max(top + 1, round((region.top + region.height) * down))
    coloured = Image.fromarray(_COLOURS[_stretched(values, (right - left, bottom - top))])
    canvas.paste(Image.blend(canvas.crop((left, top, right, bottom)), coloured, OPACITY), (left, top))
    return _png(canvas)


def bare(values: NDArray[np.float32], side: int) -> bytes:
    """Return a map, float32 [h, w], as a grey PNG of ``side`` x ``side`` pixels, the square that the network saw."""
    return _png(Image.fromarray(_stretched(values, (side, side))))


def _stretched(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Stretch to 0 ... 255 and enlarge to ``size`` (width, height); a constant map becomes 0."""
    above = values.astype(np.float64) - values.min()
    span = above.max()
    unit = above / span if span > 0 else above
    enlarged = np.asarray(Image.fromarray(unit.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    return np.asarray(np.rint(enlarged * 255), np.uint8)


def _png(image: Image.Image) -> bytes:
    image.info.clear()  # the file's metadata do not apply to this image
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _colours() -> NDArray[np.uint8]:
    """Return uint8 [256, 3], the sRGB colours from minimum to maximum."""
    lightness, chroma, hue = np.linspace(_DARKEST, _LIGHTEST, _STEPS).T
    a, b = chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))
    # The two matrices are Ottosson's: Oklab to cone responses to linear sRGB.
    cones = np.stack([lightness, a, b], axis=1) @ np.array(
        [[1.0, 1.0, 1.0], [0.3963377774, -0.1055613458, -0.0894841775], [0.2158037573, -0.0638541728, -1.2914855480]]
    )
    linear = cones**3 @ np.array(
        [
            [4.0767416621, -1.2684380046, -0.0041960863],
            [-3.3077115913, 2.6097574011, -0.7034186147],
            [0.2309699292, -0.3413193965, 1.7076147010],
        ]
    )
    clipped = np.clip(linear, 0, 1)
    # IEC 61966-2-1
    encoded = np.where(clipped <= 0.0031308, 12.92 * clipped, 1.055 * clipped ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(encoded * 255), np.uint8)


_COLOURS = _colours()
