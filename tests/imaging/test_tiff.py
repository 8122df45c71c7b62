"""TIFF images of every combination of colours, bits, planes, compression, predictor, byte order and tiles.

tifffile writes them and is the other decoder. Each is read as tifffile reads it, or refused by name.
"""

import io
import itertools
import struct
import warnings
import zlib
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from resnet_service.errors import UnsupportedImage
from resnet_service.imaging.decode import decode

HEIGHT, WIDTH = 40, 48
ORDERS: tuple[Literal["<", ">"], ...] = ("<", ">")
COMPRESSIONS = (None, "lzw", "zlib", "packbits", "zstd", "lzma")
Array = NDArray[Any]


class Kind(NamedTuple):
    """What a pixel is made of: the colours, the number of samples, and each sample's type and bits."""

    colours: str
    samples: int
    type: str
    bits: int
    planes: str = "contig"


# These must be read in every storage that tifffile can write, but for predictors of PackBits.
READ = [
    *(Kind(colours, 1, "u", bits) for colours in ("miniswhite", "minisblack") for bits in (1, 2, 4, 8, 16)),
    Kind("minisblack", 1, "u", 12),
    Kind("minisblack", 2, "u", 8),
    Kind("palette", 1, "u", 8),
    *(
        Kind("rgb", samples, "u", bits, planes)
        for samples, bits, planes in itertools.product((3, 4), (8, 16), ("contig", "separate"))
    ),
    *(Kind("separated", 4, "u", bits) for bits in (8, 16)),
    Kind("separated", 4, "u", 8, "separate"),
]
TYPES = [("u", bits) for bits in (1, 2, 4, 8, 10, 12, 14, 16, 32)]
TYPES += [("i", bits) for bits in (8, 16, 32)] + [("f", bits) for bits in (16, 32, 64)]
COLOURS = [
    ("miniswhite", 1),
    ("minisblack", 1),
    ("minisblack", 2),
    ("palette", 1),
    ("rgb", 3),
    ("rgb", 4),
    ("separated", 4),
]
OTHERS = [
    kind
    for (colours, samples), type_, planes in itertools.product(COLOURS, TYPES, ("contig", "separate"))
    if (kind := Kind(colours, samples, *type_, planes)) not in READ
    and not (samples == 1 and planes == "separate")
    and not (colours == "palette" and (type_[0] != "u" or type_[1] > 8))
]


