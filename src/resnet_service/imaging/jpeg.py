"""JPEG files that libjpeg does not decode, or whose end is missing."""

from io import BytesIO
from zlib import crc32

from PIL import Image, ImageFile

from resnet_service.errors import BrokenImage, UnsupportedImage

# Start of frame (ITU-T T.81, table B.1): sequential, extended, progressive; and both with arithmetic coding.
_DECODED = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}
_OTHER_FRAMES = {
    **dict.fromkeys((0xC3, 0xCB), "lossless compression"),
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical compression"),
    0xF7: "JPEG-LS compression",  # ITU-T T.87
}
_BITS = 8
# The start of a scan, after which there are pixels, and what stands alone or is no marker (table B.1).
_WITHOUT_CONTENTS = {0x00, 0x01, 0xFF, *range(0xD0, 0xDB)}
# Pixels are stored in blocks of 8 or 16 rows; some rows of the first block that is cut may be the same by chance.
_BLOCK_ROWS = 16

_END = b"\xff\xd9"
# Continue the data of pixels by different bits, from the first bit on: if pixels lack theirs, the results differ.
# Decoders skip what follows the last pixel.
_CONTINUATIONS = (b"\x55" * 64, b"\xaa" * 64)

# Segments that Pillow reads without looking whether they are as long as they should be. Photoshop's do not matter for
# the pixels. Of the others: the second byte of the marker, the signature, and the least length.
_PHOTOSHOP = 0xED
_LEAST_BYTES = ((0xE0, b"JFIF", 14), (0xE2, b"ICC_PROFILE\0", 14), (0xEE, b"Adobe", 12))


def without_useless_segments(data: bytes) -> bytes:
    """Return the file without segments that do not matter, or are too short to mean anything."""
    kept, begin, position = [], 0, 2
    while data[position : position + 1] == b"\xff" and (kind := data[position + 1]) not in _WITHOUT_CONTENTS:
        length = int.from_bytes(data[position + 2 : position + 4])
        contents = data[position + 4 : position + 2 + min(length, 32)]
        end = position + 2 + max(length, 2)
        if kind == _PHOTOSHOP or any(
            kind == of and contents.startswith(name) and length - 2 < least for of, name, least in _LEAST_BYTES
        ):
            kept.append(data[begin:position])
            begin = end
        position = end
    return b"".join((*kept, data[begin:])) if kept else data


def check_frame(kind: int, bits: int) -> None:
    """Refuse a frame that libjpeg does not decode.

    Args:
        kind: The second byte of a segment's marker.
        bits: The segment's first byte, which is the number of bits of a sample if the segment begins a frame.

    Raises:
        UnsupportedImage: The message names the kind.

    """
    what = _OTHER_FRAMES.get(kind)
    if kind in _DECODED and bits != _BITS:
        what = f"{bits}-bit samples"
    if what is not None:
        raise UnsupportedImage(
            f"This is a JPEG image with {what}, which is not supported. Save it as JPEG or PNG, with 8 bits."
        )


def load_without_end(data: bytes, size: tuple[int, int]) -> ImageFile.ImageFile:
    """Return the loaded image of a file that ends early, if it lacks no pixel.

    Args:
        data: The encoded file.
        size: Width and height, in pixels, for ``draft``.

    Raises:
        BrokenImage: Pixels are missing; the message says how many rows there are, to a few rows.
        OSError: There are no whole rows at all.

    """
    rows: list[list[int]] = []
    height = 0
    for continuation in _CONTINUATIONS:
        image = Image.open(BytesIO(data.rstrip(b"\xff") + continuation + _END), formats=("JPEG",))
        height = image.height
        image.draft(None, size)
        image.load()
        rows.append([crc32(image.crop((0, y, image.width, y + 1)).tobytes()) for y in range(image.height)])
    first, second = rows
    whole = next((y for y in range(len(first)) if first[y] != second[y]), None)
    if whole is None:
        return image
    if "progressive" in image.info:
        raise BrokenImage("This JPEG image is incomplete: data of its last scans is missing.")
    # The last row before a block that is cut takes some of its colour from it.
    rows_found = (whole + 1) * height // len(first) // _BLOCK_ROWS * _BLOCK_ROWS
    if not rows_found:
        raise OSError("no rows")
    raise BrokenImage(f"This JPEG image is incomplete: the file ends after about {rows_found:,} of {height:,} rows.")
