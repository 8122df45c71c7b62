"""The coded pixels of AVIF files and their bytes, written by encoders and crafted."""

import struct
from collections.abc import Sequence
from typing import Any

import pytest
from PIL import Image

from fuzz import bombs
from resnet_service.errors import BrokenImage, TooManyPixels
from resnet_service.imaging import avif
from resnet_service.imaging.avif import coded_images, coded_pixels
from resnet_service.imaging.decode import decode
from tests.support.images import encoded, noise

OTHERS = noise(65, 48).convert("RGBA").rotate(180)


@pytest.mark.parametrize(
    ("data", "images"),
    [
        (encoded(noise(65, 48), "AVIF"), 1),
        (encoded(noise(65, 48), "AVIF", subsampling="4:4:4"), 1),
        (encoded(noise(65, 48).convert("L"), "AVIF"), 1),
        (encoded(noise(65, 48), "AVIF", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0" + bytes(5000)), 1),
        (encoded(OTHERS.rotate(90, expand=True).resize((65, 48)), "AVIF"), 1),  # opaque: the encoder leaves alpha out
        (encoded(Image.new("RGBA", (65, 48), (1, 2, 3, 100)), "AVIF"), 2),
        (encoded(noise(65, 48), "AVIF", save_all=True, append_images=[OTHERS.convert("RGB")] * 3), 1),
        (encoded(Image.new("RGBA", (65, 48)), "AVIF", save_all=True, append_images=[OTHERS] * 3), 2),
    ],
    ids=["colour", "444", "grey", "EXIF", "opaque", "alpha", "animation", "animation with alpha"],
)
def test_what_encoders_write_has_the_pixels_that_it_says(data: bytes, images: int) -> None:
    assert coded_pixels(data) in {65 * 48 * images, 65 * 48 * max(1, images - 1)}
    assert decode(data).info.width == 65


def test_more_pixels_than_the_container_says_are_refused_before_they_are_decoded() -> None:
    honest = encoded(Image.new("L", (2_000, 2_000), 128), "AVIF", speed=10, quality=1)
    assert decode(honest).info.width == 2_000
    with pytest.raises(TooManyPixels, match="16x16 pixels, but its data has 4,000,000"):
        decode(bombs._avif_saying(honest, 16, 16))


Fields = Sequence[tuple[int, int]]  # numbers, and the bits of each


def bits(*fields: tuple[int, int]) -> bytes:
    """Write numbers with the given bits each, padded with zeros."""
    text = "".join(f"{value:0{width}b}" for value, width in fields)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8)


def unit(kind: int, data: bytes, *, sized: bool = True) -> bytes:
    return bytes([kind << 3 | 2, len(data)]) + data if sized else bytes([kind << 3]) + data


def sequence(
    width: int,
    height: int,
    *,
    size_bits: int = 16,
    timing: bool = False,
    ids: bool = False,
    profile: int = 0,
    end: Fields = (),
) -> bytes:
    """Write a sequence header with every optional field, whose frames may declare their own sizes."""
    fields = [(profile, 3), (0, 1), (0, 1)]
    if timing:
        # ticks, time scale, not equal intervals; a decoder model with delays of 10 bits and times of 7
        fields += [(1, 1), (1, 32), (25, 32), (0, 1), (1, 1), (9, 5), (1, 32), (4, 5), (6, 5)]
        # two operating points with display delays, one of them with a tier and decoder delays
        fields += [(1, 1), (1, 5), (0, 12), (8, 5), (1, 1), (1, 1), (3, 10), (3, 10), (0, 1), (1, 1), (5, 4)]
        fields += [(0, 12), (7, 5), (0, 1), (0, 1)]
    else:
        fields += [(0, 1), (0, 1), (0, 5), (0, 12), (0, 5)]
    fields += [(size_bits - 1, 4), (size_bits - 1, 4), (width - 1, size_bits), (height - 1, size_bits)]
    fields += [(1, 1), (3, 4), (4, 3)] if ids else [(0, 1)]
    fields += [(0, 3), (0, 4), (0, 1)]  # no order hints
    # Either each frame header has the fields for screen content and integer motion vectors, or none has.
    return bits(*fields, *([(1, 1), (1, 1)] if ids else [(0, 1), (0, 1)]), *end)


def frame(*, own_size: bool, timing: bool = False, ids: bool = False) -> bytes:
    fields = [(0, 1), (0, 2), (1, 1)] + [(100, 7)] * timing + [(0, 1)]
    return bits(*fields, *([(1, 1), (0, 1), (77, 10)] if ids else ()), (int(own_size), 1), (0, 20))


def container(*items: bytes, cut: int | None = None, size: int | None = None) -> bytes:
    """Store coded items within ``meta``; with ``cut``, each in two extents."""
    infos, slots, kept = b"", b"", b"".join(items)
    at = 0
    for number, item in enumerate(items, 1):
        infos += bombs._box(b"infe", b"\2\0\0\0" + struct.pack(">HH4s", number, 0, b"av01") + b"\0")
        length = len(item) if size is None else size
        parts = [(at, length)] if cut is None else [(at, cut), (at + cut, length - cut)]
        slots += struct.pack(">HHHH", number, 1, 0, len(parts)) + b"".join(struct.pack(">II", *part) for part in parts)
        at += len(item)
    located = b"\1\0\0\0\x44\0" + struct.pack(">H", len(items)) + slots
    named = b"\0\0\0\0" + struct.pack(">H", len(items)) + infos
    boxes = bombs._box(b"iinf", named) + bombs._box(b"iloc", located) + bombs._box(b"idat", kept)
    return bombs._box(b"ftyp", b"avif\0\0\0\0avifmif1") + bombs._box(b"meta", bytes(4) + boxes)


@pytest.mark.parametrize("timing", [False, True])
@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("kind", [3, 6, 7])
def test_a_frame_that_brings_its_own_size_counts_as_the_largest_it_could_say(
    timing: bool, ids: bool, kind: int
) -> None:
    header = unit(2, b"") + unit(1, sequence(16, 16, timing=timing, ids=ids))
    for own_size, pixels in ((False, 256), (True, 2**32)):
        item = header + unit(kind, frame(own_size=own_size, timing=timing, ids=ids))
        assert coded_pixels(container(item)) == pixels
        assert coded_pixels(container(item, cut=9)) == pixels
        assert coded_pixels(container(item, item)) == 2 * pixels


def test_the_largest_sequence_of_an_item_counts_wherever_it_is() -> None:
    small, large = sequence(16, 16, size_bits=4), sequence(8_000, 8_000, size_bits=13)
    shown = unit(6, frame(own_size=False))
    assert (
        coded_pixels(container(unit(1, small) + shown + unit(1, large) + shown + unit(1, small) + shown)) == 64_000_000
    )
    assert coded_pixels(container(unit(1, large) + unit(6, frame(own_size=False), sized=False))) == 64_000_000


def test_a_switch_frame_always_brings_its_own_size() -> None:
    switch = bits((0, 1), (3, 2), (1, 1), (0, 20))
    assert coded_pixels(container(unit(1, sequence(16, 16)) + unit(6, switch))) == 2**32


OFF, ON = (0, 1), (1, 1)
PLAIN = (OFF, (0, 2))  # no change of scale; two filters
SRGB = (ON, (1, 8), (13, 8), (0, 8))


@pytest.mark.parametrize(
    ("profile", "end", "planes"),
    [
        (0, (*PLAIN, OFF, OFF, OFF, OFF, (0, 2), OFF), 1.5),
        (0, (*PLAIN, ON, OFF, OFF, OFF, (0, 2), OFF), 3),
        (0, (*PLAIN, OFF, ON, OFF, OFF), 1),
        (0, (*PLAIN, ON, ON, OFF, OFF), 2),
        (1, (*PLAIN, OFF, OFF, OFF, OFF), 3),
        (1, (*PLAIN, ON, *SRGB, OFF), 6),
        (2, (*PLAIN, OFF, OFF, OFF, OFF, OFF), 2),
        (2, (*PLAIN, ON, ON, OFF, OFF, OFF, ON, ON, (0, 2), OFF), 3),
        (2, (*PLAIN, ON, ON, OFF, OFF, OFF, OFF, OFF), 6),
    ],
    ids=["420", "deep 420", "grey", "deep grey", "444", "deep sRGB", "422", "12 bits, 420", "12 bits, 444"],
)
@pytest.mark.parametrize("grain", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
def test_samples_depth_film_grain_and_scale_count(
    profile: int, end: Fields, planes: float, grain: bool, scaled: bool
) -> None:
    said = ((int(scaled), 1), *end[1:], (int(grain), 1))
    item = unit(1, sequence(16, 16, profile=profile, end=said)) + unit(6, frame(own_size=False))
    assert coded_images(container(item)) == ([(256, planes * (1 + grain + scaled) + 1)], [])


@pytest.mark.parametrize(
    ("mode", "options", "planes"),
    [
        ("RGB", {"subsampling": "4:2:0"}, 1.5),
        ("RGB", {"subsampling": "4:2:2"}, 2),
        ("RGB", {"subsampling": "4:4:4"}, 3),
        ("L", {"subsampling": "4:0:0"}, 1),
        ("RGB", {"subsampling": "4:4:4", "advanced": {"film-grain-test": "1"}}, 6),
    ],
    ids=str,
)
def test_what_encoders_write_has_the_samples_that_were_asked_for(
    mode: str, options: dict[str, Any], planes: float
) -> None:
    images, _ = coded_images(encoded(noise(64, 48).convert(mode), "AVIF", codec="aom", **options))
    assert images == [(64 * 48, planes + 1)]


def test_items_that_overlap_or_have_endless_units_are_refused() -> None:
    with pytest.raises(BrokenImage, match="overlap"):
        coded_pixels(container(*[bytes(10)] * 900, size=10_000))
    with pytest.raises(BrokenImage, match="10,000 coded units"):
        coded_pixels(container(unit(2, b"") * (avif.MAX_UNITS + 1)))


def test_the_first_samples_of_tracks_count_without_any_item() -> None:
    data = encoded(noise(65, 48), "AVIF", save_all=True, append_images=[OTHERS.convert("RGB")] * 3)
    named = data.index(b"av01", data.index(b"infe"))
    assert coded_pixels(data[:named] + b"none" + data[named + 4 :]) == 65 * 48


def test_tiles_of_a_grid_count_together() -> None:
    """Each has its own decoder, and all decoders keep their frames."""
    tile = unit(1, sequence(8_000, 6_000, size_bits=13)) + unit(6, frame(own_size=False))
    assert coded_pixels(container(*[tile] * 256)) == 256 * 48_000_000