def samples_of(kind: Kind) -> Array:
    """Return an image of gradients, [height, width, samples] or [height, width], in the range of its type."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    unit = np.stack([x / WIDTH, y / HEIGHT, (x + y) / (HEIGHT + WIDTH), 0.2 + 0.6 * y / HEIGHT], -1)[
        ..., : kind.samples
    ]
    if kind.samples == 1:
        unit = unit[..., 0]
    if kind.type == "f":
        return unit.astype(f"f{kind.bits // 8}")
    most = 2 ** (kind.bits - (kind.type == "i")) - 1
    store = next(size for size in (8, 16, 32) if size >= kind.bits)
    return cast("Array", np.round(unit * most).astype(f"{kind.type}{store // 8}"))


def files_of(kind: Kind) -> list[tuple[str, bytes]]:
    """Return the files of a kind in every storage that tifffile can write, with a name of each."""
    pixels = samples_of(kind)
    options: dict[str, Any] = {"photometric": kind.colours, "metadata": None}
    if kind.samples > 1:
        options["planarconfig"] = kind.planes
        pixels = np.moveaxis(pixels, -1, 0) if kind.planes == "separate" else pixels
    if kind.samples == 2 or (kind.colours, kind.samples) == ("rgb", 4):
        options["extrasamples"] = ["unassalpha"]
    if kind.colours == "palette":
        ramp = np.linspace(0, 65535, 2**kind.bits).astype(np.uint16)
        options["colormap"] = np.stack([ramp, ramp[::-1], ramp])
    if kind.bits not in (8, 16, 32, 64):
        options["bitspersample"] = kind.bits
    files = []
    for storage in itertools.product(COMPRESSIONS, (False, True), ORDERS, (None, (16, 16))):
        compression, predictor, order, tile = storage
        file = io.BytesIO()
        try:
            tifffile.imwrite(
                file,
                pixels,
                compression=compression,
                predictor=predictor,
                byteorder=order,
                tile=tile,
                rowsperstrip=None if tile else 8,
                **options,
            )
        except (ValueError, NotImplementedError, TypeError, RuntimeError):
            continue  # tifffile cannot write this
        if not (predictor and compression in (None, "packbits")):
            files.append((str(storage), file.getvalue()))
    return files


def expected(file: bytes, kind: Kind) -> Array:
    """Return the colours that tifffile reads, 0 to 1, as float64 [height, width, 3], on white."""
    with tifffile.TiffFile(io.BytesIO(file)) as opened:
        pixels: Array = opened.asarray()
        palette: Any = getattr(opened.pages.first, "colormap", None)
    if kind.colours == "palette":
        return np.moveaxis(np.asarray(palette, float), 0, -1)[pixels] / 65535
    if kind.planes == "separate":
        pixels = np.moveaxis(pixels, 0, -1)
    unit: NDArray[np.float64] = pixels.reshape(HEIGHT, WIDTH, -1).astype(float) / (2**kind.bits - 1)
    if kind.colours == "separated":
        return np.asarray((1 - unit[..., :3]) * (1 - unit[..., 3:]))
    alpha = unit[..., -1:] if kind.samples in (2, 4) else np.ones((HEIGHT, WIDTH, 1))
    shown = unit[..., :3] if kind.colours == "rgb" else np.repeat(unit[..., :1], 3, -1)
    return np.asarray((1 - shown if kind.colours == "miniswhite" else shown) * alpha + 1 - alpha)


def difference(file: bytes, kind: Kind) -> float:
    return float(np.abs(np.asarray(decode(file).image) / 255 - expected(file, kind)).max())


@pytest.mark.parametrize("kind", READ, ids=str)
def test_kinds_that_are_read_are_read_as_another_decoder_does(kind: Kind) -> None:
    files = files_of(kind)
    assert files
    assert {storage: difference(file, kind) < 0.02 for storage, file in files} == dict.fromkeys(
        (storage for storage, _ in files), True
    )


@pytest.mark.parametrize("kind", OTHERS, ids=str)
def test_other_kinds_are_read_rightly_or_refused_by_name(kind: Kind) -> None:
    for storage, file in files_of(kind):
        try:
            found = difference(file, kind)
        except UnsupportedImage:  # its sentence is tested below
            continue
        assert found < 0.02, storage


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        (Kind("rgb", 3, "f", 32), "32-bit floating-point samples"),
        (Kind("minisblack", 1, "i", 16), "16-bit signed samples"),
        (Kind("minisblack", 1, "u", 32), "32-bit samples"),
        (Kind("separated", 4, "u", 16, "separate"), "uncompressed 16-bit planes of CMYK"),
    ],
)
def test_a_kind_that_is_not_supported_is_named(kind: Kind, named: str) -> None:
    with pytest.raises(UnsupportedImage, match=named):
        decode(files_of(kind)[0][1])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_bigtiff_is_read_in_both_byte_orders(order: Any, compression: str | None) -> None:
    kind = Kind("rgb", 3, "u", 8)
    file = io.BytesIO()
    tifffile.imwrite(
        file, samples_of(kind), photometric="rgb", bigtiff=True, byteorder=order, compression=compression, metadata=None
    )
    assert difference(file.getvalue(), kind) < 0.02


def test_a_big_endian_bigtiff_is_turned_upright() -> None:
    file = io.BytesIO()
    pixels = samples_of(Kind("rgb", 3, "u", 8))
    orientation = (274, "H", 1, 6, True)
    tifffile.imwrite(
        file, pixels, photometric="rgb", bigtiff=True, byteorder=">", metadata=None, extratags=[orientation]
    )
    assert (np.asarray(decode(file.getvalue()).image) == np.rot90(pixels, 3)).all()


@pytest.mark.parametrize("compression", ["webp", "jpeg2000", "jpegxl"])
def test_a_compression_that_is_not_supported_is_named(compression: str) -> None:
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        tifffile.imwrite(
            file, samples_of(Kind("rgb", 3, "u", 8)), photometric="rgb", compression=compression, metadata=None
        )
    with pytest.raises(UnsupportedImage, match=r"with (WebP|JPEG 2000|JPEG XL) data, which is not supported"):
        decode(file.getvalue())


def test_a_predictor_that_decoders_read_differently_is_refused() -> None:
    file = io.BytesIO()
    pixels = samples_of(Kind("rgb", 3, "u", 8))
    tifffile.imwrite(file, pixels, photometric="rgb", compression="packbits", predictor=True, metadata=None)
    with pytest.raises(UnsupportedImage, match="predictor"):
        decode(file.getvalue())


def with_field(tag: int, type_: int, count: int, value: bytes, *, compressed: bool) -> tuple[bytes, Array]:
    """Return a little-endian file with one more field, and its pixels; tifffile writes no field that is wrong."""
    pixels = samples_of(Kind("rgb", 3, "u", 8))
    contents = zlib.compress(pixels.tobytes()) if compressed else pixels.tobytes()
    contents += bytes(len(contents) % 2)
    fields = {
        256: (4, 1, struct.pack("<I", WIDTH)),
        257: (4, 1, struct.pack("<I", HEIGHT)),
        258: (3, 3, struct.pack("<3H", 8, 8, 8)),
        259: (3, 1, struct.pack("<H", 8 if compressed else 1)),
        262: (3, 1, struct.pack("<H", 2)),
        273: (4, 1, struct.pack("<I", 8)),
        277: (3, 1, struct.pack("<H", 3)),
        278: (4, 1, struct.pack("<I", HEIGHT)),
        279: (4, 1, struct.pack("<I", len(contents))),
        tag: (type_, count, value),
    }
    directory = 8 + len(contents)
    outside = directory + 2 + 12 * len(fields) + 4
    entries = values = b""
    for number, (kind, length, data) in sorted(fields.items()):
        inside = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack("<I", outside + len(values))
        values += data if len(data) > 4 else b""
        entries += struct.pack("<HHI", number, kind, length) + inside
    head = b"II*\0" + struct.pack("<I", directory) + contents + struct.pack("<H", len(fields))
    return head + entries + bytes(4) + values, pixels


XMP = b'<x tiff:Orientation="6"/>'


@pytest.mark.parametrize("compressed", [False, True], ids=["uncompressed", "compressed"])
@pytest.mark.parametrize(
    "value",
    [
        (2, 6, b"abcde\0"),
        (4, 1, b"\xff\xff\xff\x7f"),
        (5, 1, bytes(8)),
        (3, 9, b"\1\0" * 9),
        (3, 0, b""),
        (99, 1, b"abcd"),
        (12, 1, struct.pack("<d", float("nan"))),
    ],
    ids=["text", "far", "0/0", "many", "none", "unknown type", "not a number"],
)
def test_fields_beside_the_pixels_do_not_cost_the_image(value: tuple[int, int, bytes], compressed: bool) -> None:
    ancillary = (
        254,
        255,
        263,
        280,
        281,
        282,
        296,
        301,
        306,
        318,
        330,
        340,
        341,
        700,
        33723,
        34377,
        34665,
        34675,
        34853,
    )
    for tag in ancillary:
        file, pixels = with_field(tag, *value, compressed=compressed)
        assert (np.asarray(decode(file).image) == pixels).all(), tag


@pytest.mark.parametrize("compressed", [False, True], ids=["uncompressed", "compressed"])
@pytest.mark.parametrize("type_", [1, 2, 7], ids=["bytes", "text", "undefined"])
def test_xmp_of_every_type_turns_the_image(type_: int, compressed: bool) -> None:
    file, pixels = with_field(700, type_, len(XMP), XMP, compressed=compressed)
    image, info = decode(file)
    assert (np.asarray(image) == np.rot90(pixels, 3)).all()
    assert (info.width, info.height) == image.size


@pytest.mark.parametrize(
    "value",
    [(2, 4, b"six\0"), (5, 1, struct.pack("<2I", 6, 1)), (3, 1, b"\x09\0"), (3, 0, b""), (3, 9, b"\0" * 18)],
    ids=["text", "fraction", "9", "none", "many"],
)
def test_an_orientation_that_means_nothing_is_none(value: tuple[int, int, bytes]) -> None:
    for compressed in (False, True):
        file, pixels = with_field(274, *value, compressed=compressed)
        image, info = decode(file)
        assert (np.asarray(image) == pixels).all()
        assert (info.width, info.height) == image.size


@pytest.mark.parametrize("compressed", [False, True], ids=["uncompressed", "compressed"])
def test_of_fields_that_come_twice_the_first_counts(compressed: bool) -> None:
    """It does for Pillow and libtiff, so that the last one could hide what is decoded."""
    file, _ = with_field(339, 3, 1, b"\2\0", compressed=compressed)
    field = file.index(struct.pack("<HHIHH", 339, 3, 1, 2, 0))
    assert file[field + 12 : field + 16] == bytes(4)
    directory = int.from_bytes(file[4:8], "little")
    # Values beside the directory move by a field, which does not matter here.
    twice = bytearray(file)
    twice[directory] += 1
    twice[field + 12 : field + 12] = struct.pack("<HHIHH", 339, 3, 1, 1, 0)
    with pytest.raises(UnsupportedImage, match="signed samples"):
        decode(bytes(twice))
