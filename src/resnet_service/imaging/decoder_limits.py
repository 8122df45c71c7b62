"""How an image's file is put together, judged before a decoder sees it: what is cheap to send must be cheap to read.

Each limit stands for an attack: files within the limits of bytes and pixels that would occupy a decoder for minutes or
fill the memory (`python -m fuzz.bombs` has them all). Some of it happens inside C code that holds the interpreter's
lock, where no other thread, and so not even ``/health/live``, could answer meanwhile. Honest files stay below these
limits by an order of magnitude; what is merely damaged passes here, and is the decoder's to find.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

from PIL import Image

from resnet_service.errors import BrokenImage, TooManyPixels
from resnet_service.imaging.avif import boxes, coded_pixels

# JPEG: each scan of a progressive image goes through all of its pixels, however few bytes it has. Encoders write
# about 10; libtiff has the same limit for JPEG within TIFF. Pillow joins EXIF segments one by one, in quadratic time.
MAX_SCANS = 100
MAX_SEGMENTS = 2_000
MAX_JUNK_BYTES = 65_536

# PNG: Pillow reads chunks in Python, several microseconds each. 10 MB in libpng's portions of 8 kB are 1,300.
MAX_CHUNKS = 20_000

# GIF: blocks of extensions before the first image, kept as an object each.
MAX_BLOCKS = 10_000

# AVIF: libavif looks for each item that a table names among all those before it, in quadratic time. The largest grid
# of tiles has 256 items of about 40 bytes.
MAX_ITEM_TABLE_BYTES = 65_536
MAX_FRAME_TABLE_BYTES = 262_144
# An image and its transparency are two; thumbnails and rounded sizes come to less than as much again.
MAX_CODED_RATIO, MAX_CODED_EXTRA = 4, 1_000_000

# TIFF: Pillow goes through fields and strips one by one, in Python.
MAX_FIELDS = 4_096
MAX_STRIPS = 65_536

# BMP: Pillow decodes runs in Python, and adds single pixels up to the end of a line.
MAX_RUN_LENGTH_PIXELS = 4_000_000
MAX_RUN_LENGTH_BYTES = 1_000_000

# TIFF 6.0, sections 8 and 15
_STRIP_OFFSETS, _TILE_OFFSETS = 273, 324
_TILE_WIDTH, _TILE_LENGTH = 322, 323

_SCAN = b"\xff\xda"
_AFTER_ENTROPY = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def check_file(data: bytes, file_format: str) -> None:
    """Judge the bytes, before any of Pillow's parsers runs.

    Raises:
        BrokenImage: There is more of something than any honest file of that format has.

    """
    check = _CHECKS.get(file_format)
    if check is not None:
        check(data)


def check_opened(image: Image.Image, data: bytes, max_pixels: int) -> None:
    """Judge what the header of ``data`` says of how the pixels are stored, before they are decoded.

    Raises:
        BrokenImage: They are stored as no honest file stores them.
        TooManyPixels: A part of the image, which is decoded as a whole, has more than ``max_pixels``.

    """
    tiles = getattr(image, "tile", ())
    if image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        width, length = tags.get(_TILE_WIDTH, 0), tags.get(_TILE_LENGTH, 0)
        if width * length > max_pixels:
            raise TooManyPixels(f"The image's tiles have {width}x{length} pixels; the limit is {max_pixels:,}.")
    if image.format == "AVIF":
        # What is coded is decoded, and then scaled to what the container says.
        most = min(MAX_CODED_RATIO * image.width * image.height + MAX_CODED_EXTRA, 2 * max_pixels)
        if (coded := coded_pixels(data)) > most:
            raise TooManyPixels(f"The image says {image.width}x{image.height} pixels, but {coded:,} are coded in it.")
    if tiles and tiles[0][0] == "bmp_rle" and image.width * image.height > MAX_RUN_LENGTH_PIXELS:
        raise BrokenImage(
            f"Run-length coded BMP images are read up to {MAX_RUN_LENGTH_PIXELS:,} pixels; save it uncompressed."
        )


def _too_many(what: str, limit: int) -> BrokenImage:
    return BrokenImage(f"The image's file has more than {limit:,} {what}, which no camera or program writes.")


def _check_jpeg(data: bytes) -> None:
    """Walk the segments up to the first scan; count scans (ITU-T T.81, annex B)."""
    segments = junk = 0
    position = 2
    while (marker := data.find(b"\xff", position)) >= 0:
        junk += marker - position
        kind = data[marker + 1 : marker + 2]
        if kind in (b"\xda", b""):
            break
        segments += 1
        position = marker + 2
        if kind == b"\xff":  # padding
            junk += 1
            segments -= 1
            position = marker + 1
        elif not (kind in b"\x00\x01" or b"\xd0" <= kind <= b"\xd9"):
            position += max(int.from_bytes(data[position : position + 2]), 2)
        if segments > MAX_SEGMENTS:
            raise _too_many("segments", MAX_SEGMENTS)
        if junk > MAX_JUNK_BYTES:
            raise _too_many("bytes between its segments", MAX_JUNK_BYTES)
    # Thumbnails have scans of their own, and in what is no JPEG at all (a film behind the image) the two bytes occur
    # by chance: only where they are many, the scans proper are counted.
    if marker >= 0 and data.count(_SCAN, marker) > MAX_SCANS and _scans(data, marker) > MAX_SCANS:
        raise _too_many("scans", MAX_SCANS)


def _scans(data: bytes, position: int) -> int:
    """Count the scans of a JPEG whose first begins at ``position``, up to one more than is allowed."""
    scans = 0
    while scans <= MAX_SCANS:
        kind = data[position + 1 : position + 2]
        if kind in (b"\xd9", b""):
            break
        scans += kind == b"\xda"
        position += 2 + max(int.from_bytes(data[position + 2 : position + 4]), 2)
        found = _AFTER_ENTROPY.search(data, position)
        if found is None:
            break
        position = found.start()
    return scans


def _check_png(data: bytes) -> None:
    """Walk the chunks (PNG third edition, section 5.3)."""
    position = 8
    profiles = 0
    for _ in range(MAX_CHUNKS):
        kind = data[position + 4 : position + 8]
        if kind in (b"IEND", b""):
            return
        if kind == b"iCCP":
            profiles += 1
            if profiles > 1:
                raise _too_many("colour profile", 1)
        position += 12 + int.from_bytes(data[position : position + 4])
    raise _too_many("chunks", MAX_CHUNKS)


def _check_gif(data: bytes) -> None:
    """Walk the extensions up to the first image (GIF89a, section 15 onward)."""
    if len(data) < 13:
        return
    position = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    blocks = 0
    while position < len(data) and data[position] not in b",;":
        # Like Pillow, pass over what is neither an extension nor an image, byte by byte.
        if data[position] == 0x21:
            position += 2
            while position < len(data) and data[position]:
                position += 1 + data[position]
                blocks += 1
                if blocks > MAX_BLOCKS:
                    raise _too_many("blocks before its first image", MAX_BLOCKS)
        position += 1
        blocks += 1
        if blocks > MAX_BLOCKS:
            raise _too_many("blocks before its first image", MAX_BLOCKS)


def _check_tiff(data: bytes) -> None:
    """Walk the first directory (TIFF 6.0, section 2, and BigTIFF), the only one that is read."""
    order: Literal["little", "big"] = "little" if data[:1] == b"I" else "big"
    large = 43 in data[2:4]

    def number(position: int, size: int) -> int:
        return int.from_bytes(data[position : position + size], order)

    directory = number(8, 8) if large else number(4, 4)
    head, each = (8, 20) if large else (2, 12)
    if number(directory, head) > MAX_FIELDS:
        raise _too_many("fields", MAX_FIELDS)
    for index in range(number(directory, head)):
        field = directory + head + index * each
        if number(field, 2) in (_STRIP_OFFSETS, _TILE_OFFSETS) and number(field + 4, 8 if large else 4) > MAX_STRIPS:
            raise _too_many("strips", MAX_STRIPS)


def _check_bmp(data: bytes) -> None:
    run_length = int.from_bytes(data[14:18], "little") >= 40 and int.from_bytes(data[30:34], "little") in (1, 2)
    if run_length and len(data) > MAX_RUN_LENGTH_BYTES:
        raise BrokenImage(
            f"Run-length coded BMP images are read up to {MAX_RUN_LENGTH_BYTES:,} bytes; save it uncompressed."
        )


def _check_avif(data: bytes) -> None:
    """Add up the tables of items and of frames (ISO/IEC 14496-12, 4.2 and 8.11)."""
    items = frames = 0
    for kind, start, end in boxes(data, 0, len(data)):
        if kind in (b"moov", b"moof"):
            frames += end - start
        elif kind == b"meta":
            for inner, begin, stop in boxes(data, start + 4, end):
                if inner == b"iprp":
                    items += sum(last - first for part, first, last in boxes(data, begin, stop) if part != b"ipco")
                elif inner != b"idat":
                    items += stop - begin
    if items > MAX_ITEM_TABLE_BYTES:
        raise _too_many("bytes of tables", MAX_ITEM_TABLE_BYTES)
    if frames > MAX_FRAME_TABLE_BYTES:
        raise _too_many("bytes of frame tables", MAX_FRAME_TABLE_BYTES)


_CHECKS: Mapping[str, Callable[[bytes], None]] = MappingProxyType(
    {
        "JPEG": _check_jpeg,
        "PNG": _check_png,
        "GIF": _check_gif,
        "BMP": _check_bmp,
        "TIFF": _check_tiff,
        "AVIF": _check_avif,
    }
)
