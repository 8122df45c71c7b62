"""HEIC: what is decoded, what libheif sees of a file, and what it costs."""

import io
import os
import struct
import sys
import threading
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageOps

from fuzz import bombs, heic
from fuzz.variants import VARIANTS
from resnet_service.errors import BrokenImage, NotAnImage, TooManyPixels, UnsupportedImage
from resnet_service.imaging import heic as reading
from resnet_service.imaging.decode import decode
from resnet_service.imaging.heic import Item, still_image
from resnet_service.imaging.hevc import coded_image
from resnet_service.imaging.isobmff import Reference
from tests.support.images import noise

IMAGE = noise(200, 152)
TILE = heic.coded(noise(64, 64))


def difference(data: bytes, expected: Image.Image) -> float:
    decoded = decode(data)
    assert (decoded.info.format, decoded.info.width, decoded.info.height) == ("HEIC", *expected.size)
    assert decoded.image.mode == "RGB"
    return float(np.abs(np.asarray(decoded.image, int) - np.asarray(expected.convert("RGB"), int)).mean())


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "1"])
@pytest.mark.parametrize("tiles", [{}, {"tile_size": 64}], ids=["whole", "tiles"])
def test_every_mode_is_decoded(mode: str, tiles: dict[str, int]) -> None:
    image = noise(200, 152, seed=1).convert(mode)
    assert difference(heic.encoded(image, quality=90, chroma=444, **tiles), image) < 8


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("tiles", [{}, {"tile_size": 64}], ids=["whole", "tiles"])
def test_images_are_upright(orientation: int, tiles: dict[str, int]) -> None:
    """By the properties of the image. A camera says the same in EXIF, which would turn it twice."""
    stored = Image.new("RGB", (128, 64), "white")
    stored.paste("black", (0, 0, 64, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = stored.copy()
    expected.getexif()[0x0112] = orientation
    assert difference(heic.encoded(stored, exif=exif.tobytes(), **tiles), ImageOps.exif_transpose(expected)) < 8


@pytest.mark.parametrize("mode", ["RGB;16", "RGBA;16", "L;16"])
def test_more_bits_become_eight(mode: str) -> None:
    samples = np.asarray(noise(64, 48).convert(mode.partition(";")[0])).astype("<u2") * 257
    buffer = io.BytesIO()
    pillow_heif.encode(mode, (64, 48), samples.tobytes(), buffer, quality=90, chroma=444)
    expected = noise(64, 48).convert(mode.partition(";")[0]).convert("RGB")
    assert difference(buffer.getvalue(), expected) < 8


def test_transparency_lies_on_white() -> None:
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 32, 64))
    pixels = np.asarray(decode(heic.encoded(image, quality=90, chroma=444)).image, int)
    assert np.abs(pixels[:, :28] - (0, 0, 255)).max() < 24
    assert np.abs(pixels[:, 36:] - 255).max() < 24


def test_of_several_images_the_primary_one_counts() -> None:
    file = pillow_heif.from_pillow(Image.new("RGB", (64, 64), "red"))
    file.add_from_pillow(Image.new("RGB", (128, 96), "blue"))
    buffer = io.BytesIO()
    file.save(buffer, primary_index=1)
    assert difference(buffer.getvalue(), Image.new("RGB", (128, 96), "blue")) < 8


def test_libheif_sees_the_primary_image_alone() -> None:
    """Neither its thumbnails nor other images, metadata and profiles; each is a way into the library."""
    image = IMAGE.copy()
    image.info |= {
        "thumbnails": [64],
        "exif": b"Exif\0\0II*\0\x08\0\0\0\0\0",
        "xmp": b"<x/>",
        "icc_profile": bytes(200),
    }
    data = heic.encoded(image, append_images=[pillow_heif.from_pillow(noise(80, 80))[0]])
    seen = pillow_heif.open_heif(still_image(data).file)
    assert (len(seen), seen.size) == (1, image.size)
    assert (seen.info["thumbnails"], seen.info["exif"], seen.info["metadata"]) == ([], None, [])
    assert not {"xmp", "icc_profile"} & seen.info.keys()
    assert pillow_heif.open_heif(data).info.keys() >= {"xmp", "icc_profile"}
    assert still_image(data).pixels < 200 * 152 * 1.2


