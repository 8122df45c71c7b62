"""Kinds of TIFF images: those that are read as their fields say, and those that are refused by name.

A TIFF may combine any numbers of bits, planes, colours and compressions. Pillow refuses most combinations that it does
not know as damaged, and misreads some. So the kind is judged here, before Pillow sees the file, by the fields of its
first directory; ``tests/imaging/test_tiff.py`` compares every combination with another decoder.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

from PIL import Image, ImageFile, TiffImagePlugin

from resnet_service.errors import UnsupportedImage

# TIFF 6.0, section 8, and for the sample format section 19.
BITS, COMPRESSION, COLOURS, ORIENTATION, SAMPLES, PLANES, PREDICTOR, SAMPLE_FORMAT = (
    258,
    259,
    262,
    274,
    277,
    284,
    317,
    339,
)
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK = 0, 1, 2, 3, 5
_GREY = (_WHITE_IS_ZERO, _BLACK_IS_ZERO)
_UNCOMPRESSED, _RUN_LENGTHS = 1, 32773
_SEPARATE = 2

# TIFF 6.0, section 2, and BigTIFF: the bytes of a value by its type.
VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_BYTE, _SHORT, _LONG = 1, 3, 4
# A field of more samples is of no kind that is supported.
_MAX_VALUES = 8

_COMPRESSIONS = {
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    34712: "JPEG 2000",
    34887: "LERC",
    34892: "lossy JPEG",
    34676: "LogLuv",
    34677: "LogLuv",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_SUPPORTED_COMPRESSIONS = {1, 2, 3, 4, 5, 6, 7, 8, 32771, _RUN_LENGTHS, 32809, 32946, 34925, 50000}
_FORMATS = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
# Bits of each sample that are supported, by what the samples mean. All others mean what Pillow says that they mean.
_SUPPORTED_BITS = {
    _WHITE_IS_ZERO: {1, 2, 4, 8, 16},
    _BLACK_IS_ZERO: {1, 2, 4, 8, 12, 16},
    _RGB: {8, 16},
    _PALETTE: {1, 2, 4, 8},
    _CMYK: {8, 16},
}
_RARE_COLOURS = {
    4: "a mask of transparency",
    32803: "a camera's raw data",
    32844: "LogL",
    32845: "LogLuv",
    34892: "a camera's raw data",
}

# Fields that say how pixels are stored and what they mean, also of fax and of JPEG within TIFF. All others may be
# damaged, or of another type than Pillow and libtiff expect.
_PIXEL_TAGS = {
    *(256, 257, BITS, COMPRESSION, COLOURS, 266, 273, SAMPLES, 278, 279, PLANES, 292, 293, PREDICTOR),
    *(320, 322, 323, 324, 325, 332, 334, 338, SAMPLE_FORMAT, 347, *range(512, 522), 529, 530, 531, 532),
}
_XMP, _MAX_XMP_BYTES = 700, 65_536
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')

# Pillow knows these two kinds in the other byte order alone. Its tables are those of the whole process: programs that
# use this package can read such files, too.
TiffImagePlugin.OPEN_INFO[(b"MM", _WHITE_IS_ZERO, (1,), 1, (16,), ())] = ("I;16B", "I;16B")
TiffImagePlugin.OPEN_INFO[(b"MM", _BLACK_IS_ZERO, (1,), 1, (12,), ())] = ("I;16", "I;12")
# Pillow recognises a BigTIFF by the number 43 in its third byte, where only those of the other byte order have it.
_BIG_ENDIAN_BIGTIFF, _AS_PILLOW_EXPECTS = b"MM\0+", b"MM+\0"
TiffImagePlugin.PREFIXES.append(_AS_PILLOW_EXPECTS)


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a directory: its tag, the type and number of its values, and where in the file they begin."""

    tag: int
    type: int
    count: int
    start: int

    @property
    def bytes(self) -> int:
        """Length of all values."""
        return self.count * VALUE_BYTES.get(self.type, 0)


