"""HEIC files: those of pillow-heif's encoder, and others, written item by item."""

import io
import struct
from collections.abc import Iterable

import pillow_heif
from PIL import Image

from resnet_service.imaging import isobmff
from resnet_service.imaging.heic import Item, write_file
from resnet_service.imaging.isobmff import Reference


def encoded(image: Image.Image, **options: object) -> bytes:
    """Return what the encoder writes, fast rather than small."""
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer, **{"enc_params": {"preset": "ultrafast"}, **options})
    return buffer.getvalue()


def coded(image: Image.Image, **options: object) -> Item:
    """Return the coded item of what the encoder writes, without transparency or tiles."""
    data = encoded(image, **options)
    meta = isobmff.meta_box(data)
    assert meta is not None
    number = isobmff.primary_item(data, *meta) or 0
    content = b"".join(data[start:end] for start, end in dict(isobmff.item_extents(data, *meta))[number])
    return Item(b"hvc1", content, dict(isobmff.item_properties(data, *meta))[number])


def resized(item: Item, width: int, height: int) -> Item:
    """Return the item with another declared size."""
    size = (False, b"ispe", struct.pack(">III", 0, width, height))
    return item._replace(properties=[size, *(owned for owned in item.properties if owned[1] != b"ispe")])


def grid(columns: int, rows: int, width: int, height: int) -> Item:
    """Return a grid of tiles, and the size that it says."""
    return resized(Item(b"grid", struct.pack(">BBBBII", 0, 1, rows - 1, columns - 1, width, height), []), width, height)


def tiled(tile: Item, columns: int, rows: int, width: int, height: int) -> bytes:
    """Return a file whose image is a grid of the same tile."""
    return written([grid(columns, rows, width, height), tile], [Reference(b"dimg", 1, [2] * (columns * rows))])


def written(items: Iterable[Item], references: Iterable[Reference] = ()) -> bytes:
    """Return a file of items numbered from 1, the primary one."""
    return write_file(dict(enumerate(items, 1)), 1, list(references))