def test_colours_follow_the_coded_matrix() -> None:
    """The profile of the coding (nclx) stays: without it, the decoder would take another matrix."""
    image = Image.new("RGB", (64, 64), (200, 30, 60))
    for matrix in (1, 6):
        assert difference(heic.encoded(image, quality=95, chroma=444, matrix_coefficients=matrix), image) < 6


def test_tiles_are_decoded_one_after_the_other_and_without_the_interpreters_lock() -> None:
    """In the thread that decodes, with one more of libde265's; this test counts threads meanwhile."""
    data = VARIANTS["heic RGB 444 tiles"](3000, 2000)
    decode(data)
    counts: list[int] = []
    done = threading.Event()

    def count() -> None:
        while not done.wait(0.001):
            counts.append(len(os.listdir("/proc/self/task")))

    beside = threading.Thread(target=count)
    before = len(os.listdir("/proc/self/task")) + 1
    beside.start()
    decode(data)
    done.set()
    beside.join()
    assert len(counts) > 3
    assert max(counts) <= before + 1


@pytest.mark.parametrize(
    ("options", "planes"),
    [({"chroma": 420}, 1.5), ({"chroma": 422}, 2), ({"chroma": 444}, 3)],
)
@pytest.mark.parametrize("size", [(64, 64), (200, 152), (65, 33)])
def test_sizes_and_samples_are_those_of_the_encoder(
    options: dict[str, Any], planes: float, size: tuple[int, int]
) -> None:
    image, count = coded(heic.coded(noise(*size), **options))
    assert size[0] * size[1] <= image.pixels <= (size[0] + 32) * (size[1] + 32)
    assert image.plane_bytes == planes
    assert 1 < count < 10


def test_grey_and_deep_samples_count() -> None:
    assert coded(heic.coded(noise(64, 64).convert("L")))[0] == (4096, 1, 1)
    buffer = io.BytesIO()
    pillow_heif.encode("RGB;16", (64, 64), bytes(6 * 4096), buffer)
    assert still_image(buffer.getvalue()).images == [(4096, 3, 1)]


def coded(item: Item) -> tuple[Any, int]:
    return coded_image(configuration(item), item.data, 100)


def configuration(item: Item) -> bytes:
    return next(content for _, name, content in item.properties if name == b"hvcC")


def test_parameters_among_the_slices_count() -> None:
    """An item may bring larger parameters than its configuration says."""
    large = configuration(heic.coded(Image.new("L", (2000, 2000))))
    # The second array of the encoder's configuration has the sequence parameters.
    at = large.index(b"\x42\x01") - 2
    unit = large[at : at + 2 + struct.unpack(">H", large[at : at + 2])[0]]
    item = TILE._replace(data=b"\0\0" + unit + TILE.data)
    assert coded(item)[0].pixels == 4_000_000
    with pytest.raises(TooManyPixels, match="64x64 pixels, but its data has 4,000,000"):
        decode(heic.written([item]))


@pytest.mark.parametrize(
    ("first", "kept"), [(19, 1), (20, 1), (16, 17), (21, 17), (0, None), (1, None), (8, None), (31, None)]
)
def test_images_that_refer_to_others_cost_those_or_are_refused(first: int, kept: int | None) -> None:
    item = TILE._replace(data=TILE.data[:4] + bytes([first << 1]) + TILE.data[5:])
    if kept is None:
        with pytest.raises(BrokenImage, match="not one intra-coded image"):
            coded(item)
    else:
        assert coded(item)[0].kept == kept


def test_lengths_of_other_sizes_are_refused() -> None:
    """libheif reads four bytes, whatever the configuration says."""
    said = configuration(TILE)
    for size in (0, 1, 2):
        with pytest.raises(BrokenImage, match="four bytes"):
            coded_image(said[:21] + bytes([said[21] & ~3 | size]) + said[22:], TILE.data, 100)


@pytest.mark.parametrize("properties", [[], [*TILE.properties, *TILE.properties]])
def test_an_item_has_one_configuration(properties: list[tuple[bool, bytes, bytes]]) -> None:
    with pytest.raises(BrokenImage, match="without a configuration, or with several"):
        decode(heic.written([TILE._replace(properties=properties)]))


def test_a_tile_without_data_is_damage_not_a_hole() -> None:
    items = [heic.grid(2, 1, 128, 64), TILE, TILE._replace(data=b"")]
    with pytest.raises(BrokenImage, match="damaged or incomplete"):
        decode(heic.written(items, [Reference(b"dimg", 1, [2, 3])]))