class Directory:
    """The first directory of a TIFF (TIFF 6.0, section 2, and BigTIFF), the only one that Pillow reads here."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._order: Literal["little", "big"] = "little" if data[:1] == b"I" else "big"
        large = 43 in data[2:4]
        self._width = 8 if large else 4
        self._head, self._each = (8, 20) if large else (2, 12)
        self._start = self.number(8, 8) if large else self.number(4, 4)
        self.count = self.number(self._start, self._head)

    def number(self, position: int, size: int) -> int:
        """Return the integer of so many bytes."""
        return int.from_bytes(self._data[position : position + size], self._order)

    @property
    def is_whole(self) -> bool:
        """Whether the file has the directory to its end."""
        return self._start + self._head + self.count * self._each <= len(self._data)

    def has(self, field: Field) -> bool:
        """Whether the file has all values of a field."""
        return field.start + field.bytes <= len(self._data)

    def is_within(self, field: Field) -> bool:
        """Whether a field's values are in the directory itself; otherwise they are elsewhere in the file."""
        return field.bytes <= self._width

    def fields(self) -> Iterator[Field]:
        """Yield the fields in order."""
        for index in range(self.count):
            begin = self._start + self._head + index * self._each
            kind, count = self.number(begin + 2, 2), self.number(begin + 4, self._width)
            value = begin + 4 + self._width
            inside = count * VALUE_BYTES.get(kind, 0) <= self._width
            start = value if inside else self.number(value, self._width)
            yield Field(self.number(begin, 2), kind, count, start)

    def first_fields(self) -> Iterator[Field]:
        """Yield the first field of each tag, in order; Pillow and libtiff ignore the others."""
        tags: set[int] = set()
        for field in self.fields():
            if field.tag not in tags:
                tags.add(field.tag)
                yield field

    def without_other_fields(self, orientation: int) -> bytes:
        """Return the file with the fields that matter for its pixels, and this orientation; further images are lost."""
        if not self.is_whole:
            return self._data
        begin = self._start + self._head
        fields = [self._data[at : at + self._each] for at in range(begin, begin + self.count * self._each, self._each)]
        kept = [field for field in fields if int.from_bytes(field[:2], self._order) in _PIXEL_TAGS]
        if orientation != 1 and len(kept) < len(fields):
            numbers = ((ORIENTATION, 2), (_SHORT, 2), (1, self._width), (orientation, 2), (0, self._width - 2))
            turned = b"".join(number.to_bytes(size, self._order) for number, size in numbers)
            kept = sorted([*kept, turned], key=lambda field: int.from_bytes(field[:2], self._order))
        if kept == fields:
            return self._data
        head = len(kept).to_bytes(self._head, self._order)
        rest = b"".join((head, *kept, bytes(self._width)))
        return b"".join((self._data[: self._start], rest, self._data[self._start + len(rest) :]))

    def contents(self, field: Field, most: int) -> bytes:
        """Return the bytes of a field's values, at most so many."""
        return self._data[field.start : field.start + min(field.bytes, most)]

    def values(self, field: Field) -> tuple[int, ...]:
        """Return a field's first integers; none if it has others."""
        if field.type not in (_BYTE, _SHORT, _LONG):
            return ()
        size = VALUE_BYTES[field.type]
        return tuple(self.number(field.start + index * size, size) for index in range(min(field.count, _MAX_VALUES)))


def check_kind(directory: Directory) -> None:
    """Refuse an image whose pixels Pillow would not read as its fields say; Pillow refuses one that lacks fields.

    Raises:
        UnsupportedImage: The message names the kind.

    """
    wanted = {BITS, COMPRESSION, COLOURS, SAMPLES, PLANES, PREDICTOR, SAMPLE_FORMAT}
    fields = [field for field in directory.first_fields() if field.tag in wanted]
    if not (directory.is_whole and all(directory.has(field) for field in fields)):
        return
    found = {field.tag: values for field in fields if (values := directory.values(field))}
    kind = _unsupported(found)
    if kind is not None:
        raise UnsupportedImage(
            f"This is a TIFF image with {kind}, which is not supported. Save it as JPEG, PNG or 8-bit RGB TIFF."
        )


