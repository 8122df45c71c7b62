"""Bombs: small files that take much memory or time to read, and a measurement of the cost of each.

`python -m fuzz.bombs` decodes or loads each in a separate process and prints a Markdown table: the answer, seconds, and
the growth of resident memory at its peak. Every image fits into the default limit of a request's body.
"""

import io
import itertools
import json
import math
import pickle
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import NamedTuple

from PIL import Image

from fuzz import heic
from resnet_service.imaging.heic import MAX_TILES, Item
from resnet_service.imaging.isobmff import Reference

BODY = 10 * 2**20  # the default of max_body_bytes
_SECONDS = 30


def _encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


# --- PNG


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int, pixels: bytes, before: bytes = b"", after: bytes = b"") -> bytes:
    """Build a PNG of 8-bit RGB; ``pixels`` are compressed rows."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"".join(
        (b"\x89PNG\r\n\x1a\n", _chunk(b"IHDR", header), before, _chunk(b"IDAT", pixels), after, _chunk(b"IEND", b""))
    )


_PIXEL = zlib.compress(b"\0\xff\0\0")


def png_of_20000_squared() -> bytes:
    """400 million pixels with non-zero bytes, since memory that is not written to is not counted."""
    packer = zlib.compressobj(1)
    rows = [packer.compress(b"\0" + bytes([row % 255 + 1]) * 60_000) for row in range(20_000)]
    return _png(20_000, 20_000, b"".join(rows) + packer.flush())


def png_of_small_chunks() -> bytes:
    return _png(1, 1, _PIXEL, before=_chunk(b"tEXt", b"a\0") * ((BODY - 1000) // 14))


def png_of_small_private_chunks() -> bytes:
    return _png(1, 1, _PIXEL, before=_chunk(b"prVt", b"") * ((BODY - 1000) // 12))


def png_of_small_chunks_after_the_pixels() -> bytes:
    return _png(1, 1, _PIXEL, after=_chunk(b"prVt", b"") * ((BODY - 1000) // 12))


def png_of_small_idats() -> bytes:
    pixels = b"".join(_chunk(b"IDAT", b"") for _ in range((BODY - 1000) // 12))
    return _png(1, 1, b"", before=pixels)


def png_of_compressed_texts() -> bytes:
    """A gigabyte of text, in chunks within Pillow's limit."""
    text = _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**20 - 1), 9))
    return _png(1, 1, _PIXEL, before=text * 1000)


def png_of_compressed_international_texts() -> bytes:
    text = _chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"x" * (2**20 - 1), 9))
    return _png(1, 1, _PIXEL, before=text * 1000)


def png_of_one_large_text() -> bytes:
    return _png(1, 1, _PIXEL, before=_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**30), 9)))


def png_of_a_large_profile() -> bytes:
    return _png(1, 1, _PIXEL, before=_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2**30), 9)))


def png_of_many_profiles() -> bytes:
    return _png(1, 1, _PIXEL, before=_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2**20 - 1), 9)) * 8000)


def png_of_more_pixels_than_it_says() -> bytes:
    """A gigabyte of rows for one pixel."""
    return _png(1, 1, zlib.compress(bytes(2**30), 9))


# --- JPEG

_JPEG = _encoded(Image.new("RGB", (16, 16), "red"), "JPEG")