def test_tiles_count_as_often_as_they_are_shown() -> None:
    still = still_image(heic.tiled(TILE, 5, 4, 300, 250))
    assert (still.pixels, still.whole[0][0], len(still.images)) == (20 * 4096, 75_000, 20)
    assert decode(heic.tiled(TILE, 5, 4, 300, 250)).info == ("HEIC", 300, 250)


@pytest.mark.parametrize("kind", [b"iden", b"iovl", b"av01", b"jpeg", b"unci", b"mask"])
def test_other_kinds_of_images_are_named(kind: bytes) -> None:
    with pytest.raises(UnsupportedImage, match=f"kind '{kind.decode()}', which is not supported"):
        decode(heic.written([TILE._replace(type=kind)]))


def test_grids_of_grids_are_refused() -> None:
    inner = heic.grid(1, 1, 64, 64)
    data = heic.written([inner, inner, TILE], [Reference(b"dimg", 1, [2]), Reference(b"dimg", 2, [3])])
    with pytest.raises(UnsupportedImage, match="kind 'grid'"):
        decode(data)


ALPHA = b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0"


@pytest.mark.parametrize("tiles", [[1], [2]])
def test_a_grid_is_not_a_tile_of_itself(tiles: list[int]) -> None:
    """Not even one that looks like a coded image, too."""
    loop = heic.grid(1, 1, 64, 64)
    loop = loop._replace(properties=[*loop.properties, *TILE.properties])
    links = [Reference(b"dimg", 1, tiles), Reference(b"dimg", 2, [1])]
    with pytest.raises(UnsupportedImage, match="kind 'grid'"):
        still_image(heic.written([loop, loop], links))


def test_an_image_and_its_alpha_both_count() -> None:
    """One of them may be a grid, and the other coded."""
    alpha = heic.grid(1, 1, 8, 8)
    alpha = alpha._replace(properties=[*alpha.properties, (False, b"auxC", bytes(4) + ALPHA)])
    links = [Reference(b"auxl", 2, [1]), Reference(b"dimg", 2, [3])]
    still = still_image(heic.written([TILE, alpha, TILE], links))
    assert [pixels for pixels, _ in still.whole] == [4096, 64]


def test_a_property_that_must_be_understood_is_not_dropped() -> None:
    scaled = TILE._replace(properties=[*TILE.properties, (True, b"iscl", bytes(12))])
    with pytest.raises(UnsupportedImage, match="'iscl', which is not supported"):
        still_image(changed(scaled))
    optional = TILE._replace(properties=[*TILE.properties, (False, b"pasp", struct.pack(">II", 1, 1))])
    assert b"pasp" not in still_image(changed(optional)).file


def changed(item: Item) -> bytes:
    return heic.written([item])


def test_a_sequence_alone_is_named() -> None:
    brands = bombs._box(b"ftyp", b"hevc\0\0\0\0hevcmsf1")
    with pytest.raises(UnsupportedImage, match="sequence without a still image"):
        decode(brands + bombs._box(b"moov", bytes(100)))
    with pytest.raises(BrokenImage, match="damaged or incomplete"):
        decode(brands)


def test_what_is_written_is_read_as_the_same() -> None:
    """Writing what was read changes nothing more."""
    once = still_image(heic.encoded(IMAGE.convert("RGBA"), tile_size=0)).file
    assert still_image(once).file == once


def test_limits_are_those_of_other_formats() -> None:
    with pytest.raises(TooManyPixels, match=r"30,400 pixels \(200x152\)"):
        decode(heic.encoded(IMAGE), max_pixels=30_399)
    with pytest.raises(TooManyPixels):
        decode(heic.tiled(TILE, 5, 4, 300, 250), max_pixels=74_999)


def test_without_the_extra_heic_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    data = heic.encoded(IMAGE)
    assert decode(data).info.format == "HEIC"
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(NotAnImage, match="Convert it to JPEG, or ask the operator to install the extra"):
        decode(data)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("tiles", [{}, {"tile_size": 64}], ids=["whole", "tiles"])
def test_files_that_are_cut_off_are_broken(share: float, tiles: dict[str, int]) -> None:
    data = heic.encoded(IMAGE, **tiles)
    with pytest.raises(BrokenImage, match="looks like a HEIC image, but it is damaged"):
        decode(data[: int(share * len(data))])


def test_the_number_of_tiles_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_TILES", 19)
    with pytest.raises(BrokenImage, match="19 tiles"):
        decode(heic.tiled(TILE, 5, 4, 300, 250))
