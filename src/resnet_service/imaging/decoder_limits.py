"""Limits on the structure of image files, checked before a decoder runs.

Each limit stops an attack: a file within the limits of bytes and pixels that would occupy a decoder for minutes or fill
the memory (`python -m fuzz.bombs` has them all). Part of that time is spent in C code that holds the interpreter lock,
so that no other thread could answer, not even to ``/health/live``. Valid files stay an order of magnitude below these
limits. Files that are only damaged pass here; the decoder reports them.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from PIL import Image

from resnet_service.errors import BrokenImage, TooManyPixels, UnsupportedImage
from resnet_service.imaging.avif import coded_pixels
from resnet_service.imaging.heic import HeicImageFile
from resnet_service.imaging.isobmff import boxes, item_extents
from resnet_service.imaging.jpeg import check_frame
from resnet_service.imaging.png import chunks
from resnet_service.imaging.refusals import too_many
from resnet_service.imaging.tiff import Directory, check_kind

# JPEG: each scan of a progressive image passes over all of its pixels, however few bytes the scan has. Encoders write
# about 10; libtiff has the same limit for JPEG within TIFF. Pillow joins EXIF segments one by one, in quadratic time.
MAX_SCANS = 100
MAX_SEGMENTS = 2_000
MAX_JUNK_BYTES = 65_536

# PNG: Pillow reads chunks in Python, several microseconds each. A 10 MB file in libpng's 8 kB chunks has 1,300.
MAX_CHUNKS = 20_000

# GIF: Pillow keeps each extension block before the first image as an object.
MAX_BLOCKS = 10_000

# AVIF and HEIC: libavif searches all earlier items for each item of a table, in quadratic time. The largest grid of
# tiles has 256 items of about 40 bytes.
MAX_ITEM_TABLE_BYTES = 65_536
MAX_FRAME_TABLE_BYTES = 262_144
# Ratio of coded to declared pixels: 2 with an alpha plane; thumbnails and rounded-up sizes add less than 2.
MAX_CODED_RATIO, MAX_CODED_EXTRA = 4, 1_000_000

# TIFF: Pillow reads fields and strips one by one, in Python, and makes an object of each number.
MAX_FIELDS = 4_096
MAX_STRIPS = 65_536
# Strips have two numbers each. A fraction counts as four, since it is an object of several numbers.
MAX_NUMBERS = 200_000
_FRACTION = 4

# BMP: Pillow decodes run lengths in Python, and pads lines pixel by pixel.
MAX_RUN_LENGTH_PIXELS = 4_000_000
MAX_RUN_LENGTH_BYTES = 1_000_000
_BMP_RUN_LENGTHS, _BMP_CONTENTS = (1, 2), {4: "JPEG", 5: "PNG"}
# Of OS/2, whose compression 4 is another run length.
_OS2_HEADER = 64

# TIFF 6.0, sections 8 and 15
_STRIP_OFFSETS, _TILE_OFFSETS = 273, 324
_TILE_WIDTH, _TILE_LENGTH = 322, 323
# TIFF 6.0, section 2
_BYTES, _FRACTIONS = (1, 2, 7), (5, 10)

_SCAN = b"\xff\xda"
_AFTER_ENTROPY = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def check_file(data: bytes, file_format: str) -> None:
    """Check the file's structure, before any of Pillow's parsers runs.

    Raises:
        BrokenImage: The file exceeds a limit of its format.
        UnsupportedImage: The file is of a kind that its decoder would read otherwise, or not at all.

    """
    check = _CHECKS.get(file_format)
    if check is not None:
        check(data)


def check_opened(image: Image.Image, data: bytes, max_pixels: int) -> None:
    """Check how the pixels of ``data`` are stored, after Pillow has parsed the header and before it decodes.

    Raises:
        BrokenImage: Decoding this storage would take too long.
        TooManyPixels: A tile or a coded image, which is decoded as a whole, has too many pixels.

    """
    tiles = getattr(image, "tile", ())
    if image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        width, length = tags.get(_TILE_WIDTH, 0), tags.get(_TILE_LENGTH, 0)
        if width * length > max_pixels:
            raise TooManyPixels(f"The image's tiles have {width}x{length} pixels; the limit is {max_pixels:,}.")
    if image.format == "AVIF" or isinstance(image, HeicImageFile):
        # libavif decodes the coded size, then scales to the size that the container declares. libheif joins tiles.
        limit = min(MAX_CODED_RATIO * image.width * image.height + MAX_CODED_EXTRA, 2 * max_pixels)
        coded = image.still.pixels if isinstance(image, HeicImageFile) else coded_pixels(data)
        if coded > limit:
            raise TooManyPixels(f"The image declares {image.width}x{image.height} pixels, but its data has {coded:,}.")
    if tiles and tiles[0][0] == "bmp_rle" and image.width * image.height > MAX_RUN_LENGTH_PIXELS:
        raise BrokenImage(
            f"A run-length encoded BMP image may have {MAX_RUN_LENGTH_PIXELS:,} pixels; save it uncompressed."
        )


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
            if len(data) > position + 2:
                check_frame(kind[0], data[position + 2])
            position += max(int.from_bytes(data[position : position + 2]), 2)
        if segments > MAX_SEGMENTS:
            raise too_many("segments", MAX_SEGMENTS)
        if junk > MAX_JUNK_BYTES:
            raise too_many("bytes between its segments", MAX_JUNK_BYTES)
    # The marker also occurs in thumbnails, and by chance in data after the image (a video, for example). So scans are
    # counted properly only if there are many markers.
    if marker >= 0 and data.count(_SCAN, marker) > MAX_SCANS and _scans(data, marker) > MAX_SCANS:
        raise too_many("scans", MAX_SCANS)


def _scans(data: bytes, position: int) -> int:
    """Count the scans of a JPEG from the first, at ``position``; stop above ``MAX_SCANS``."""
    scans = 0
    while scans <= MAX_SCANS:
        kind = data[position + 1 : position + 2]
        if kind in (b"\xd9", b""):
            break
        scans += kind == b"\xda"
        position += 2 + max(int.from_bytes(data[position + 2 : position + 4]), 2)
        marker = _AFTER_ENTROPY.search(data, position)
        if marker is None:
            break
        position = marker.start()
    return scans


def _check_png(data: bytes) -> None:
    for number, _ in enumerate(chunks(data), 1):
        if number > MAX_CHUNKS:
            raise too_many("chunks", MAX_CHUNKS)


def _check_gif(data: bytes) -> None:
    """Walk the extensions up to the first image (GIF89a, section 15 onward)."""
    if len(data) < 13:
        return
    position = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    blocks = 0
    while position < len(data) and data[position] not in b",;":
        # Like Pillow, skip bytes that start neither an extension nor an image.
        if data[position] == 0x21:
            position += 2
            while position < len(data) and data[position]:
                position += 1 + data[position]
                blocks += 1
                if blocks > MAX_BLOCKS:
                    raise too_many("blocks before its first image", MAX_BLOCKS)
        position += 1
        blocks += 1
        if blocks > MAX_BLOCKS:
            raise too_many("blocks before its first image", MAX_BLOCKS)


def _check_tiff(data: bytes) -> None:
    directory = Directory(data)
    if directory.count > MAX_FIELDS:
        raise too_many("fields", MAX_FIELDS)
    numbers = size = 0
    for field in directory.fields():
        if field.tag in (_STRIP_OFFSETS, _TILE_OFFSETS) and field.count > MAX_STRIPS:
            raise too_many("strips", MAX_STRIPS)
        if directory.is_within(field) or not directory.has(field):  # Pillow skips what is cut off
            continue
        size += field.bytes
        if field.type not in _BYTES:
            numbers += field.count * (_FRACTION if field.type in _FRACTIONS else 1)
    if numbers > MAX_NUMBERS:
        raise too_many("numbers in its fields", MAX_NUMBERS)
    if size > len(data):  # each field would have a copy of the same bytes
        raise BrokenImage("The fields of this TIFF image overlap.")
    check_kind(directory)


def _check_bmp(data: bytes) -> None:
    """Judge the kind of compression (BITMAPINFOHEADER, biCompression)."""
    header = int.from_bytes(data[14:18], "little")
    compression = int.from_bytes(data[30:34], "little") if header >= 40 else 0
    if compression in _BMP_CONTENTS and header != _OS2_HEADER:
        raise UnsupportedImage(
            f"This is a BMP image that contains a {_BMP_CONTENTS[compression]}, which is not supported."
        )
    if compression in _BMP_RUN_LENGTHS and len(data) > MAX_RUN_LENGTH_BYTES:
        raise BrokenImage(
            f"A run-length encoded BMP image may have {MAX_RUN_LENGTH_BYTES:,} bytes; save it uncompressed."
        )


def _check_heif(data: bytes) -> None:
    """Sum the sizes of the item and frame tables (ISO/IEC 14496-12, 4.2 and 8.11)."""
    items = frames = 0
    metas = []
    for kind, start, end in boxes(data, 0, len(data)):
        if kind in (b"moov", b"moof"):
            frames += end - start
        elif kind == b"meta":
            for inner, begin, stop in boxes(data, start + 4, end):
                if inner == b"iprp":
                    items += sum(last - first for part, first, last in boxes(data, begin, stop) if part != b"ipco")
                elif inner != b"idat":
                    items += stop - begin
            metas.append((start + 4, end))
    if items > MAX_ITEM_TABLE_BYTES:
        raise too_many("bytes of tables", MAX_ITEM_TABLE_BYTES)
    if frames > MAX_FRAME_TABLE_BYTES:
        raise too_many("bytes of frame tables", MAX_FRAME_TABLE_BYTES)
    for start, end in metas:  # extents may take no bytes of a table; reading them is bounded
        for _ in item_extents(data, start, end):
            pass


_CHECKS: Mapping[str, Callable[[bytes], None]] = MappingProxyType(
    {
        "JPEG": _check_jpeg,
        "PNG": _check_png,
        "GIF": _check_gif,
        "BMP": _check_bmp,
        "TIFF": _check_tiff,
        "AVIF": _check_heif,
        "HEIC": _check_heif,
    }
)