def _segment(marker: int, content: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content


def _jpeg(segments: bytes) -> bytes:
    return _JPEG[:2] + segments + _JPEG[2:]


def jpeg_of_a_million_restarts() -> bytes:
    start = _JPEG.index(b"\xff\xda")
    length = struct.unpack(">H", _JPEG[start + 2 : start + 4])[0]
    head = start + 2 + length
    markers = b"".join(b"\xff" + bytes([0xD0 + number % 8]) for number in range(1_000_000))
    return _JPEG[:start] + _segment(0xDD, b"\0\1") + _JPEG[start:head] + markers + _JPEG[head:]


def jpeg_of_a_million_restarts_in_its_head() -> bytes:
    return _jpeg(b"\xff\xd0" * 1_000_000)


def jpeg_of_small_segments() -> bytes:
    return _jpeg(_segment(0xFE, b"") * ((BODY - 1000) // 4))


def jpeg_of_small_exifs() -> bytes:
    """EXIF of a million segments with a byte each, which Pillow joins one by one."""
    return _jpeg(_segment(0xE1, b"Exif\0\0x") * ((BODY - 1000) // 11))


def jpeg_of_large_exif() -> bytes:
    return _jpeg(_segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 160)


def _ifd(entries: int, at: int, size: int) -> bytes:
    """A TIFF directory of ``entries`` tags that share one value of ``size`` bytes, at ``at``."""
    listed = b"".join(struct.pack("<HHLL", 30_000 + number, 7, size, at) for number in range(entries))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", entries) + listed + bytes(4)


def jpeg_of_overlapping_exif() -> bytes:
    """5,000 EXIF tags that share one value of 60,000 bytes."""
    return _jpeg(_segment(0xE1, b"Exif\0\0" + _ifd(5000, 8, 60_000) + bytes(5_000)))


def jpeg_of_overlapping_large_exif() -> bytes:
    """5,000 EXIF tags that share one value of 9 MB, in several segments."""
    exif = _ifd(5000, 8, 9_000_000).ljust(9_000_008, b"\0")
    return _jpeg(b"".join(_segment(0xE1, b"Exif\0\0" + exif[at : at + 65_000]) for at in range(0, len(exif), 65_000)))


def jpeg_of_overlapping_mpf() -> bytes:
    return _jpeg(_segment(0xE2, b"MPF\0" + _ifd(5000, 8, 60_000) + bytes(5_000)))


def jpeg_of_a_large_profile() -> bytes:
    parts = (_segment(0xE2, b"ICC_PROFILE\0" + bytes([n % 256, 150]) + bytes(65_000)) for n in range(150))
    return _jpeg(b"".join(parts))


def jpeg_of_large_xmp() -> bytes:
    return _jpeg(_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"tiff:Orientation=" * 3_800) * 150)


def _progressive(width: int, height: int, scans: int) -> bytes:
    """A progressive grey JPEG of ``scans`` empty scans: few bytes, but each passes over every block."""
    frame = struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0"
    quantization = b"\0" + b"\1" * 64
    # One code of 1 bit: an end-of-band run of 2^14 to 2^15 - 1 blocks, with 14 bits for its length.
    table = b"\x10" + b"\1" + bytes(15) + b"\xe0"
    dc_table = b"\0" + b"\1" + bytes(15) + b"\0"
    blocks = -(-width // 8) * -(-height // 8)
    runs = -(-blocks // 32_767)
    bits = ("0" + "1" * 14) * runs
    bits += "1" * (-len(bits) % 8)
    entropy = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    scan = _segment(0xDA, b"\1\1\0" + bytes([1, 63, 0])) + entropy
    head = _segment(0xDB, quantization) + _segment(0xC2, frame) + _segment(0xC4, table) + _segment(0xC4, dc_table)
    first = _segment(0xDA, b"\1\1\0" + bytes([0, 0, 0])) + bytes(-(-blocks // 8))
    return b"\xff\xd8" + head + first + scan * scans + b"\xff\xd9"


def jpeg_of_a_thousand_scans() -> bytes:
    return _progressive(7000, 7000, 1000)


def jpeg_of_as_many_scans_as_fit() -> bytes:
    return _progressive(7000, 7000, 100_000)[: BODY - 2] + b"\xff\xd9"


def jpeg_progressive_of_20000_squared() -> bytes:
    return _progressive(20_000, 20_000, 1)


# --- GIF

_GIF = _encoded(Image.new("P", (2, 2)), "GIF")
_GIF_HEAD = 13 + 3 * 2 ** ((_GIF[10] & 7) + 1) if _GIF[10] & 0x80 else 13


def _gif(blocks: bytes) -> bytes:
    return _GIF[:_GIF_HEAD] + blocks + _GIF[_GIF_HEAD:]


def gif_of_small_comments() -> bytes:
    return _gif(b"!\xfe\1x\0" * ((BODY - 1000) // 5))


def gif_of_one_comment_in_small_blocks() -> bytes:
    return _gif(b"!\xfe" + b"\1x" * ((BODY - 1000) // 2) + b"\0")


def gif_of_small_extensions() -> bytes:
    return _gif(b"!\x01\0" * ((BODY - 1000) // 3))


def gif_of_many_frames() -> bytes:
    frame = _GIF[_GIF_HEAD:-1]
    return _GIF[:_GIF_HEAD] + frame * ((BODY - 1000) // len(frame)) + b";"


def gif_whose_frame_is_larger_than_its_screen() -> bytes:
    frame = bytearray(_GIF[_GIF_HEAD:])
    at = frame.index(b",")
    frame[at + 5 : at + 9] = struct.pack("<HH", 65_535, 65_535)
    return _GIF[:_GIF_HEAD] + bytes(frame)


# --- WebP, AVIF


def webp_of_many_frames() -> bytes:
    frames = [Image.new("RGB", (2, 2), (number % 256, number // 256, 0)) for number in range(2000)]
    return _encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=1)


def webp_of_as_many_frames_as_fit() -> bytes:
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    data = _encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=1)
    at = data.index(b"ANMF")
    grown = data[:at] + data[at:] * ((BODY - 1000) // (len(data) - at))
    return b"RIFF" + struct.pack("<I", len(grown) - 8) + grown[8:]


def webp_of_small_chunks() -> bytes:
    data = _encoded(Image.new("RGB", (2, 2)), "WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0")
    grown = data + b"prVt\0\0\0\0" * ((BODY - 1000) // 8)
    return b"RIFF" + struct.pack("<I", len(grown) - 8) + grown[8:]


def webp_of_a_large_canvas() -> bytes:
    data = bytearray(
        _encoded(
            Image.new("RGB", (2, 2)), "WEBP", save_all=True, append_images=[Image.new("RGB", (2, 2), "red")], duration=1
        )
    )
    at = data.index(b"VP8X") + 12
    data[at : at + 6] = struct.pack("<I", 16_382)[:3] + struct.pack("<I", 16_382)[:3]
    return bytes(data)


def webp_of_the_most_pixels() -> bytes:
    return _encoded(Image.new("RGB", (16_383, 3_051), "red"), "WEBP", lossless=True, method=0)


def avif_of_many_frames() -> bytes:
    frames = [Image.new("RGB", (16, 16), (number % 256, 0, 0)) for number in range(300)]
    return _encoded(frames[0], "AVIF", save_all=True, append_images=frames[1:], duration=1, speed=10)


def _avif_saying(data: bytes, width: int, height: int) -> bytes:
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


def avif_of_a_large_canvas() -> bytes:
    return _avif_saying(_encoded(Image.new("RGB", (16, 16), "red"), "AVIF"), 16_384, 16_384)


def avif_of_more_pixels_than_it_says() -> bytes:
    """64 million coded pixels in a container of 16 x 16."""
    return _avif_saying(_encoded(Image.new("L", (8_000, 8_000), 128), "AVIF", speed=10, quality=1), 16, 16)


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + kind + content


def _within_meta(data: bytes, box: bytes, instead_of: bytes) -> bytes:
    """Replace one of the boxes within ``meta`` with ``box``, and correct the sizes (not the offsets)."""
    meta = data.index(b"meta") - 4
    size = struct.unpack(">I", data[meta : meta + 4])[0]
    at = data.index(instead_of, meta) - 4
    old = struct.unpack(">I", data[at : at + 4])[0]
    grown = size - old + len(box)
    return (
        data[:meta]
        + struct.pack(">I", grown)
        + data[meta + 4 : at]
        + box
        + data[at + old : meta + size]
        + data[meta + size :]
    )


def _within(data: bytes, kind: bytes, box: bytes) -> bytes:
    """Replace the box of the same type within ``moov`` with ``box``, and correct the sizes of its parents."""
    at = data.index(kind, data.index(b"moov")) - 4
    old = struct.unpack(">I", data[at : at + 4])[0]
    changed = bytearray(data[:at] + box + data[at + old :])
    for outer in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        size = changed.index(outer) - 4
        changed[size : size + 4] = struct.pack(">I", struct.unpack(">I", changed[size : size + 4])[0] + len(box) - old)
    return bytes(changed)


def avif_of_many_items() -> bytes:
    """700,000 item locations, each of which is searched among the earlier ones."""
    listed = b"".join(struct.pack(">IHHH", number + 10, 0, 0, 0) for number in range((BODY - 2000) // 10))
    iloc = _box(b"iloc", b"\2\0\0\0\0\0" + struct.pack(">I", len(listed) // 10) + listed)
    return _within_meta(_encoded(Image.new("RGB", (16, 16), "red"), "AVIF"), iloc, b"iloc")


def _extents_without_bytes() -> bytes:
    """700 million extents, none of which takes a byte of the table: offset 0 and size 0, which is all of the file."""
    listed = b"".join(struct.pack(">HHH", number + 10, 0, 65535) for number in range(10_000))
    return _box(b"iloc", bytes(4) + struct.pack(">HH", 0, 10_000) + listed)


def avif_of_extents_without_bytes() -> bytes:
    data = _encoded(Image.new("RGB", (16, 16), "red"), "AVIF")
    return _within_meta(data, _extents_without_bytes(), b"iloc")


def avif_of_many_properties() -> bytes:
    data = _encoded(Image.new("RGB", (16, 16), "red"), "AVIF")
    ispe = _box(b"ispe", bytes(4) + struct.pack(">II", 16, 16))
    listed = _box(b"ipco", ispe * ((BODY - 2000) // len(ispe)))
    return _within_meta(data, _box(b"iprp", listed), b"iprp")


def avif_of_many_item_infos() -> bytes:
    data = _encoded(Image.new("RGB", (16, 16), "red"), "AVIF")
    infos = b"".join(
        _box(b"infe", b"\3\0\0\0" + struct.pack(">IH", number + 10, 0) + b"av01\0")
        for number in range((BODY - 2000) // 23)
    )
    iinf = _box(b"iinf", b"\1\0\0\0" + struct.pack(">I", (BODY - 2000) // 23) + infos)
    return _within_meta(data, iinf, b"iinf")


def avif_of_a_large_frame_table() -> bytes:
    """An animation whose half a million samples have as many locations."""
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    data = _encoded(frames[0], "AVIF", save_all=True, append_images=frames[1:], duration=1)
    count = (BODY - 10_000) // 16
    grown = data
    for kind, entries in (
        (b"stsc", b"".join(struct.pack(">III", number + 1, 1, 1) for number in range(count))),
        (b"stco", bytes(4 * count)),
    ):
        grown = _within(grown, kind, _box(kind, bytes(4) + struct.pack(">I", count) + entries))
    return grown


# --- HEIC


def _square(side: int) -> Item:
    return heic.coded(Image.new("RGB", (side, side), "red"))


def heic_of_the_most_pixels() -> bytes:
    """49 million pixels in a few kilobytes: one tile, 49 times."""
    return heic.tiled(_square(1000), 7, 7, 7000, 7000)


def heic_of_as_many_tiles_as_fit() -> bytes:
    """Each has a decoder of its own."""
    side = math.isqrt(MAX_TILES)
    return heic.tiled(_square(64), side, side, 64 * side, 64 * side)


def heic_of_too_many_tiles() -> bytes:
    return heic.tiled(_square(64), 100, 100, 6400, 6400)


def heic_of_many_more_tiles() -> bytes:
    return heic.tiled(_square(64), 255, 255, 16_320, 16_320)


def heic_of_a_huge_grid() -> bytes:
    """Four billion pixels in a container of 64 x 64."""
    data = struct.pack(">BBBBII", 0, 1, 0, 0, 65_535, 65_535)
    return heic.written([heic.grid(1, 1, 64, 64)._replace(data=data), _square(64)], [Reference(b"dimg", 1, [2])])


def heic_of_a_large_canvas() -> bytes:
    return heic.written([heic.resized(_square(64), 65_535, 65_535)])


def heic_of_more_pixels_than_it_says() -> bytes:
    """16 million coded pixels in a container of 16 x 16."""
    return heic.written([heic.resized(_square(4000), 16, 16)])


def heic_of_many_images_in_an_item() -> bytes:
    """An item of a hundred images, of which decoders keep up to 17 at once."""
    item = _square(64)
    return heic.written([item._replace(data=item.data * 100)])


def heic_of_overlapping_items() -> bytes:
    """A tile of 9 MB and 400 more that share its bytes."""
    tile = _square(64)
    tile = tile._replace(data=tile.data + struct.pack(">I", 9_000_000) + b"\x4e\1".ljust(9_000_000, b"\0"))
    items = [heic.grid(20, 20, 1280, 1280), tile, *[tile._replace(data=b"")] * 399]
    data = bytearray(heic.written(items, [Reference(b"dimg", 1, list(range(2, 402)))]))
    first = data.index(b"iloc") + 12 + 14  # the location of the tile
    for number in range(1, 400):
        at = first + 14 * number
        data[at + 6 : at + 14] = data[first + 6 : first + 14]
    return bytes(data)


def heic_of_metadata_for_many_images() -> bytes:
    """EXIF of 9 MB, which libheif's callers copy for each of 800 images."""
    image = _square(64)
    exif = Item(b"Exif", bytes(9_000_000), [])
    data = heic.written([*[image] * 800, exif], [Reference(b"cdsc", 801, list(range(1, 801)))])
    return data.replace(b"infe\2\0\0\1", b"infe\2\0\0\0")


def heic_of_many_items() -> bytes:
    listed = b"".join(struct.pack(">IHHH", number + 10, 0, 0, 0) for number in range((BODY - 3000) // 10))
    iloc = _box(b"iloc", b"\2\0\0\0\0\0" + struct.pack(">I", len(listed) // 10) + listed)
    return _within_meta(heic.encoded(Image.new("RGB", (64, 64), "red")), iloc, b"iloc")


def heic_of_extents_without_bytes() -> bytes:
    return _within_meta(heic.encoded(Image.new("RGB", (64, 64), "red")), _extents_without_bytes(), b"iloc")


def heic_of_many_item_infos() -> bytes:
    count = (BODY - 3000) // 23
    infos = b"".join(_box(b"infe", b"\3\0\0\0" + struct.pack(">IH", n + 10, 0) + b"hvc1\0") for n in range(count))
    iinf = _box(b"iinf", b"\1\0\0\0" + struct.pack(">I", count) + infos)
    return _within_meta(heic.encoded(Image.new("RGB", (64, 64), "red")), iinf, b"iinf")


def heic_of_unknown_coding_and_many_item_infos() -> bytes:
    """The same with general brands, so that the items tell what it is."""
    data = heic_of_many_item_infos()
    end = struct.unpack(">I", data[:4])[0]
    return _box(b"ftyp", b"mif1\0\0\0\0mif1miaf") + data[end:]


def heic_of_many_properties() -> bytes:
    ispe = _box(b"ispe", struct.pack(">III", 0, 64, 64))
    iprp = _box(b"iprp", _box(b"ipco", ispe * ((BODY - 3000) // len(ispe))))
    return _within_meta(heic.encoded(Image.new("RGB", (64, 64), "red")), iprp, b"iprp")


def heic_of_many_parameter_sets() -> bytes:
    """A configuration of two million units of one byte."""
    item = _square(64)
    hvcc = next(content for _, name, content in item.properties if name == b"hvcC")
    arrays = (b"\x22\xff\xff" + b"\0\1\x44" * 65_535) * 40
    owned = (True, b"hvcC", hvcc[:22] + b"\x28" + arrays)
    return heic.written([item._replace(properties=[owned, *heic.resized(item, 64, 64).properties[:1]])])


# --- TIFF


def _tiff(entries: Mapping[int, tuple[int, int, int]], data: bytes = b"", following: int = 0) -> bytes:
    """Build a TIFF: tag to (type, count, value or offset); ``data`` begins at 8."""
    listed = b"".join(struct.pack("<HHLL", tag, *entry) for tag, entry in sorted(entries.items()))
    directory = struct.pack("<H", len(entries)) + listed + struct.pack("<L", following)
    return b"II*\0" + struct.pack("<L", 8 + len(data)) + data + directory


def _grey(width: int, height: int, compression: int = 1) -> dict[int, tuple[int, int, int]]:
    return {
        256: (4, 1, width),
        257: (4, 1, height),
        258: (3, 1, 8),
        259: (3, 1, compression),
        262: (3, 1, 1),
        277: (3, 1, 1),
    }


def tiff_that_loops() -> bytes:
    entries = {**_grey(1, 1), 273: (4, 1, 8), 278: (4, 1, 1), 279: (4, 1, 1)}
    return _tiff(entries, b"x" * 8, following=16)


def tiff_of_many_directories() -> bytes:
    entries = {**_grey(1, 1), 273: (4, 1, 8), 278: (4, 1, 1), 279: (4, 1, 1)}
    one = _tiff(entries, b"x" * 8, following=8 + 8 + 2 + 12 * len(entries) + 4)
    rest = []
    at = len(one)
    while at < BODY - 1000:
        at += 6
        rest.append(struct.pack("<HL", 0, at))
    return one + b"".join(rest)


def tiff_of_overlapping_values() -> bytes:
    """5,000 tags that share one value of 9 MB."""
    entries = {**_grey(1, 1), 273: (4, 1, 8), 278: (4, 1, 1), 279: (4, 1, 1)}
    entries.update({30_000 + number: (7, 9_000_000, 8) for number in range(5000)})
    return _tiff(entries, b"x" * 9_000_000)


def tiff_of_fewer_overlapping_values() -> bytes:
    """4,000 tags that share one value of 9 MB, of which each would get a copy."""
    entries = {**_grey(1, 1), 273: (4, 1, 8), 278: (4, 1, 1), 279: (4, 1, 1)}
    entries.update({30_000 + number: (7, 9_000_000, 8) for number in range(4000)})
    return _tiff(entries, b"x" * 9_000_000)


def tiff_of_many_fractions() -> bytes:
    """A resolution of a million fractions, each of which becomes an object."""
    entries = {**_grey(1, 1), 273: (4, 1, 8), 278: (4, 1, 1), 279: (4, 1, 1), 282: (5, 1_000_000, 8)}
    return _tiff(entries, struct.pack("<II", 7, 3) * 1_000_000)


def tiff_of_nested_directories() -> bytes:
    """EXIF, GPS and interoperability directories that refer to the main one."""
    entries = {**_grey(1, 1), 273: (4, 1, 8), 278: (4, 1, 1), 279: (4, 1, 1)}
    for tag in (34_665, 34_853, 40_965, 330):
        entries[tag] = (4, 1, 16)
    return _tiff(entries, b"x" * 8)


def tiff_of_many_strips() -> bytes:
    """Two million strips of one pixel."""
    count = (BODY - 1000) // 4
    offsets = struct.pack("<L", 8) * count
    entries = {**_grey(1, 2_000_000), 273: (4, count, 8), 278: (4, 1, 1), 279: (4, count, 8)}
    return _tiff(entries, offsets)


def tiff_of_a_large_tile() -> bytes:
    """One tile of 676 million pixels, which is decoded as a whole, for an image of one pixel."""
    side = 25_600
    packer = zlib.compressobj(1)
    rows = [packer.compress(b"\x11" * side) for _ in range(side)]
    data = b"".join(rows) + packer.flush()
    entries = {
        **_grey(1, 1, compression=8),
        322: (4, 1, side),
        323: (4, 1, side),
        324: (4, 1, 8),
        325: (4, 1, len(data)),
    }
    return _tiff(entries, data)


def tiff_of_a_large_strip() -> bytes:
    data = zlib.compress(b"\x11" * 2**30, 9)
    entries = {
        **_grey(1, 1, compression=8),
        273: (4, 1, 8),
        278: (4, 1, 2**30),
        279: (4, 1, len(data)),
    }
    return _tiff(entries, data)


def tiff_of_many_fields() -> bytes:
    """A BigTIFF whose directory has half a million fields."""
    count = (BODY - 100) // 20
    fields = b"".join(struct.pack("<HHQQ", number % 65_536, 4, 1, 1) for number in range(count))
    return b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, count) + fields


# --- BMP


def _bmp(width: int, height: int, compression: int, data: bytes, bits: int = 8) -> bytes:
    palette = bytes(4 * 256)
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0, 256, 0)
    at = 14 + len(head) + len(palette)
    return b"BM" + struct.pack("<IHHI", at + len(data), 0, 0, at) + head + palette + data


def bmp_of_a_long_leap() -> bytes:
    """One step of 255 rows in an image whose only row has 50 million pixels."""
    return _bmp(50_000_000, 1, 1, b"\0\2\xff\xff" * 10)


def bmp_of_single_pixels() -> bytes:
    return _bmp(5_000, 1_040, 1, b"\1x" * ((BODY - 2000) // 2))


def bmp_of_ends_of_lines() -> bytes:
    """50 million pixels that a Python loop fills one by one."""
    return _bmp(49_999, 1_000, 1, b"\1x\0\0" * 1_000)


def bmp_of_nibbles() -> bytes:
    return _bmp(7_000, 7_000, 2, b"\xff\x12" * ((BODY - 2000) // 2), bits=4)


IMAGES: Mapping[str, Callable[[], bytes]] = MappingProxyType(
    {
        name: make
        for name, make in list(globals().items())
        if name.partition("_")[0] in ("png", "jpeg", "gif", "webp", "avif", "heic", "tiff", "bmp") and callable(make)
    }
)


# --- Models


def _checkpoint(index: bytes, path: Path, compression: int = zipfile.ZIP_STORED) -> None:
    """Write a checkpoint's zip whose pickle is ``index``."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", index)
        archive.writestr("archive/version", "3\n")


def _doubling(levels: int) -> bytes:
    """Pickle opcodes for a tuple that holds the same tuple twice, and so on; printing it takes 2^levels steps."""
    return b")q\0" + b"h\0h\0\x86q\0" * levels


def checkpoint_zip_bomb(path: Path) -> None:
    """A megabyte that unpacks to a gigabyte."""
    _checkpoint(b"\x80\x02}." + bytes(2**30), path, compression=zipfile.ZIP_DEFLATED)


def checkpoint_of_overlapping_entries(path: Path) -> None:
    """A thousand directory entries that share one megabyte (Fifield's zip bomb)."""
    with zipfile.ZipFile(path, "w") as bomb:
        bomb.writestr("a/data/0", bytes(2**20))
        for number in range(1, 1000):
            twin = zipfile.ZipInfo(f"a/data/{number}")
            twin.header_offset, twin.file_size, twin.compress_size = 0, 2**20, 2**20
            twin.CRC = bomb.getinfo("a/data/0").CRC
            bomb.filelist.append(twin)


def checkpoint_with_a_doubling_value(path: Path) -> None:
    _checkpoint(b"\x80\x02}X\x04\0\0\0arch" + _doubling(60) + b"s.", path)


def checkpoint_with_a_doubling_key(path: Path) -> None:
    _checkpoint(b"\x80\x02}" + _doubling(60) + b"K\1s.", path)


def checkpoint_with_a_doubling_weight(path: Path) -> None:
    _checkpoint(b"\x80\x02}X\x0a\0\0\0state_dict}X\x01\0\0\0w" + _doubling(60) + b"ss.", path)


def checkpoint_of_empty_lists(path: Path) -> None:
    """Thirty million objects of one byte each."""
    _checkpoint(b"\x80\x02]q\0(" + b"]" * 30_000_000 + b"e.", path)


def checkpoint_of_empty_lists_without_a_zip(path: Path) -> None:
    """Thirty million objects in the format before 2020, which does not store the length of the index."""
    import torch

    torch.save([], path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    empty = b"\x80\x02]q\x00."
    assert empty in data
    path.write_bytes(data.replace(empty, b"\x80\x02]q\0(" + b"]" * 30_000_000 + b"e."))


def checkpoint_that_is_a_pickle_bomb(path: Path) -> None:
    """A bare pickle that would compute 10^9 x 10^9 bytes by calling ``operator.mul``."""
    path.write_bytes(b"coperator\nmul\n(" + pickle.dumps(b"x" * 1000, 0)[:-1] + b"I1000000000\ntR.")


def checkpoint_of_a_virtual_tensor(path: Path) -> None:
    """One stored number as a tensor of 10^15 elements, with a stride of zero."""
    import torch

    state = {"weight": torch.zeros(1).expand(10**9, 10**6)}
    torch.save({"arch": "resnet18", "num_classes": 10, "input_size": 64, "state_dict": state}, path)


def _exported(path: Path, change: Callable[[object], None]) -> None:
    """Write an exported model of two nodes that is valid except for ``change``."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    from resnet_service.models.metadata import METADATA_KEY, Agreement, ModelMetadata, Packing
    from resnet_service.system.files import sha256_of

    nodes = [
        helper.make_node("Cast", ["pixels"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["numbers", "axes"], ["means"], keepdims=0),
        helper.make_node("Gemm", ["means", "weight"], ["logits"]),
    ]
    weights = [
        numpy_helper.from_array(np.ones((3, 3), np.float32), "weight"),
        numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", 8, 8, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    change(model)
    packing = Packing(
        checkpoint_sha256="0" * 64,
        graph_sha256=sha256_of(model.graph.SerializeToString()),
        precision="fp32",
        agreement=Agreement(pictures=1, top1_agreement=100, max_logit_difference=0),
    )
    metadata = ModelMetadata(arch="resnet18", num_classes=3, input_size=8, resize_size=8, packing=packing)
    helper.set_model_props(model, {METADATA_KEY: metadata.model_dump_json()})
    path.write_bytes(model.SerializeToString())


def exported_sound(path: Path) -> None:
    """Not a bomb: the valid model that the others change."""
    _exported(path, lambda model: None)


def exported_with_weights_elsewhere(path: Path) -> None:
    def change(model: object) -> None:
        weight = model.graph.initializer[0]  # type: ignore[attr-defined]
        weight.ClearField("raw_data")
        weight.data_location = 1
        weight.external_data.add(key="location", value="../../../../../../etc/passwd")

    _exported(path, change)


def exported_with_a_tensor_of_a_petabyte(path: Path) -> None:
    def change(model: object) -> None:
        weight = model.graph.initializer[0]  # type: ignore[attr-defined]
        weight.dims[:] = [2**24, 2**24]

    _exported(path, change)


def _summed(path: Path, nodes: Callable[[ModuleType], list[object]], **values: object) -> None:
    """Write an exported model whose scores have the sum of ``large`` added, which ``nodes`` compute from ``values``."""

    def change(model: object) -> None:
        import numpy as np
        from onnx import helper, numpy_helper

        graph = model.graph  # type: ignore[attr-defined]
        graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in values.items())
        graph.node[-1].output[0] = "unsummed"
        graph.node.extend(nodes(helper))
        graph.node.append(helper.make_node("ReduceSum", ["large"], ["sum"], keepdims=0))
        graph.node.append(helper.make_node("Add", ["unsummed", "sum"], ["logits"]))

    _exported(path, change)


_SIDES = (30_000, 40_000)  # 4.8 GB as float32


def _one() -> object:
    import numpy as np

    return np.ones((1, 1), np.float32)


def exported_that_makes_a_terabyte(path: Path) -> None:
    """A constant that the graph creates, with a shape of 16 bytes."""
    _summed(path, lambda onnx: [onnx.make_node("ConstantOfShape", ["shape"], ["large"])], shape=(2**19, 2**19))


def exported_with_constant_of_shape(path: Path) -> None:
    _summed(path, lambda onnx: [onnx.make_node("ConstantOfShape", ["shape"], ["large"])], shape=_SIDES)


def exported_with_expand(path: Path) -> None:
    _summed(path, lambda onnx: [onnx.make_node("Expand", ["one", "shape"], ["large"])], one=_one(), shape=_SIDES)


def exported_with_tile(path: Path) -> None:
    _summed(path, lambda onnx: [onnx.make_node("Tile", ["one", "shape"], ["large"])], one=_one(), shape=_SIDES)


def exported_with_range(path: Path) -> None:
    import numpy as np

    first, limit, step = (np.float32(value) for value in (0, 1.2e9, 1))
    _summed(
        path,
        lambda onnx: [onnx.make_node("Range", ["first", "limit", "step"], ["large"])],
        first=first,
        limit=limit,
        step=step,
    )


def exported_with_pad(path: Path) -> None:
    pads = (_SIDES[0], 0, 0, _SIDES[1])
    _summed(path, lambda onnx: [onnx.make_node("Pad", ["one", "pads"], ["large"])], one=_one(), pads=pads)


def exported_with_outer_product(path: Path) -> None:
    """Two vectors of 280 kB."""
    import numpy as np

    left, right = np.ones((_SIDES[0], 1), np.float32), np.ones((1, _SIDES[1]), np.float32)
    _summed(path, lambda onnx: [onnx.make_node("MatMul", ["left", "right"], ["large"])], left=left, right=right)


def exported_with_doubling(path: Path) -> None:
    """Thirty concatenations of a value with itself."""
    names = ["one", *(f"doubled{number}" for number in range(30)), "large"]
    _summed(
        path,
        lambda onnx: [onnx.make_node("Concat", [a, a], [b], axis=0) for a, b in itertools.pairwise(names)],
        one=_one(),
    )


def exported_with_resize(path: Path) -> None:
    """The image, enlarged 3,000 times at each inference."""
    import numpy as np

    scales = np.array([1, 3000, 3000, 1], np.float32)
    _summed(
        path,
        lambda onnx: [onnx.make_node("Resize", ["numbers", "", "scales"], ["large"], mode="nearest")],
        scales=scales,
    )


def exported_with_padded_image(path: Path) -> None:
    """A convolution of one pixel, whose padding is 20,000 pixels on each side."""
    import numpy as np

    _summed(
        path,
        lambda onnx: [
            onnx.make_node("Transpose", ["numbers"], ["channels_first"], perm=[0, 3, 1, 2]),
            onnx.make_node("Conv", ["channels_first", "filter"], ["large"], pads=[20_000] * 4),
        ],
        filter=np.ones((1, 3, 1, 1), np.float32),
    )


def _filtered(path: Path, before: Callable[[ModuleType], list[object]], **values: object) -> None:
    """Write an exported model with a convolution of ``source``, which ``before`` computes, by a filter of ones.

    The file has no filter, but its shape, ``filter_shape``.
    """
    _summed(
        path,
        lambda onnx: [
            *before(onnx),
            onnx.make_node("ConstantOfShape", ["filter_shape"], ["filter"]),
            onnx.make_node("Conv", ["source", "filter"], ["large"]),
        ],
        **values,
    )


def exported_with_convolved_constants(path: Path) -> None:
    """6 x 10^12 multiplications that do not depend on the image; its tensors have 250 MB."""
    _filtered(
        path,
        lambda onnx: [onnx.make_node("ConstantOfShape", ["shape"], ["source"])],
        shape=(1, 64, 512, 512),
        filter_shape=(64, 64, 91, 91),
    )


def _enlarged(onnx: ModuleType, name: str) -> list[object]:
    return [
        onnx.make_node("Transpose", ["numbers"], ["channels_first"], perm=[0, 3, 1, 2]),
        onnx.make_node("Resize", ["channels_first", "", "scales"], [name], mode="nearest"),
    ]


def _scales() -> object:
    import numpy as np

    return np.array([1, 1, 125, 125], np.float32)


def exported_with_a_large_filter(path: Path) -> None:
    """10^12 multiplications for each image of 8 pixels."""
    _filtered(path, lambda onnx: _enlarged(onnx, "source"), scales=_scales(), filter_shape=(32, 3, 120, 120))


def exported_with_large_pools(path: Path) -> None:
    """A thousand pools of 99 x 99 pixels, one after the other."""
    names = ["source", *(f"pooled{number}" for number in range(999)), "large"]
    _summed(
        path,
        lambda onnx: [
            *_enlarged(onnx, "source"),
            *(
                onnx.make_node("AveragePool", [a], [b], kernel_shape=[99, 99], pads=[49] * 4)
                for a, b in itertools.pairwise(names)
            ),
        ],
        scales=_scales(),
    )


def exported_with_sizes_from_the_image(path: Path) -> None:
    """As many numbers as the brightness of its first pixel."""
    _summed(
        path,
        lambda onnx: [
            onnx.make_node("Cast", ["pixels"], ["integers"], to=7),
            onnx.make_node("Flatten", ["integers"], ["flat"], axis=0),
            onnx.make_node("Gather", ["flat", "first"], ["values"], axis=1),
            onnx.make_node("Squeeze", ["values", "axis"], ["count"]),
            onnx.make_node("ConstantOfShape", ["count"], ["large"]),
        ],
        first=(0,),
        axis=(0,),
    )


MODELS: Mapping[str, Callable[[Path], None]] = MappingProxyType(
    {
        name: make
        for name, make in list(globals().items())
        if name.partition("_")[0] in ("checkpoint", "exported") and callable(make)
    }
)


# --- The cost of each


class Cost(NamedTuple):
    """The result of reading one file: answer or ``killed``, seconds, and growth of memory in megabytes at the peak.

    ``estimated`` is what decoding took from the budget, in megabytes; NaN if it did not begin, or for a model.
    """

    answer: str
    seconds: float
    megabytes: float
    estimated: float = float("nan")


# Pixels are in C memory, so a separate process reports its peak (getrusage would include its parent's).
_CHILD = """
import json, re, sys, time
from pathlib import Path
from resnet_service.errors import ServiceError
estimated = float("nan")
def reserve(size, _):
    global estimated
    estimated = size / 2**20
path = Path(sys.argv[1])
if path.suffix == ".image":
    from resnet_service.imaging.decode import decode
    data = path.read_bytes()
    read = lambda: decode(data, min_side=512, reserve=reserve)
elif path.suffix == ".pth":
    from resnet_service.models.checkpoint.checkpoint import load_checkpoint
    read = lambda: load_checkpoint(path)
else:
    from resnet_service.runtimes.openvino import OpenVINORuntime
    read = lambda: OpenVINORuntime.open(path)
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before, begun = peak(), time.perf_counter()
try:
    read()
    answer = "read"
except ServiceError as error:
    answer = error.code
print(json.dumps([answer, time.perf_counter() - begun, (peak() - before) / 1024, estimated]))
"""


def measure(name: str, seconds: float = _SECONDS, megabytes: int = 8_000) -> Cost:
    """Create the file ``name``, read it in a separate process, and return the cost.

    Args:
        name: A key of ``IMAGES`` or ``MODELS``.
        seconds: Seconds after which the process is killed.
        megabytes: Limit of its address space.

    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        if name in IMAGES:
            path = path.with_suffix(".image")
            path.write_bytes(IMAGES[name]())
        else:
            path = path.with_suffix(".onnx" if name.startswith("exported") else ".pth")
            MODELS[name](path)
        limited = ("prlimit", f"--as={megabytes * 2**20}", sys.executable, "-c", _CHILD, str(path))
        begun = time.monotonic()
        try:
            done = subprocess.run(limited, capture_output=True, text=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            return Cost(f"killed after {seconds:g} s", seconds, float("nan"))
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
            return Cost(f"crashed: {last}", time.monotonic() - begun, float("nan"))
        return Cost(*json.loads(done.stdout))


def main(names: list[str]) -> None:
    """Print the table of all files, or of those named in the arguments."""
    print("| file | answer | seconds | growth of memory, MB | estimated, MB |")
    print("|---|---|--:|--:|--:|")
    for name in names or [*IMAGES, *MODELS]:
        answer, seconds, megabytes, estimated = measure(name)
        budget = "" if math.isnan(estimated) else f"{estimated:.0f}"
        print(f"| {name.replace('_', ' ')} | {answer} | {seconds:.2f} | {megabytes:.0f} | {budget} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
