"""HEIC, which needs the extra `heic`: a file of known structure with the primary image alone, read by libheif.

libheif reads a dozen kinds of items, sequences, metadata and regions, all of which a file may have beside its image.
None of them counts here, and many of libheif's published holes are in them. So this module reads the boxes itself
(ISO/IEC 23008-12), keeps what the primary image needs (coded image or grid of tiles, its alpha plane, their
properties), and writes a new file, the only one that libheif sees. An image's orientation is one of these properties;
that in EXIF does not count (ISO/IEC 23008-12, annex A).
"""

import struct
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import ImageFile

from resnet_service.errors import BrokenImage, UnsupportedImage
from resnet_service.imaging.formats import HEIC
from resnet_service.imaging.hevc import MAX_UNITS, IntraImage, coded_image
from resnet_service.imaging.isobmff import (
    Extents,
    Reference,
    boxes,
    check_total_size,
    item_extents,
    item_properties,
    item_references,
    item_types,
    meta_box,
    primary_item,
)
from resnet_service.imaging.refusals import too_many

if TYPE_CHECKING:
    from pillow_heif import HeifFile

# libheif decodes each tile by a decoder of its own, a millisecond each. A file of 48 megapixels has some 200.
MAX_TILES = 1_000

_KEPT_PROPERTIES = (b"ispe", b"pixi", b"hvcC", b"irot", b"imir", b"clap", b"auxC", b"colr")
_ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0", b"urn:mpeg:hevc:2015:auxid:1\0")
_CODED, _GRID = b"hvc1", b"grid"


class Still(NamedTuple):
    """The primary image of a HEIC file."""

    file: bytes  # a HEIC of this image alone
    images: list[IntraImage]  # what is decoded: image or tiles, each as often as it occurs, and alpha
    whole: list[
        tuple[int, float]
    ]  # pixels, and bytes of each, of the image and of alpha, joined from tiles or as coded

    @property
    def pixels(self) -> int:
        """An upper bound of the pixels that libheif decodes."""
        return max(sum(pixels for pixels, _ in self.whole), sum(image.pixels for image in self.images))


class Item(NamedTuple):
    """An item of a file: its type, its data, and its properties: whether essential, type, content."""

    type: bytes
    data: bytes
    properties: list[tuple[bool, bytes, bytes]]


def is_installed() -> bool:
    """Return whether the library that reads HEIC is installed."""
    return find_spec("pillow_heif") is not None


class HeicImageFile(ImageFile.ImageFile):
    """A HEIC image; its size is known once it is open, and ``load`` decodes it. The library is imported with the first.

    It is not registered with Pillow, whose ``open`` would then take it in other programs, too.
    """

    format = HEIC
    format_description = "HEIF image coded in HEVC"
    still: Still
    _decoder: "HeifFile | None" = None

    def _open(self) -> None:
        from pillow_heif import open_heif, options

        # In the calling thread; from 1 on, libheif decodes the tiles of a grid in threads of its own.
        options.DECODE_THREADS = 0
        self.still = still_image(self.fp.read() if self.fp else b"")
        self._decoder = open_heif(self.still.file)
        self._size, self._mode = self._decoder.size, self._decoder.mode
        self.tile = []

    def load(self) -> Any:
        """Decode the image, once."""
        if self._decoder is not None:
            decoder, self._decoder = self._decoder, None
            data = decoder.data
            self._size = decoder.size
            self.load_prepare()
            self.frombytes(data, "raw", self.mode, decoder.stride)
        return super().load()


def still_image(data: bytes) -> Still:
    """Read the boxes of a HEIC file, and write one that has its primary image alone.

    Raises:
        UnsupportedImage: Its image is of another kind.
        BrokenImage: It exceeds a limit.
        ValueError: It is cut off, or contradicts itself.

    """
    meta = meta_box(data)
    if meta is None:
        if any(kind == b"moov" for kind, _, _ in boxes(data, 0, len(data))):
            raise UnsupportedImage("The HEIC file is a sequence without a still image, which is not supported.")
        raise ValueError("no meta box")
    primary = primary_item(data, *meta)
    types = dict(item_types(data, *meta))
    located = list(item_extents(data, *meta))
    extents = dict(located)
    if primary is None or len(extents) < len(located):
        raise ValueError("no primary image, or an item in two places")
    properties: dict[int, list[tuple[bool, bytes, bytes]]] = {}
    for item, owned in item_properties(data, *meta):
        properties.setdefault(item, []).extend(owned)
    references = list(item_references(data, *meta))

    def tiles(item: int) -> list[int]:
        if types.get(item) != _GRID:
            return [item]
        named = [to for reference in references if reference[:2] == (b"dimg", item) for to in reference.to]
        if len(named) > MAX_TILES:
            raise too_many("tiles", MAX_TILES)
        return named

    def is_alpha(item: int) -> bool:
        return any(kind == b"auxC" and content[4:].startswith(_ALPHA) for _, kind, content in properties.get(item, ()))

    alphas = [r.item for r in references if r.type == b"auxl" and primary in r.to and is_alpha(r.item)][:1]
    tiled = [tile for item in (primary, *alphas) for tile in tiles(item)]
    whole = (primary, *alphas)
    kept = list(dict.fromkeys((*whole, *tiled)))
    for item in kept:
        # A grid that is a tile, its own even, would let libheif decode it again and again.
        if types.get(item) not in ((_CODED, _GRID) if item not in tiled or types.get(item) != _GRID else (_CODED,)):
            kind = types.get(item, b"none").decode("ascii", "replace")
            raise UnsupportedImage(
                f"The HEIC file has an image of the kind {kind!a}, which is not supported; convert it to JPEG."
            )
    if any(end > len(data) for item in kept for _, end in extents.get(item, [])):
        raise ValueError("an item ends after the file")
    check_total_size(data, [extents.get(item, []) for item in kept])
    items = {item: _item(data, types[item], extents.get(item, []), properties.get(item, [])) for item in kept}
    links = [
        Reference(r.type, r.item, [to for to in r.to if to in items])
        for r in references
        if (r.type == b"dimg" and r.item in whole)
        or (r.type == b"prem" and r.item == primary)
        or (r.type == b"auxl" and r.item in alphas)
    ]
    images = _coded(items, tiled)
    coded = dict(zip(tiled, images, strict=True))
    joined = [
        (_grid_pixels(items[item].data), max((coded[tile].plane_bytes for tile in tiles(item)), default=0))
        if items[item].type == _GRID
        else (coded[item].pixels, coded[item].plane_bytes)
        for item in whole
    ]
    return Still(write_file(items, primary, links), images, joined)


