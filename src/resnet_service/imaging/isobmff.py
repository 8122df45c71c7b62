"""Boxes, brands and items of the ISO base media file format (ISO/IEC 14496-12), which AVIF and HEIC are written in."""

from collections.abc import Iterator
from typing import NamedTuple

from resnet_service.errors import BrokenImage
from resnet_service.imaging.refusals import too_many

MAX_BOXES = 1_000
# An item has one, mostly.
MAX_EXTENTS = 10_000
# Files have three to six compatible brands.
MAX_BRANDS = 64

# Start and end, within the file, of each extent of a coded item or sample; nearly always one extent.
Extents = list[tuple[int, int]]


class Reference(NamedTuple):
    """A reference between items: its type, the item that refers, and those that it refers to, in order."""

    type: bytes
    item: int
    to: list[int]


def boxes(data: bytes, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type, content start and end of each box in ``data[position:end]``.

    Raises:
        BrokenImage: There are more than ``MAX_BOXES``.

    """
    for _ in range(MAX_BOXES):
        size, start = int.from_bytes(data[position : position + 4]), position + 8
        if start > end:
            return
        if size == 1:
            size, start = int.from_bytes(data[start : start + 8]), start + 8
        stop = end if size == 0 else min(position + size, end)
        if stop < start:
            return
        yield data[position + 4 : position + 8], start, stop
        position = stop
    if position < end:
        raise too_many("boxes", MAX_BOXES)


def brands(data: bytes) -> list[bytes]:
    """Return the brands of the file: the major one, then the compatible ones; none if it has no ``ftyp`` first."""
    if data[4:8] != b"ftyp":
        return []
    end = min(int.from_bytes(data[:4]), 16 + 4 * MAX_BRANDS, len(data))
    return [data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))]


def meta_box(data: bytes) -> tuple[int, int] | None:
    """Return the start and end of the content of the file's ``meta`` box, where the boxes within it begin."""
    return next(((start + 4, end) for kind, start, end in boxes(data, 0, len(data)) if kind == b"meta"), None)


def primary_item(data: bytes, start: int, end: int) -> int | None:
    """Return the item that ``pitm`` of the ``meta`` box in ``data[start:end]`` names."""
    for kind, begin, stop in boxes(data, start, end):
        if kind == b"pitm":
            return int.from_bytes(data[begin + 4 : min(stop, begin + (8 if data[begin : begin + 1] > b"\0" else 6))])
    return None


def item_types(data: bytes, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield the number and type of each item of the ``meta`` box in ``data[start:end]`` (8.11.6)."""
    for kind, begin, stop in boxes(data, start, end):
        if kind != b"iinf" or begin >= stop:
            continue
        for entry, at, after in boxes(data, begin + (8 if data[begin] else 6), stop):
            if entry == b"infe" and at < after:
                width = 2 if data[at] < 3 else 4
                number = int.from_bytes(data[at + 4 : at + 4 + width])
                yield number, data[at + 6 + width : at + 10 + width]


def item_extents(data: bytes, start: int, end: int) -> Iterator[tuple[int, Extents]]:
    """Yield the number and extents of each item of the ``meta`` box in ``data[start:end]`` (8.11.3).

    Those of a file that is cut off may end, and begin, after it.
    """
    idat = start
    located: list[tuple[int, bool, Extents]] = []
    for kind, begin, stop in boxes(data, start, end):
        if kind == b"iloc":
            located += _located(data, begin, stop)
        elif kind == b"idat":
            idat = begin
    last = len(data)
    for item, in_idat, extents in located:
        base = idat if in_idat else 0
        yield item, [(min(base + at, last), base + at + size if size else last) for at, size in extents]


def item_references(data: bytes, start: int, end: int) -> Iterator[Reference]:
    """Yield the references between items of the ``meta`` box in ``data[start:end]`` (8.11.12)."""
    for kind, begin, stop in boxes(data, start, end):
        if kind != b"iref":
            continue
        width = 4 if data[begin : begin + 1] > b"\0" else 2
        for name, at, after in boxes(data, begin + 4, stop):
            first = at + width + 2
            count = min(int.from_bytes(data[at + width : first]), max(after - first, 0) // width)
            numbers = [int.from_bytes(data[first + i * width : first + (i + 1) * width]) for i in range(count)]
            yield Reference(name, int.from_bytes(data[at : at + width]), numbers)


def item_properties(data: bytes, start: int, end: int) -> Iterator[tuple[int, list[tuple[bool, bytes, bytes]]]]:
    """Yield each item's number and properties (ISO/IEC 23008-12, 9.3): whether essential, type, content."""
    for kind, begin, stop in boxes(data, start, end):
        if kind != b"iprp":
            continue
        listed: list[tuple[bytes, bytes]] = []
        for inner, at, after in boxes(data, begin, stop):
            if inner == b"ipco":
                listed += [(name, data[first:last]) for name, first, last in boxes(data, at, after)]
        for inner, at, after in boxes(data, begin, stop):
            if inner == b"ipma":
                for item, marked in _associations(data, at, after):
                    yield item, [(bool(e), *listed[i - 1]) for e, i in marked if 0 < i <= len(listed)]


def _associations(data: bytes, position: int, end: int) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Read an ``ipma`` box: item, and of each of its properties whether it is essential, and its index from 1."""
    wide_items, wide_indexes = data[position : position + 1] > b"\0", data[position + 3 : position + 4] > b"\0"
    item_bytes, bits = 4 if wide_items else 2, 15 if wide_indexes else 7
    size = (bits + 1) // 8
    count, position = int.from_bytes(data[position + 4 : position + 8]), position + 8
    for _ in range(count):
        if position >= end:
            return
        item = int.from_bytes(data[position : position + item_bytes])
        position += item_bytes + 1
        marked = []
        for _ in range(data[position - 1] if position <= end else 0):
            number = int.from_bytes(data[position : position + size])
            marked.append((number >> bits, number & (1 << bits) - 1))
            position += size
        yield item, marked


def _located(data: bytes, position: int, end: int) -> Iterator[tuple[int, bool, Extents]]:
    """Read an ``iloc`` box: item, whether its offsets are relative to ``idat``, offset and size of each extent."""

    def number(size: int) -> int:
        nonlocal position
        position += size
        return int.from_bytes(data[position - size : position])

    found = 0
    version = number(4) >> 24
    sizes = number(2)
    of_offset, of_length, of_base, of_index = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    for _ in range(number(2 if version < 2 else 4)):
        if position >= end:
            return
        item = number(2 if version < 2 else 4)
        in_idat = version > 0 and number(2) & 15 == 1
        number(2)
        base = number(of_base)
        extents = []
        for _ in range(number(2)):
            if position >= end:
                return
            found += 1
            if found > MAX_EXTENTS:  # they may take no bytes of the table
                raise too_many("extents", MAX_EXTENTS)
            number(of_index if version > 0 else 0)
            at = base + number(of_offset)
            extents.append((at, number(of_length)))
        yield item, in_idat, extents


def check_total_size(data: bytes, items: list[Extents]) -> None:
    """Check that the items have no more bytes than the file, as those that share bytes may: gigabytes of a small table.

    Raises:
        BrokenImage: They have more bytes than the file.

    """
    if sum(max(end - start, 0) for extents in items for start, end in extents) > len(data):
        raise BrokenImage("The image file has coded images that overlap; no camera or program writes such files.")