def _unsupported(found: dict[int, tuple[int, ...]]) -> str | None:
    """Return what is not supported of an image with these values of fields, by their tags."""

    def one(tag: int, otherwise: int) -> int:
        return found.get(tag, (otherwise,))[0]

    compression, colours, samples = one(COMPRESSION, _UNCOMPRESSED), one(COLOURS, _WHITE_IS_ZERO), one(SAMPLES, 1)
    bits = found.get(BITS, (1,))
    if compression not in _SUPPORTED_COMPRESSIONS:
        return f"{_COMPRESSIONS.get(compression, f'compression {compression}')} data"
    for code in found.get(SAMPLE_FORMAT, ()):
        if code in _FORMATS:
            return f"{bits[0]}-bit {_FORMATS[code]} samples"
    if colours in _RARE_COLOURS:
        return f"{_RARE_COLOURS[colours]} as pixels"
    if len(set(bits)) > 1:
        return "samples of different numbers of bits"
    if bits[0] not in _SUPPORTED_BITS.get(colours, bits):
        return f"{bits[0]}-bit samples"
    separate = one(PLANES, 1) == _SEPARATE and samples > 1
    if colours in _GREY and samples > 1 and (separate or bits[0] != 8):
        return f"{samples} {'planes' if separate else 'samples'} of {bits[0]} bits for each grey pixel"
    if colours == _CMYK and separate and bits[0] > 8 and compression == _UNCOMPRESSED:
        return f"uncompressed {bits[0]}-bit planes of CMYK"
    if compression == _RUN_LENGTHS and one(PREDICTOR, 1) != 1:
        return "a predictor for PackBits, which decoders read differently"
    return None


def open_tiff(data: bytes) -> ImageFile.ImageFile:
    """Open an image by Pillow, which sees no fields but those that matter for the pixels."""
    directory = Directory(data)
    orientation = _orientation(directory)
    source = BytesIO(directory.without_other_fields(orientation))
    if data.startswith(_BIG_ENDIAN_BIGTIFF):
        with source.getbuffer() as buffer:
            buffer[:4] = _AS_PILLOW_EXPECTS
    opened = Image.open(source, formats=("TIFF",))
    if data.startswith(_BIG_ENDIAN_BIGTIFF):
        with source.getbuffer() as buffer:  # libtiff, which may decode it, knows the right one alone
            buffer[:4] = _BIG_ENDIAN_BIGTIFF
    # Pillow would read the fields again, and fail on texts of another type than it expects.
    exif = Image.Exif()
    exif._loaded = True
    exif[ORIENTATION] = orientation
    opened._exif = exif
    return opened


def _orientation(directory: Directory) -> int:
    """Return how the image is turned (TIFF 6.0, section 8), by its own field or else by that of XMP; 1 if upright."""
    found = {
        field.tag: field
        for field in directory.first_fields()
        if field.tag in (ORIENTATION, _XMP) and directory.has(field)
    }
    if ORIENTATION in found:
        value = next(iter(directory.values(found[ORIENTATION])), 1)
        return value if value in range(1, 9) else 1
    if _XMP in found and (match := _XMP_ORIENTATION.search(directory.contents(found[_XMP], _MAX_XMP_BYTES))):
        return int(match[1])
    return 1


def correct_planes(image: ImageFile.ImageFile) -> None:
    """Make Pillow read an uncompressed image of 16-bit planes by two bytes a sample, not one, before it is loaded."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return
    tags = image.tag_v2
    if tags.get(PLANES) != _SEPARATE or set(tags.get(BITS, ())) != {16}:
        return
    suffix = ";16B" if tags.prefix == b"MM" else ";16L"
    image.tile = [
        tile._replace(args=(tile.args[0] + suffix, *tile.args[1:]))
        if tile.codec_name == "raw" and isinstance(tile.args, tuple) and len(tile.args[0]) == 1
        else tile
        for tile in image.tile
    ]


def is_negative(image: Image.Image) -> bool:
    """Whether 0 is white in an image whose 16 bits Pillow has not inverted, as it does with 8."""
    if not (isinstance(image, TiffImagePlugin.TiffImageFile) and image.mode.startswith("I;16")):
        return False
    return bool(image.tag_v2.get(COLOURS, _WHITE_IS_ZERO) == _WHITE_IS_ZERO)


def bits_of(image: Image.Image) -> int:
    """Return the bits of each sample of a grey image whose pixels have 16."""
    found = getattr(image, "tag_v2", {}).get(BITS, (16,))
    return int(found[0])
