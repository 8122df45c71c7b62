"""Heat maps as images: colours and positions."""

import io

import numpy as np
import pytest
from PIL import Image

from resnet_service.imaging import heatmap as drawing
from resnet_service.imaging.heatmap import bare, overlay
from resnet_service.imaging.preprocess import Region, crop, region
from tests.support.images import noise
from tests.support.models import metadata

VALUES = np.array([[0, 0], [0, 1]], np.float32)


def opened(png: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    return image


def test_colours_get_evenly_lighter() -> None:
    """Oklab's lightness of the written colours, by the inverse matrices."""
    encoded = drawing._COLOURS / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    cones = linear @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    lightness = np.cbrt(cones) @ np.array([0.2104542553, 0.7936177850, -0.0040720468])
    np.testing.assert_allclose(lightness, np.linspace(0.35, 0.93, 256), atol=0.005)


def test_only_what_the_network_saw_is_coloured() -> None:
    image = noise(300, 200)
    result = np.asarray(opened(overlay(image, VALUES, Region(50.0, 20.0, 100.0, 150.0)))).astype(int)
    before = np.asarray(image).astype(int)
    changed = (result != before).any(axis=2)
    assert changed[20:170, 50:150].mean() > 0.99
    changed[20:170, 50:150] = False
    assert not changed.any()


def test_where_the_map_is_greatest_it_is_lightest() -> None:
    grey = Image.new("RGB", (100, 100), (128, 128, 128))
    result = np.asarray(opened(overlay(grey, VALUES, Region(0, 0, 100, 100)))).astype(int).sum(axis=2)
    assert np.unravel_index(result.argmax(), result.shape) >= (74, 74)
    assert result[0, 0] == result.min()


@pytest.mark.parametrize("size", [(4000, 3000), (3000, 40), (1, 5000)])
def test_large_images_are_drawn_small(size: tuple[int, int]) -> None:
    facts = metadata()
    image = Image.new("RGB", size, "grey")
    result = opened(overlay(image, VALUES, region(size, facts)))
    assert max(result.size) == drawing.LONGEST_SIDE
    assert result.size[0] / result.size[1] == pytest.approx(size[0] / size[1], rel=0.05, abs=0.001)


def test_a_bare_map_is_grey_and_as_large_as_the_crop() -> None:
    result = opened(bare(VALUES, 64))
    assert (result.mode, result.size) == ("L", (64, 64))
    assert (result.getpixel((0, 0)), result.getpixel((63, 63))) == (0, 255)


@pytest.mark.parametrize("values", [np.zeros((2, 2)), np.full((7, 7), -3.5), np.array([[1e30, -1e30]])])
def test_any_range_can_be_drawn(values: np.ndarray) -> None:
    result = np.asarray(opened(bare(values.astype(np.float32), 16)))
    assert result.min() == 0
    assert result.max() in (0, 255)


def test_nothing_of_the_images_file_goes_into_the_png() -> None:
    """A CMYK profile would be wrong for an image that became RGB."""
    image = noise(30, 30)
    image.info.update(icc_profile=b"x" * 200, exif=b"Exif\0\0secret", comment=b"secret")
    assert opened(overlay(image, VALUES, Region(0, 0, 30, 30))).info.keys() <= {"dpi"}


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (451, 300), (64, 64), (31, 97), (1024, 683)])
def test_the_region_is_what_the_crop_shows(size: tuple[int, int]) -> None:
    """An image whose pixels encode their position, so that the crop's edges show where the region begins and ends."""
    facts = metadata(input_size=64, resize_size=72, interpolation="bilinear")
    width, height = size
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    for axis, (position, length) in enumerate(((x, width), (y, height))):
        image = Image.fromarray(np.repeat((position * 255)[:, :, np.newaxis], 3, axis=2).astype(np.uint8))
        shown = crop(image, facts)[:, :, 0].mean(axis=axis) / 255 * length
        seen = region(size, facts)
        begin, extent = (seen.left, seen.width) if axis == 0 else (seen.top, seen.height)
        step = extent / 64
        assert shown[8] == pytest.approx(begin + 8.5 * step, abs=length * 0.01)
        assert shown[-9] == pytest.approx(begin + extent - 8.5 * step, abs=length * 0.01)


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (900, 600)])
def test_the_region_is_not_one_pixel_beside_what_the_crop_shows(size: tuple[int, int]) -> None:
    """White in the region, black elsewhere: the crop's edges must be equally grey on both sides."""
    facts = metadata(input_size=64, resize_size=64, interpolation="bilinear")
    left, top, width, height = region(size, facts)
    assert left + top == min(size) / 4  # in the middle of a side that is half as long again as the other

    def edges(shift: int) -> list[float]:
        image = Image.new("RGB", size, "black")
        begin = (round(left) + shift, round(top)) if left else (round(left), round(top) + shift)
        image.paste((255, 255, 255), (*begin, begin[0] + round(width), begin[1] + round(height)))
        shown = crop(image, facts)[:, :, 0].mean(axis=0 if left else 1)
        return [float(shown[0]), float(shown[-1])]

    first, last = edges(0)
    assert first == pytest.approx(last, abs=1)
    assert 128 < first < 255
    first, last = edges(1)
    assert abs(first - last) > 5  # so that one pixel would have been seen


def test_the_region_lies_within_the_image() -> None:
    for size in [(1, 1), (1, 65_535), (65_535, 1), (3, 20_000), (299, 300), (8000, 6000)]:
        left, top, width, height = region(size, metadata())
        assert left >= 0
        assert top >= 0
        assert left + width <= size[0] * (1 + 1e-9)
        assert top + height <= size[1] * (1 + 1e-9)