def _item(data: bytes, kind: bytes, extents: Extents, properties: list[tuple[bool, bytes, bytes]]) -> Item:
    kept = []
    for essential, name, content in properties:
        if name in _KEPT_PROPERTIES:
            if name != b"colr" or content[:4] == b"nclx":  # profiles are not applied
                kept.append((essential, name, content))
        elif essential:
            raise UnsupportedImage(f"The HEIC image needs {name.decode('ascii', 'replace')!a}, which is not supported.")
    return Item(kind, b"".join(data[start:end] for start, end in extents), kept)


def _grid_pixels(data: bytes) -> int:
    """Return the size of the image that a grid declares (ISO/IEC 23008-12, 6.6.2.3)."""
    size = 4 if data[1:2] > b"\0" and data[1] & 1 else 2
    return int.from_bytes(data[4 : 4 + size]) * int.from_bytes(data[4 + size : 4 + 2 * size])


def _coded(items: dict[int, Item], tiled: list[int]) -> list[IntraImage]:
    units = 0
    known: dict[int, IntraImage] = {}
    for item in dict.fromkeys(tiled):
        _, data, properties = items[item]
        configurations = [content for _, name, content in properties if name == b"hvcC"]
        if len(configurations) != 1:
            raise BrokenImage("The HEIC image has an item without a configuration, or with several.")
        known[item], count = coded_image(configurations[0], data, MAX_UNITS - units)
        units += count
    return [known[item] for item in tiled]


def write_file(items: dict[int, Item], primary: int, references: list[Reference]) -> bytes:
    """Write a file of these items, of which all but the primary one are hidden."""
    number = {item: new for new, item in enumerate(items, 1)}
    unique = dict.fromkeys((name, content) for item in items.values() for _, name, content in item.properties)
    index = {known: i for i, known in enumerate(unique, 1)}
    infos = b"".join(
        _box(b"infe", struct.pack(">IHH4sx", 2 << 24 | (item != primary), new, 0, items[item].type))
        for item, new in number.items()
    )
    owned = b"".join(
        struct.pack(">HB", number[item], len(properties))
        + b"".join(struct.pack(">H", essential << 15 | index[name, content]) for essential, name, content in properties)
        for item, (_, _, properties) in items.items()
    )
    links = b"".join(
        _box(kind, struct.pack(f">HH{len(to)}H", number[item], len(to), *(number[one] for one in to)))
        for kind, item, to in references
    )
    listed = b"".join(_box(*known) for known in unique)
    head = _box(b"ftyp", b"heic\0\0\0\0heicmif1")
    before = (
        _box(b"hdlr", struct.pack(">8x4s13x", b"pict")),
        _box(b"pitm", struct.pack(">IH", 0, number[primary])),
        _box(b"iinf", struct.pack(">IH", 0, len(items)) + infos),
        _box(b"iprp", _box(b"ipco", listed) + _box(b"ipma", struct.pack(">II", 1, len(items)) + owned)),
        _box(b"iref", bytes(4) + links),
    )
    # iloc: 8 bytes before its table, 14 for each item, with offsets and lengths of four bytes
    offset = len(head) + 12 + sum(map(len, before)) + 8 + 8 + 14 * len(items) + 8
    located = bytearray(struct.pack(">IBBH", 0, 0x44, 0, len(items)))
    for item, new in number.items():
        located += struct.pack(">HHHII", new, 0, 1, offset, len(items[item].data))
        offset += len(items[item].data)
    meta = _box(b"meta", bytes(4) + b"".join(before) + _box(b"iloc", bytes(located)))
    return head + meta + _box(b"mdat", b"".join(item.data for item in items.values()))


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + kind + content
