"""The estimated memory of decoding, against the measured."""

import io
import time
from collections.abc import Callable

import pytest
from PIL import Image

from fuzz import bombs
from fuzz.variants import VARIANTS, growth
from resnet_service.imaging.decoder_limits import MAX_RUN_LENGTH_PIXELS
from resnet_service.imaging.decoding_memory import decoding_bytes

# The costliest storage of each format, and ordinary photographs.
NAMES = (
    "jpeg RGB baseline subsampling 2",
    "jpeg CMYK progressive subsampling 0",
    "jpeg RGB turned",
    "png RGB turned",
    "png RGBA turned",
    "png I;16 turned",
    "png LA",
    "webp RGBA lossless",
    "gif P transparent",
    "bmp RGB",
    "tiff LA tiff_lzw one strip",
    "tiff RGBA one strip turned",
    "avif RGBA 4:4:4",
    "avif RGB 4:2:0",
    "avif RGB 4:4:4 film grain",
    "heic RGBA 444",
    "heic RGB 420",
    "heic RGB 420 tiles",
    "heic RGB 10 bits",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_estimate_is_never_below_the_measured_growth(name: str) -> None:
    _, estimated, measured = growth(VARIANTS[name](3000, 2000))
    assert measured <= estimated <= 2.5 * measured


def _small_avif(mode: str, width: int, height: int) -> bytes:
    """Return an AVIF of another size than it says, so that libavif scales it."""
    return bombs._avif_saying(VARIANTS[f"avif {mode} 4:4:4"](width, height), 4000, 3000)


def _run_lengths() -> bytes:
    """Return the largest BMP with run lengths that is accepted."""
    width, height = 1020, MAX_RUN_LENGTH_PIXELS // 1020
    return bombs._bmp(width, height, 1, (b"\xff\x11" * 4 + b"\0\0") * height + b"\0\1")


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [lambda: _small_avif("RGBA", 2600, 2000), lambda: _small_avif("RGB", 640, 480), _run_lengths],
    ids=["avif scaled up", "avif scaled up from little", "bmp of run lengths"],
)
def test_nor_where_something_else_than_its_pixels_takes_memory(make: Callable[[], bytes]) -> None:
    answer, estimated, measured = growth(make())
    assert answer == "read"
    assert measured <= estimated


def _opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize(("width", "height", "progressive"), [(4000, 3000, False), (8000, 6000, False)])
def test_two_photographs_fit_at_once_at_a_reduced_scale(width: int, height: int, progressive: bool) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "JPEG", progressive=progressive)
    with _opened(buffer.getvalue()) as image:
        image.draft(None, (width // 8, height // 8))
        assert decoding_bytes(image, buffer.getvalue(), (width, height)) < 16e6


def test_a_progressive_jpeg_costs_its_coefficients_at_any_scale() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (800, 600)).save(buffer, "JPEG", progressive=True, subsampling=0)
    with _opened(buffer.getvalue()) as image:
        full = decoding_bytes(image, buffer.getvalue(), (800, 600))
        image.draft(None, (100, 75))
        reduced = decoding_bytes(image, buffer.getvalue(), (800, 600))
    assert reduced - (6 << 20) >= 800 * 600 * 6
    assert full - reduced == pytest.approx(800 * 600 * 4 * 63 / 64, rel=0.01)


def test_a_jpeg_whose_scans_lack_components_costs_its_coefficients() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (800, 600)).save(buffer, "JPEG", subsampling=0)
    whole = buffer.getvalue()
    components = whole.index(b"\xff\xda") + 4
    single = whole[:components] + b"\1" + whole[components + 1 :]
    with _opened(whole) as image:
        assert decoding_bytes(image, single, image.size) - decoding_bytes(image, whole, image.size) >= 800 * 600 * 6


def test_small_images_pay_next_to_nothing() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (500, 375)).save(buffer, "JPEG")
    data = buffer.getvalue()
    with _opened(data) as image:
        best = 1.0
        for _ in range(50):
            begun = time.thread_time()
            decoding_bytes(image, data, image.size)
            best = min(best, time.thread_time() - begun)
    assert best < 50e-6
