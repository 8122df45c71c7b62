"""The memory that decoding takes at its peak, estimated from the file's header before it begins.

The bytes a pixel are what `python -m fuzz.variants 50` measures, rounded up: the estimate must never be too low, since
the memory limit of a container rests on it. Pillow stores one channel of 8 bits in 1 byte a pixel, 16 bits in 2, and
all else in 4, RGB too. The size of the image may be much larger than its file, so the file's own bytes do not matter.
"""

from PIL import Image


def decoding_bytes(image: Image.Image, data: bytes, size: tuple[int, int]) -> int:
    return 0
