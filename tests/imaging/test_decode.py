import contextlib
import errno
import io
import struct
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fuzz.variants import VARIANTS
from resnet_service.errors import (
    BrokenImage,
    MissingImage,
    NotAnImage,
    OutOfResources,
    RequestError,
    TooManyPixels,
    UnsupportedImage,
)
from resnet_service.imaging.decode import decode
from resnet_service.imaging.formats import ACCEPTED_FORMATS
from tests.support.images import encoded, noise

IMAGE = noise(48, 32)
EXIF_ORIENTATION = 0x0112


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(decode(data).image)


@pytest.mark.parametrize("file_format", ACCEPTED_FORMATS)
def test_every_accepted_format_decodes(file_format: str) -> None:
    decoded = decode(encoded(IMAGE, file_format))
    assert (decoded.info.format, decoded.info.width, decoded.info.height) == (file_format, 48, 32)
    assert decoded.image.mode == "RGB"
    difference = np.abs(np.asarray(decoded.image).astype(int) - np.asarray(IMAGE).astype(int))
    assert difference.mean() < 20


@pytest.mark.parametrize(
    ("mode", "file_format"),
    [
        ("1", "PNG"),
        ("L", "PNG"),
        ("L", "JPEG"),
        ("P", "PNG"),
        ("P", "GIF"),
        ("CMYK", "JPEG"),
        ("CMYK", "TIFF"),
        ("YCbCr", "TIFF"),
        ("RGBA", "PNG"),
        ("RGBA", "WEBP"),
        ("RGBA", "AVIF"),
        ("LA", "PNG"),
    ],
)
def test_every_mode_becomes_rgb(mode: str, file_format: str) -> None:
    converted = IMAGE.convert(mode)
    best: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 100},
        "WEBP": {"lossless": True},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    }
    result = pixels(encoded(converted, file_format, **best.get(file_format, {})))
    assert result.shape == (32, 48, 3)
    expected = np.asarray(converted.convert("RGB")).astype(int)
    assert np.abs(result.astype(int) - expected).mean() < 8


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_brightness(file_format: str) -> None:
    """Pillow's own conversion would turn all of this white."""
    grey = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    result = pixels(encoded(Image.fromarray(grey), file_format))
    assert np.array_equal(result[..., 0], (grey >> 8).astype(np.uint8))


def test_32_bit_pixels_are_refused_in_words() -> None:
    with pytest.raises(UnsupportedImage, match="32-bit"):
        decode(encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"))


def test_transparency_lies_on_white() -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 128))
    assert pixels(encoded(image, "PNG")).tolist() == [[[255, 255, 255], [255, 127, 127]]]


