"""The memory that decoding takes at its peak, estimated from the file's header before it begins.

The bytes a pixel are those that `python -m fuzz.variants` measures, rounded up: the estimate must never be too low,
since the memory limit of a container rests on it.
"""

from PIL import Image

from resnet_service.imaging.avif import coded_images
from resnet_service.imaging.heic import HeicImageFile, Still

# What the codec's tables, rows and first use take, whatever the size.
_FIXED = 8 << 20
# Pillow's bytes a pixel by mode; 4 in all others, RGB too.
_STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
_RGB = 4
# Metadata that Pillow parses takes this many times its own bytes; the bombs of small chunks take 6.
_METADATA = 7

# The numbers of a TIFF's fields, at the limit of ``decoder_limits``.
_TIFF_NUMBERS = 10 << 20

# libwebp's animation decoder keeps two canvases; its output, and Pillow's image, are two more. A lossless frame is
# decoded to a buffer of its own.
_WEBP = 18
# libavif's output and Pillow's image; and a plane of alpha in 16 bits.
_AVIF_OUTPUT, _AVIF_ALPHA = 9, 2
# libheif's output and Pillow's image; or the joined planes, three times, while they are turned and become RGB. libde265
# keeps motion vectors and the like beside each of its images.
_HEIC_OUTPUT, _HEIC_COPIES, _HEIC_MOTION = 8, 3.25, 1.5
# Where libheif and its decoder are used first.
_HEIC_LIBRARIES = 8 << 20
# NumPy's copies, while 16 bits become 8.
_DEEP = 10

# TIFF 6.0
_BITS, _COLOURS, _ORIENTATION, _ROWS, _TILE_WIDTH, _TILE_LENGTH = 258, 262, 274, 278, 322, 323
_YCBCR = 6

# Start of frame: sequential, extended, progressive; and both with arithmetic coding.
_FRAMES, _PROGRESSIVE = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}, {0xC2, 0xCA}


def decoding_bytes(image: Image.Image, data: bytes, size: tuple[int, int]) -> int:
    """Return the bytes that decoding takes at most, up to an upright RGB image, which is part of them.

    Args:
        image: The opened file, not yet loaded; of a JPEG, ``draft`` has set the size to decode at.
        data: The encoded file, whose own bytes do not count.
        size: Full width and height, in pixels.

    """
    pixels = image.width * image.height
    stored = _STORED.get(image.mode, _RGB)
    after = pixels * _converted(image, stored)
    metadata = 0
    match image.format:
        case "JPEG":
            coefficients, metadata = _jpeg(image, data, size)
            before = pixels * stored + coefficients + 2 * len(data)  # copies of a file whose end is missing
        case "WEBP":
            before, metadata = pixels * _WEBP, len(data)
        case "AVIF":
            # Its tables are bounded; of the rest, Pillow and libavif have a copy each, and EXIF two.
            before = pixels * _AVIF_OUTPUT + _avif_planes(data, pixels) + 4 * len(data)
        case "HEIC" if isinstance(image, HeicImageFile):
            # Of the file, there are the one that libheif reads, its items, and a copy of them.
            before = max(pixels * _HEIC_OUTPUT, _heic_planes(image.still)) + 4 * len(data) + _HEIC_LIBRARIES
        case "TIFF":
            # Pillow turns it upright itself, while libtiff still holds its strip or tile.
            copies = 2 if _turned(image) else 1
            before = copies * pixels * stored + _strip(image)
            # libtiff has a copy of the file, and Pillow one without the fields that do not matter.
            before, after = before + 2 * len(data), after + 2 * len(data)
            before, after = before + _TIFF_NUMBERS, after + _TIFF_NUMBERS
        case "PNG":
            before, metadata = pixels * stored, len(data) // _METADATA
            if image.mode in ("1", "L", "P", "RGB") and b"tRNS" in data:  # also after the pixels
                after = pixels * (stored + 2 * _RGB)
        case "GIF":
            # A frame that is disposed of is kept beside the image.
            before, metadata = 2 * pixels * stored, len(data) // _METADATA
            after += pixels * stored
        case _:
            before = pixels * stored
    return _FIXED + max(before, after) + _METADATA * metadata


