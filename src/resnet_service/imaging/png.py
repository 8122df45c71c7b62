"""PNG files without the chunks that do not matter for their pixels (PNG third edition, sections 5 and 11)."""

import zlib
from collections.abc import Iterator
from typing import NamedTuple

SIGNATURE_BYTES = 8
_HEAD_BYTES, _CHECK_BYTES = 8, 4

# Decoders may ignore all chunks whose first letter is small. These are used: transparency, and metadata that may say
# how the image is turned.
_TRANSPARENCY, _EXIF = b"tRNS", b"eXIf"
# Programs that are older than ``eXIf`` write the metadata as texts.
_TEXTS = (b"iTXt", b"tEXt", b"zTXt")
_TURNING_TEXTS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
# Metadata that is larger is dropped: a camera's takes some kilobytes, without its thumbnail.
MAX_METADATA_BYTES = 65_536
# The length of a text's keyword, which ends with a zero, is 79 at most.
_LONGEST_KEYWORD = 80


class Chunk(NamedTuple):
    """A chunk: its type, and where in the file it begins, its contents begin, and it ends."""

    type: bytes
    start: int
    contents: int
    end: int


def chunks(data: bytes) -> Iterator[Chunk]:
    """Yield the chunks in order, up to the last one or the end of the file."""
    position = SIGNATURE_BYTES
    while position < len(data):
        contents = position + _HEAD_BYTES
        end = contents + int.from_bytes(data[position : position + 4]) + _CHECK_BYTES
        chunk = Chunk(data[position + 4 : contents], position, contents, end)
        yield chunk
        if chunk.type == b"IEND":
            return
        position = end


def without_ancillary_chunks(data: bytes) -> bytes:
    """Return a file that has the same pixels, transparency and orientation, and no other chunks."""
    kept = [data[:SIGNATURE_BYTES]]
    begin = end = SIGNATURE_BYTES
    ancillary = set()
    for chunk in chunks(data):
        if chunk.type not in ancillary and _matters(chunk, data):
            if chunk.type[:1].islower():
                ancillary.add(chunk.type)  # the first of each type counts
        else:
            kept.append(data[begin:end])
            begin = chunk.end
        end = chunk.end
    if begin == SIGNATURE_BYTES:
        return data
    kept.append(data[begin:end])
    return b"".join(kept)


def _matters(chunk: Chunk, data: bytes) -> bool:
    if not chunk.type[:1].islower():  # what is no chunk at all is for the decoder to refuse
        return True
    if chunk.type not in (_TRANSPARENCY, _EXIF, *_TEXTS) or chunk.end - chunk.start > MAX_METADATA_BYTES:
        return False
    contents = data[chunk.contents : chunk.end - _CHECK_BYTES]
    if chunk.type in _TEXTS and not _may_turn(chunk.type, contents):
        return False
    check = int.from_bytes(data[chunk.end - _CHECK_BYTES : chunk.end])
    return zlib.crc32(data[chunk.start + 4 : chunk.end - _CHECK_BYTES]) == check


def _may_turn(kind: bytes, contents: bytes) -> bool:
    keyword, separator, rest = contents[:_LONGEST_KEYWORD].partition(b"\0")
    if keyword + separator not in _TURNING_TEXTS:
        return False
    # A text that is compressed has 0 for its method here, and one that may be compressed says so first.
    compressed = kind == b"zTXt" or (kind == b"iTXt" and rest[:1] != b"\0")
    if not compressed:
        return True
    if kind == b"iTXt":
        return False  # XMP must not be compressed (XMP specification, part 3)
    inflate = zlib.decompressobj()
    try:
        inflate.decompress(contents[len(keyword) + 2 :], MAX_METADATA_BYTES)
    except zlib.error:
        return False
    return inflate.eof