def test_transparent_palette_entry_lies_on_white() -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([0, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    assert pixels(encoded(image, "PNG", transparency=0)).tolist() == [[[255, 255, 255], [0, 0, 255]]]


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(file_format: str, orientation: int) -> None:
    upright = Image.new("RGB", (48, 32), "white")
    upright.paste("black", (0, 0, 24, 8))  # a mark that shows every rotation and flip
    undone_by = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the inverse of each, as Image.Transpose
    stored = upright.transpose(Image.Transpose(undone_by[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    decoded = decode(encoded(stored, file_format, exif=exif))
    assert (decoded.info.width, decoded.info.height) == (48, 32)
    assert np.abs(np.asarray(decoded.image).astype(int) - np.asarray(upright).astype(int)).mean() < 8


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_does_not_cost_the_image(file_format: str) -> None:
    for exif in (b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0", b"Exif\0\0MMB*\0\0\0\x08"):
        assert pixels(encoded(IMAGE, file_format, exif=exif)).shape == (32, 48, 3)


def test_of_an_animation_the_first_frame_counts() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for file_format in ("GIF", "WEBP", "AVIF", "PNG"):
        data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:], duration=50)
        red, _, blue = pixels(data)[2, 2]
        assert red > 240 > 16 > blue, file_format


@pytest.mark.parametrize("file_format", ACCEPTED_FORMATS)
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9])
def test_truncated_files_are_broken_whatever_the_format(file_format: str, share: float) -> None:
    whole = encoded(noise(96, 96), file_format)
    with pytest.raises(BrokenImage, match=file_format):
        decode(whole[: max(16, int(share * len(whole)))])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"%PDF-1.7 ...", "PDF"),
        (b"<svg xmlns=''/>", "SVG"),
        (b"\xff\x4f\xff\x51\0\x2f", "a JPEG 2000 image"),
        (b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 ", "a JPEG 2000 image"),
        (b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjph ", "a High-Throughput JPEG 2000 image"),
        (b"\xff\x0a\x80", "a JPEG XL image"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
        (b"8BPS\0\1", "Photoshop"),
        (b"root:x:0:0:root:/root:/bin/bash", "not an image"),
        (b"\xff", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "not an image"),
        (b"SIMPLE  =                    T", "not an image"),
    ],
)
def test_other_files_are_not_images(data: bytes, said: str) -> None:
    with pytest.raises(NotAnImage, match=said):
        decode(data)


def test_nothing_is_no_file() -> None:
    with pytest.raises(MissingImage, match="0 bytes"):
        decode(b"")


def test_pixels_are_limited() -> None:
    decode(encoded(IMAGE, "PNG"), max_pixels=48 * 32)
    with pytest.raises(TooManyPixels, match=r"1,536 pixels \(48x32\)"):
        decode(encoded(IMAGE, "PNG"), max_pixels=48 * 32 - 1)


@pytest.mark.parametrize("side", [9_000, 12_000, 20_000])
def test_a_bomb_is_refused_before_it_goes_off(side: int) -> None:
    """A PNG of few bytes and 81 to 400 million pixels: below, between and above Pillow's own warning and limit."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    packer = zlib.compressobj(1)
    # All rows, with non-zero bytes: memory that is never written to is not counted.
    rows = (
        b"".join(packer.compress(b"\0" + bytes([row % 255 + 1]) * (3 * side)) for row in range(side)) + packer.flush()
    )
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    # Pillow's pixels are in C memory, so a separate process reports its peak (getrusage would include its parent's).
    script = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from resnet_service.imaging.decode import decode\n"
        "from resnet_service.errors import TooManyPixels\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "data = sys.stdin.buffer.read(); before = peak()\n"
        "try: decode(data)\n"
        "except TooManyPixels: print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", script], input=bomb, capture_output=True, timeout=60, check=True)
    assert int(done.stdout) < 50_000  # kilobytes


SAMPLES = [encoded(noise(24, 16), file_format) for file_format in ACCEPTED_FORMATS]


@given(st.data())
def test_damaged_files_decode_or_are_refused_but_never_crash(data: st.DataObject) -> None:
    sample = bytearray(data.draw(st.sampled_from(SAMPLES)))
    for position in data.draw(st.lists(st.integers(0, len(sample) - 1), min_size=1, max_size=8)):
        sample[position] = data.draw(st.integers(0, 255))
    with contextlib.suppress(RequestError):
        assert decode(bytes(sample), max_pixels=1_000_000).image.mode == "RGB"


@given(st.binary(max_size=256), st.sampled_from([sample[:16] for sample in SAMPLES]))
def test_arbitrary_bytes_behind_a_signature_never_crash(tail: bytes, head: bytes) -> None:
    with pytest.raises(RequestError):
        decode(head + tail, max_pixels=1_000_000)


def test_the_name_of_a_file_is_not_evidence() -> None:
    buffer = io.BytesIO()
    buffer.name = "cat.jpg"
    IMAGE.save(buffer, "PNG")
    assert decode(buffer.getvalue()).info.format == "PNG"


@pytest.mark.parametrize(
    ("width", "height"), [(4000, 3000), (3000, 4000), (1025, 4000), (1023, 1500), (500, 375), (9, 7)]
)
def test_a_jpeg_is_decoded_no_smaller_than_is_enough(width: int, height: int) -> None:
    data = encoded(noise(width, height), "JPEG")
    decoded = decode(data, min_side=512)
    shorter = min(decoded.image.size)
    assert shorter >= min(512, width, height)
    assert shorter < 1024 or shorter == min(width, height) // 8
    assert (decoded.info.width, decoded.info.height) == (width, height)
    whole = decode(data).image
    assert whole.size == (width, height)
    small, reference = (image.resize((64, 64)) for image in (decoded.image, whole))
    assert np.abs(np.asarray(small, int) - np.asarray(reference, int)).mean() < 1.5


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
@pytest.mark.parametrize("progressive", [False, True])
def test_reduced_decoding_keeps_colours(mode: str, progressive: bool) -> None:
    data = encoded(noise(2000, 1500).convert(mode), "JPEG", progressive=progressive)
    small, whole = (decode(data, min_side=min_side).image.resize((32, 24)) for min_side in (300, None))
    assert np.abs(np.asarray(small, int) - np.asarray(whole, int)).mean() < 1.5


def test_reduced_decoding_turns_upright_and_reports_the_displayed_size() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode(encoded(noise(2000, 1000), "JPEG", exif=exif), min_side=200)
    assert decoded.image.size == (250, 500)
    assert (decoded.info.width, decoded.info.height) == (1000, 2000)


def test_the_pixel_limit_is_for_the_whole_image() -> None:
    with pytest.raises(TooManyPixels):
        decode(encoded(noise(2000, 1000), "JPEG"), max_pixels=1_999_999, min_side=10)


def test_reduced_decoding_is_for_jpeg_alone() -> None:
    assert decode(encoded(noise(2000, 1000), "PNG"), min_side=10).image.size == (2000, 1000)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (MemoryError(), OutOfResources),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), OutOfResources),
        (OSError(errno.EMFILE, "Too many open files"), OutOfResources),
        (RuntimeError("can't start new thread"), OutOfResources),
        (OSError("out of memory error when reading image file"), OutOfResources),
        (MemoryError("Memory allocation error: Security limit exceeded: 10 items"), TooManyPixels),
        (Image.DecompressionBombError("bomb"), TooManyPixels),
        (OSError("broken data stream when reading image file"), BrokenImage),
        (ZeroDivisionError(), BrokenImage),
    ],
    ids=repr,
)
def test_what_the_machine_lacks_is_not_the_images_fault(
    raised: Exception, expected: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Image.Image) -> None:
        raise raised

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    with pytest.raises(expected):
        decode(encoded(IMAGE, "PNG"))


SHORT = """
import resource, sys
from resnet_service.errors import ServiceError
from resnet_service.imaging.decode import decode
data = sys.stdin.buffer.read()
decode(data)
for megabytes in (1, 2, 4, 8, 16, 20, 24, 28, 32, 36, 40, 48, 56, 64):
    held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + megabytes * 2**20, -1))
    try:
        decode(data)
        print("read")
    except ServiceError as error:
        print(error.code)
