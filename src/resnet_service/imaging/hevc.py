"""What the HEVC data of an image item decode to: pixels and their bytes, whatever the container declares.

A coded image's size is in its sequence parameter sets (ITU-T H.265, 7.3.2.2), which are in the item's configuration
(`hvcC`, ISO/IEC 14496-15, 8.3.3) or, against the rules, among the slices. A decoder allocates by them, and holds
several images at once if slices refer to earlier ones. Image items have one intra-coded image each; others are refused.
"""

from collections.abc import Iterator
from typing import NamedTuple

from resnet_service.errors import BrokenImage
from resnet_service.imaging.bits import Bits
from resnet_service.imaging.refusals import too_many

# A file of 48 megapixels has some 200 tiles, of a few units each.
MAX_UNITS = 10_000

# How many bytes of a parameter set are read; the fields that count are in the first 200.
_PARAMETER_BYTES = 1024

# Types of units (7.4.2.2): slices of images that need no other, of those that may refer to others, parameter sets
_IDR, _IRAP, _SLICES = (19, 20), range(16, 24), range(32)
_SEQUENCE_PARAMETERS = 33

# Images that a decoder keeps for slices that may refer to them (A.4.2), and the one that it decodes.
_KEPT_IMAGES = 17

# Bytes a pixel, by the format of chroma, of all planes with 8 bits a sample.
_PLANES = {0: 1.0, 1: 1.5, 2: 2.0, 3: 3.0}


class IntraImage(NamedTuple):
    """What the decoder makes of an item."""

    pixels: int
    plane_bytes: float  # that all planes take for a pixel
    kept: int  # images of this size that the decoder may hold at once


def coded_image(configuration: bytes, data: bytes, max_units: int) -> tuple[IntraImage, int]:
    """Return an upper bound of what the decoder makes of an item, and the number of units.

    Args:
        configuration: The content of the item's ``hvcC``.
        data: The item's data.
        max_units: How many units it may have.

    Raises:
        BrokenImage: It is not one intra-coded image, or has more units.
        ValueError: It has no image.

    """
    # libheif takes the length of a unit to have four bytes; other lengths would let it read other units than this.
    if len(configuration) < 23 or configuration[21] & 3 != 3:
        raise BrokenImage("The HEIC image has no configuration for HEVC with lengths of four bytes.")
    pixels = count = images = 0
    planes = 0.0
    kept = 1
    for unit in _units(configuration, data):
        count += 1
        if count > max_units:
            raise too_many("coded units", MAX_UNITS)
        kind = unit[0] >> 1 & 63
        if kind == _SEQUENCE_PARAMETERS:
            size, sample_bytes = _sequence(unit)
            pixels, planes = max(pixels, size), max(planes, sample_bytes)
        elif kind in _SLICES:
            images += unit[2] >> 7  # first_slice_segment_in_pic_flag
            if kind not in _IRAP or images > 1:
                raise BrokenImage("The HEIC image has an item that is not one intra-coded image.")
            if kind not in _IDR:
                kept = _KEPT_IMAGES
    if not images:  # libheif would leave a hole
        raise ValueError("an item without an image")
    return IntraImage(pixels, planes, kept), count


def _units(configuration: bytes, data: bytes) -> Iterator[bytes]:
    """Yield the first bytes of each unit: those of the configuration, then those of the item."""
    position = 23
    for _ in range(configuration[22]):
        number = int.from_bytes(configuration[position + 1 : position + 3])
        position += 3
        for _ in range(number):
            start = position + 2
            position = start + int.from_bytes(configuration[position:start])
            yield configuration[start : min(position, start + _PARAMETER_BYTES)].ljust(3, b"\0")
    position = 0
    while position + 4 < len(data):
        start = position + 4
        position = start + int.from_bytes(data[position:start])
        yield data[start : min(position, start + _PARAMETER_BYTES)].ljust(3, b"\0")


def _sequence(unit: bytes) -> tuple[int, float]:
    """Read a sequence parameter set; return the pixels of an image, and the bytes that its planes take for each."""
    bits = Bits(unit[2:].replace(b"\0\0\3", b"\0\0"))
    take, number = bits.take, bits.exp_golomb
    take(4)
    layers = take(3)
    take(1)
    take(88 + 8)  # general profile and level
    if layers:
        present = [(take(1), take(1)) for _ in range(layers)]
        take(2 * (8 - layers))
        for profile, level in present:
            take(88 * profile + 8 * level)
    number()
    chroma = number()
    if chroma == 3:
        take(1)
    pixels = number() * number()
    if take(1):  # a window, which crops after decoding
        for _ in range(4):
            number()
    depth = 8 + max(number(), number())
    return pixels, _PLANES.get(chroma, 3.0) * (1 if depth == 8 else 2)
