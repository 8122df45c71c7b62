"""JPEG files of kinds that are not supported, and files that end early; BMP files that contain one."""

import io
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from resnet_service.errors import BrokenImage, UnsupportedImage
from resnet_service.imaging.decode import decode
from tests.support.images import CAT

PHOTOGRAPH = CAT.read_bytes()
OPENED = Image.open(io.BytesIO(PHOTOGRAPH))
GREY = np.asarray(OPENED.convert("L"))


def encoded_with(**options: Any) -> bytes:
    file = io.BytesIO()
    OPENED.save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (imagecodecs.jpeg8_encode(GREY.astype(np.uint16) << 4, bitspersample=12), "12-bit samples"),
        (imagecodecs.ljpeg_encode(GREY), "lossless compression"),
        (imagecodecs.jpegls_encode(GREY), "JPEG-LS compression"),
    ],
    ids=["12 bits", "lossless", "JPEG-LS"],
)
def test_a_kind_that_is_not_supported_is_named(data: bytes, kind: str) -> None:
    with pytest.raises(UnsupportedImage, match=f"a JPEG image with {kind}, which is not supported"):
        decode(data)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0}], ids=str
)
@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize("min_side", [None, 40])
def test_a_file_that_lacks_its_end_alone_is_read(options: Any, missing: int, min_side: int | None) -> None:
    data = encoded_with(**options)
    whole, cut = (np.asarray(decode(each, min_side=min_side).image) for each in (data, data[:-missing]))
    assert (whole == cut).all()


@pytest.mark.parametrize("missing", [3, 4, 10, 1000])
def test_a_file_that_lacks_pixels_is_refused_with_its_rows(missing: int) -> None:
    data = encoded_with()
    height = OPENED.height
    with pytest.raises(BrokenImage, match=rf"the file ends after about \d+ of {height} rows") as refusal:
        decode(data[:-missing])
    rows = int(str(refusal.value).split("about ")[1].split(" of")[0])
    partial = io.BytesIO(data[:-missing] + b"\xff\xd9")
    same = np.asarray(Image.open(partial))[: rows - 2] == np.asarray(decode(data).image)[: rows - 2]
    assert rows > 0.5 * height
    assert same.all()


def test_the_rows_of_a_reduced_image_are_those_of_the_file() -> None:
    data = encoded_with()
    with pytest.raises(BrokenImage) as refusal:
        decode(data[: len(data) // 2], min_side=40)
    height = OPENED.height
    rows = int(str(refusal.value).split("about ")[1].split(" of")[0])
    assert 0.2 * height < rows < 0.8 * height


def test_a_progressive_file_that_lacks_scans_is_refused() -> None:
    data = encoded_with(progressive=True)
    with pytest.raises(BrokenImage, match="data of its last scans is missing"):
        decode(data[:-100])


@pytest.mark.parametrize(
    "segment",
    [
        b"\xff\xe0\0\x08JFIF\0\1",
        b"\xff\xe2\0\x0eICC_PROFILE\0",
        b"\xff\xee\0\x08Adobe\0",
        b"\xff\xed\0\x16Photoshop 3.0\x008BIM\4\4",
        b"\xff\xe2\0\x0dMPF\0garbage",
        b"\xff\xe1\0\x0fExif\0\0garbage",
        b"\xff\xe1\0\x08Exif\0\0",
        b"\xff\xfe\0\2",
    ],
    ids=repr,
)
def test_what_lies_beside_the_pixels_does_not_cost_the_image(segment: bytes) -> None:
    expected = np.asarray(decode(PHOTOGRAPH).image)
    assert (np.asarray(decode(PHOTOGRAPH[:2] + segment + PHOTOGRAPH[2:]).image) == expected).all()


def test_a_file_that_ends_in_its_header_is_damaged() -> None:
    with pytest.raises(BrokenImage):
        decode(PHOTOGRAPH[:300])


@pytest.mark.parametrize(("compression", "contents"), [(4, "JPEG"), (5, "PNG")])
def test_a_bmp_that_contains_another_file_is_named(compression: int, contents: str) -> None:
    file = io.BytesIO()
    OPENED.save(file, "BMP")
    data = bytearray(file.getvalue())
    data[30:34] = compression.to_bytes(4, "little")
    with pytest.raises(UnsupportedImage, match=f"contains a {contents}"):
        decode(bytes(data))


def test_a_bmp_of_masks_that_are_not_known_is_named() -> None:
    masks = b"".join(mask.to_bytes(4, "little") for mask in (0xFF000000, 0x000FF000, 0xFF))
    header = (40).to_bytes(4, "little") + (2).to_bytes(4, "little") * 2 + b"\1\0\x20\0\3\0\0\0" + bytes(20)
    data = b"BM" + bytes(8) + (66).to_bytes(4, "little") + header + masks + bytes(16)
    with pytest.raises(UnsupportedImage, match="Unsupported BMP bitfields layout"):
        decode(data)


def test_a_bmp_whose_alpha_is_0_everywhere_is_opaque() -> None:
    """The clipboard of Windows writes such files, with a header of version 5."""
    red = Image.new("RGBA", (4, 3), (255, 0, 0, 0))
    header = b"BM" + (14 + 124 + 48).to_bytes(4, "little") + bytes(4) + (14 + 124).to_bytes(4, "little")
    sizes = (124, 4, 3)
    info = b"".join(size.to_bytes(4, "little") for size in sizes)
    info += (1).to_bytes(2, "little") + (32).to_bytes(2, "little") + (3).to_bytes(4, "little") + bytes(20)
    info += b"".join(mask.to_bytes(4, "little") for mask in (0xFF0000, 0xFF00, 0xFF, 0xFF000000))
    data = header + info.ljust(124, b"\0") + red.tobytes("raw", "BGRA")
    assert np.asarray(decode(data).image).tolist() == [[[255, 0, 0]] * 4] * 3
    translucent = data[:-1] + b"\x80"
    assert np.asarray(decode(translucent).image)[0, 0].tolist() == [255, 255, 255]