"""
# Of some, libraries report the lack of memory as damage, and only with certain amounts of it.
REPORTED_AS_DAMAGE = (
    "jpeg RGB progressive subsampling 0",
    "jpeg CMYK progressive turned",
    "webp RGBA lossless",
    "tiff RGB tiff_lzw one strip",
    "tiff RGB jpeg one strip",
    "tiff RGB packbits one strip",
    "heic RGB 420 tiles",
    "heic RGBA 444",
)


@pytest.mark.parametrize("name", [*ACCEPTED_FORMATS, *REPORTED_AS_DAMAGE])
def test_without_memory_no_image_is_broken(name: str) -> None:
    size = (3000, 2000)
    data = encoded(Image.new("RGB", size), name) if name in ACCEPTED_FORMATS else VARIANTS[name](*size)
    done = subprocess.run([sys.executable, "-c", SHORT], input=data, capture_output=True, timeout=60, check=True)
    answers = set(done.stdout.decode().splitlines())
    assert "out_of_resources" in answers
    assert answers <= {"out_of_resources", "read"}


def test_an_error_while_memory_is_reserved_is_not_the_images() -> None:
    def reserve(size: int, pixels: tuple[int, int]) -> None:
        raise OSError(errno.EDEADLK, "no decoder's")

    with pytest.raises(OSError, match="no decoder's"):
        decode(encoded(noise(8, 8), "PNG"), reserve=reserve)