def _converted(image: Image.Image, stored: int) -> int:
    """Return the bytes a pixel while a loaded image becomes RGB, and then is turned upright."""
    # A PNG may have its EXIF after its pixels. Pillow finds an orientation in XMP, too.
    turned = 2 * _RGB if image.format == "PNG" or "exif" in image.info or "xmp" in image.info else _RGB
    if stored == 2:
        return _DEEP
    if image.mode == "RGBA":
        return 2 * _RGB
    if image.mode in ("LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return stored + 2 * _RGB
    return max(turned, _RGB if image.mode == "RGB" else stored + _RGB)


def _jpeg(image: Image.Image, data: bytes, size: tuple[int, int]) -> tuple[int, int]:
    """Return the bytes of the coefficients that libjpeg holds, and of the segments before the first scan.

    It holds all, at full size, if the image has several scans: if it is progressive, or the first lacks components.
    """
    position, progressive = 2, False
    components: list[tuple[int, int]] = []
    while (position := data.find(b"\xff", position)) >= 0 and position + 4 < len(data):
        kind = data[position + 1]
        if kind == 0xDA:
            break
        if kind in (0x00, 0x01, 0xFF) or 0xD0 <= kind <= 0xD9:
            position += 1 if kind == 0xFF else 2
            continue
        if kind in _FRAMES:
            progressive = kind in _PROGRESSIVE
            factors = data[position + 11 : position + 10 + 3 * data[position + 9] : 3]
            components = [(factor >> 4, factor & 15) for factor in factors]
        position += 2 + max(int.from_bytes(data[position + 2 : position + 4]), 2)
    if position < 0 or position + 4 >= len(data):
        position = len(data)
    if not components or not (progressive or data[position + 4 : position + 5] < bytes([len(components)])):
        return 0, position
    across, down = (max(1, *sides) for sides in zip(*components, (1, 1), strict=True))
    share = sum(h * v for h, v in components) / (across * down)
    # Rounded up to whole blocks of all components.
    width, height = size[0] + 8 * across, size[1] + 8 * down
    return int(2 * width * height * share), position


def _avif_planes(data: bytes, pixels: int) -> int:
    """Return the bytes of the planes that libavif decodes to; they exist again if it scales them or joins tiles."""
    most = 0.0
    for images in coded_images(data):
        planes = sum(image.pixels * image.pixel_bytes for image in images)
        if any(image.pixels != pixels for image in images):
            planes += pixels * (max(image.pixel_bytes for image in images) + _AVIF_ALPHA)
        most = max(most, planes)
    return int(most)


def _heic_planes(still: Still) -> int:
    """Return the bytes of the planes of libde265, which decodes one image or tile at a time, and of libheif."""
    decoder = max(image.pixels * image.kept * (image.plane_bytes + _HEIC_MOTION) for image in still.images)
    whole = sum(pixels * plane_bytes for pixels, plane_bytes in still.whole)
    return int(max(_HEIC_COPIES * whole, whole + decoder))


def _turned(image: Image.Image) -> bool:
    return bool(image.getexif().get(_ORIENTATION, 1) != 1)


def _strip(image: Image.Image) -> int:
    """Return the bytes of a TIFF's largest strip or tile, as libtiff unpacks it."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS, (1,))
    # Of YCbCr, libtiff makes RGBA; its own codecs unpack no pixel to less than a byte.
    depth = 4 if tags.get(_COLOURS) == _YCBCR else -(-sum(bits) // 8)
    tile = tags.get(_TILE_WIDTH, 0) * tags.get(_TILE_LENGTH, 0)
    rows = tags.get(_ROWS, image.height)
    return int(depth * max(tile, image.width * min(rows if isinstance(rows, int) else image.height, image.height)))
