"""Decoding: from untrusted bytes to an upright RGB image; the only module that handles Pillow's errors.

The order of checks is a safety measure: byte signature, file structure, Pillow's header parser for that one format,
pixel limit, and only then the decoder.
"""

import ctypes
import math
import mmap
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile, _imaging

from resnet_service.defaults import DEFAULT_MAX_PIXELS
from resnet_service.errors import (
    BrokenImage,
    MissingImage,
    NotAnImage,
    OutOfResources,
    ServiceError,
    TooManyPixels,
    UnsupportedImage,
)
from resnet_service.imaging.avif import with_major_brand
from resnet_service.imaging.decoder_limits import check_file, check_opened
from resnet_service.imaging.decoding_memory import decoding_bytes
from resnet_service.imaging.formats import ACCEPTED_FORMATS, HEIC, HEIC_ADVICE, identify, refused_kind, with_article
from resnet_service.imaging.heic import HeicImageFile, is_installed
from resnet_service.imaging.jpeg import load_without_end, without_useless_segments
from resnet_service.imaging.png import without_ancillary_chunks
from resnet_service.imaging.tiff import bits_of, correct_planes, is_negative, open_tiff
from resnet_service.system.resources import is_exhaustion

# Pillow's warnings of corrupt metadata differ from file to file, and Python remembers each one to show it only once:
# untrusted input could fill the log and leak memory. Errors that matter are raised.
warnings.filterwarnings("ignore", module=r"PIL\.")


def _silence_libtiff() -> None:
    """Stop libtiff from writing messages to standard error: two lines about each of thousands of unknown tags.

    Pillow itself takes only the warnings away. The loaded library is reached through Pillow's module.
    """
    set_handler = getattr(ctypes.CDLL(_imaging.__file__), "TIFFSetErrorHandler", None)
    if set_handler is not None:  # a Pillow without libtiff, or with one that hides its functions
        set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        set_handler(None)


_silence_libtiff()

# A JPEG is decoded at a reduced scale only if each side keeps at least this many times the pixels of the resize target.
# With a factor of 1, the resize has nothing left to average, and images differ visibly from the reference.
DRAFT_MARGIN = 2

# libheif reports its own limits as errors of memory.
_LIBRARY_LIMIT = "security limit"
# Pillow's words for headers, colour masks and compressions that it does not know.
_UNSUPPORTED_BMP = "Unsupported BMP"

# Pillow's WebP plugin allocates before the size is known: two frames with alpha, and a copy.
_WEBP_BYTES = 12

