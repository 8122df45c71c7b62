"""PNG files with chunks beside the pixels: large, damaged, or of no use."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from resnet_service.errors import BrokenImage
from resnet_service.imaging.decode import decode
from resnet_service.imaging.png import MAX_METADATA_BYTES, without_ancillary_chunks
from tests.support.images import encoded, noise

IMAGE = noise(24, 16)
PLAIN = encoded(IMAGE, "PNG")
HEADER_END = 33  # signature and IHDR
EXIF = Image.Exif()
EXIF[0x0112] = 6
TURNED = np.rot90(np.asarray(IMAGE), 3)
XMP = b"XML:com.adobe.xmp\0\0\0\0\0" + b'<x tiff:Orientation="6"/>'
PROFILE = b"\nexif\n      40\n" + EXIF.tobytes().hex().encode() + b"\n"


def chunk(kind: bytes, contents: bytes, check: int | None = None) -> bytes:
    found = zlib.crc32(kind + contents) if check is None else check
    return struct.pack(">I", len(contents)) + kind + contents + struct.pack(">I", found)


def with_chunks(*added: bytes) -> bytes:
    return PLAIN[:HEADER_END] + b"".join(added) + PLAIN[HEADER_END:]


LARGE = zlib.compress(bytes(3_000_000))


@pytest.mark.parametrize(
    "added",
    [
        chunk(b"zTXt", b"Comment\0\0" + LARGE),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + LARGE),
        chunk(b"tEXt", b"Comment\0" + bytes(2_000_000)),
        chunk(b"iCCP", b"profile\0\0" + LARGE),
        chunk(b"iCCP", b"profile\0\0not deflated"),
        chunk(b"tEXt", b"Comment\0hello", 1),
        chunk(b"pHYs", b"short"),
        chunk(b"cHRM", b""),
        chunk(b"eXIf", b"not EXIF"),
        chunk(b"eXIf", EXIF.tobytes(), 1),
        chunk(b"acTL", b"\0"),
        chunk(b"prIv", bytes(100), 1),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + LARGE),
    ],
    ids=range(13),
)
def test_what_lies_beside_the_pixels_does_not_cost_the_image(added: bytes) -> None:
    assert (np.asarray(decode(with_chunks(added)).image) == np.asarray(IMAGE)).all()


@pytest.mark.parametrize(
    "added",
    [
        chunk(b"eXIf", EXIF.tobytes()[6:]),
        chunk(b"iTXt", XMP),
        chunk(b"tEXt", b"Raw profile type exif\0" + PROFILE),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(PROFILE)),
    ],
    ids=["eXIf", "XMP", "text", "compressed text"],
)
def test_metadata_still_turns_the_image(added: bytes) -> None:
    assert (np.asarray(decode(with_chunks(added)).image) == TURNED).all()


def test_metadata_beyond_its_limit_is_dropped() -> None:
    large = chunk(b"iTXt", XMP + bytes(MAX_METADATA_BYTES))
    assert without_ancillary_chunks(with_chunks(large)) == PLAIN


def test_transparency_is_kept() -> None:
    grey = Image.new("L", (4, 4), 7)
    file = io.BytesIO()
    grey.save(file, "PNG", transparency=7)
    assert np.asarray(decode(file.getvalue()).image).min() == 255


def test_a_transparent_value_of_16_bits_is_white() -> None:
    file = io.BytesIO()
    Image.fromarray(np.array([[0, 300, 65535]], np.uint16)).save(file, "PNG", transparency=300)
    assert np.asarray(decode(file.getvalue()).image)[..., 0].tolist() == [[0, 255, 255]]


def test_a_file_without_such_chunks_is_not_copied() -> None:
    assert without_ancillary_chunks(PLAIN) is PLAIN


def test_a_damaged_chunk_of_pixels_still_costs_the_image() -> None:
    damaged = bytearray(PLAIN)
    damaged[-20] ^= 1
    with pytest.raises(BrokenImage):
        decode(bytes(damaged))