_EXIF_ORIENTATION = 0x0112
_WHITE = 255
_UPRIGHT = {  # EXIF orientation -> the transposition that undoes it (EXIF 2.32, table 4)
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_SIDEWAYS = {
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
}


class ImageInfo(NamedTuple):
    """An image file's format, by its signature, and its full size in pixels as displayed."""

    format: str
    width: int
    height: int


class DecodedImage(NamedTuple):
    """An upright RGB image, possibly decoded at a reduced scale, and the description of its file."""

    image: Image.Image
    info: ImageInfo


# Called before decoding with the bytes that it will take at its peak, and the size, in pixels, of what it will return;
# EXIF may still turn the image, which swaps its sides.
Reserve = Callable[[int, tuple[int, int]], None]


def decode(
    data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS, *, min_side: int | None = None, reserve: Reserve | None = None
) -> DecodedImage:
    """Decode an image, or the first frame of an animation, to upright RGB.

    Transparency is flattened on white, 16-bit grey is scaled to 8 bits, CMYK and palettes are converted, the EXIF
    orientation is applied.

    Args:
        data: The encoded file.
        max_pixels: Limit for the full image, whatever the scale it is decoded at.
        min_side: Pixels that the shorter side needs. A JPEG may then be decoded at 1/2, 1/4 or 1/8 of its size, but not
            below this; the decoder skips coefficients, at a fraction of the cost.
        reserve: Called before decoding; it may wait for memory. Its errors are raised.

    Raises:
        MissingImage: ``data`` is empty.
        NotAnImage: The format is none of ``ACCEPTED_FORMATS``, nor HEIC with its extra.
        BrokenImage: The file is damaged, or built to exhaust the decoder.
        UnsupportedImage: The file is of a kind of its format that is not supported.
        TooManyPixels: More than ``max_pixels``; raised before decoding. Also beyond a limit of the decoder's own.
        OutOfResources: There was no memory to decode it.

    """
    file_format = _identify(data)
    check_file(data, file_format)
    with _decoder_errors(file_format, max_pixels, needed=_WEBP_BYTES * max_pixels if file_format == "WEBP" else 0):
        opened = _open(data, file_format)
    with opened:
        with _decoder_errors(file_format, max_pixels):
            _check_pixels(opened, max_pixels)
            check_opened(opened, data, max_pixels)
            correct_planes(opened)
            width, height = opened.size
            scale = 1 if min_side is None else min(min_side / min(opened.size), 1)
            wanted = math.ceil(width * scale), math.ceil(height * scale)
            # Only the JPEG plugin does anything here; it takes the smallest scale that is not below this size.
            opened.draft(None, wanted)
            needed = decoding_bytes(opened, data, (width, height))
        if reserve is not None:
            reserve(needed, opened.size)
        # libde265 starts a thread, and the C library ends the process where there is no memory for a thread's data.
        if file_format == HEIC and not _has_memory(needed):
            raise OutOfResources
        with _decoder_errors(file_format, max_pixels, needed=needed):
            try:
                opened.load()
            except OSError as error:
                if file_format != "JPEG" or is_exhaustion(error):
                    raise
                opened.close()  # which frees its pixels
                opened = load_without_end(without_useless_segments(data), wanted)
            turn = _turn_upright(opened)
            image = _to_rgb(opened)
            image.load()  # where Pillow would load it again, it fails here and not in its user's hands
    del opened  # its pixels are freed before the copy that the transposition makes
    if turn is not None:
        with _decoder_errors(file_format, max_pixels, needed=needed):
            image = image.transpose(turn)
    if turn in _SIDEWAYS:
        width, height = height, width
    return DecodedImage(image, ImageInfo(file_format, width, height))


def _open(data: bytes, file_format: str) -> ImageFile.ImageFile:
    match file_format:
        case "TIFF":
            return open_tiff(data)
        case "HEIC":
            return HeicImageFile(BytesIO(data))
        case "JPEG":
            data = without_useless_segments(data)
        case "AVIF":
            data = with_major_brand(data)
        case "PNG":
            data = without_ancillary_chunks(data)
    return Image.open(BytesIO(data), formats=(file_format,))


@contextmanager
def _decoder_errors(file_format: str, max_pixels: int, *, needed: int = 0) -> Iterator[None]:
    """Raise what a decoder raises as this service's errors; ``needed`` is the memory that it takes, in bytes."""
    try:
        yield
    except ServiceError:
        raise
    except Image.DecompressionBombError as error:
        raise TooManyPixels(f"The image has more pixels than the limit of {max_pixels:,}.") from error
    except Exception as error:  # a decoder may raise anything on untrusted input; all else means "broken"
        if _LIBRARY_LIMIT in str(error).lower():
            raise TooManyPixels("Decoding the image would exceed a limit of its decoder.") from error
        if str(error).startswith(_UNSUPPORTED_BMP):
            raise UnsupportedImage(f"This BMP image is not supported: {error}. Save it as JPEG or PNG.") from error
        # libjpeg, libtiff and libwebp report a lack of memory as damage.
        if is_exhaustion(error) or (needed and not _has_memory(needed)):
            raise OutOfResources from error
        raise BrokenImage(
            f"This looks like {with_article(file_format)} image, but it is damaged or incomplete and cannot be decoded."
        ) from error


def _identify(data: bytes) -> str:
    if not data:
        raise MissingImage("The image is empty: 0 bytes were received.")
    file_format = identify(data)
    if file_format == HEIC and not is_installed():
        raise NotAnImage(HEIC_ADVICE)
    if file_format is not None:
        return file_format
    accepted = ", ".join(ACCEPTED_FORMATS)
    if (kind := refused_kind(data)) is not None:
        raise NotAnImage(f"This is {kind}; the accepted formats are {accepted}.")
    raise NotAnImage(f"These bytes are not an image in an accepted format ({accepted}).")


def _check_pixels(image: Image.Image, max_pixels: int) -> None:
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise TooManyPixels(
            f"The image has {pixels:,} pixels ({image.width}x{image.height}); the limit is {max_pixels:,}."
        )


def _has_memory(size: int) -> bool:
    """Return whether ``size`` bytes can be allocated; no page of them is touched."""
    try:
        mmap.mmap(-1, size).close()
    except OSError:
        return False
    return True


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips: every value above 255, and so nearly every pixel, would become white.
        grey = (np.asarray(image) >> bits_of(image) - 8).astype(np.uint8)
        if is_negative(image):
            np.invert(grey, out=grey)
        if isinstance(transparent := image.info.get("transparency"), int):
            grey[np.asarray(image) == transparent] = _WHITE
        return Image.fromarray(grey).convert("RGB")
    if image.mode in ("I", "F"):
        raise UnsupportedImage("The image has 32-bit pixels, whose range is not defined; save it with 8 or 16 bits.")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        if image.format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
            # Programs that do not know of alpha leave these bytes 0; nothing would be seen.
            return image.convert("RGB")
        # As its own mask, and without a copy if it already is RGBA: each copy takes 4 bytes a pixel.
        with_alpha = image if image.mode == "RGBA" else image.convert("RGBA")
        flat = Image.new("RGB", image.size, "white")
        flat.paste(with_alpha, mask=with_alpha)
        return flat
    return image if image.mode == "RGB" else image.convert("RGB")


def _turn_upright(image: Image.Image) -> Image.Transpose | None:
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # noqa: BLE001 - an image with unreadable EXIF is valid; its orientation is unknown
        return None
    return _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
