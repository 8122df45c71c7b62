"""What the AV1 data in an AVIF file decode to: pixels and their bytes, whatever the container declares.

The container declares a size (`ispe`), and the coded images have sizes of their own. If they differ, libavif decodes
the coded size, however large, and scales the result down. So this module reads the coded sizes of each coded item
(ISO/IEC 14496-12, 8.11) and of the first sample of each track (8.6 to 8.7), from their sequence headers (AV1 Bitstream
and Decoding Process Specification, 5.3 to 5.9).
"""

from typing import NamedTuple, Self

from resnet_service.imaging.bits import Bits
from resnet_service.imaging.isobmff import (
    Extents,
    boxes,
    brands,
    check_total_size,
    item_extents,
    item_types,
    meta_box,
)
from resnet_service.imaging.refusals import too_many

# The largest grid has 256 tiles, of a few units each.
MAX_UNITS = 10_000

# How many bytes of each kind of header are read; more than any header has.
_SEQUENCE_HEADER_BYTES, _FRAME_HEADER_BYTES = 1024, 64

_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME, _REDUNDANT_FRAME_HEADER = 1, 3, 6, 7
_KEY_FRAME, _SWITCH_FRAME = 0, 3
_SRGB = (1, 13, 0)
_BRANDS = (b"avif", b"avis")
_SELECT = 2  # value of seq_force_screen_content_tools and seq_force_integer_mv: each frame header decides


def with_major_brand(data: bytes) -> bytes:
    """Return the file with AVIF's own major brand, by which Pillow and libavif know it; AVIF may have a general one."""
    if data[8:12] in _BRANDS:
        return data
    major = b"avif" if b"avis" not in brands(data) or meta_box(data) else b"avis"
    return data[:8] + major + data[12:]


class CodedImage(NamedTuple):
    """The pixels of a coded image, and the bytes that decoding takes for each of them, with 8 or 16 bits a sample."""

    pixels: int
    pixel_bytes: float


def coded_pixels(data: bytes) -> int:
    """Return an upper bound of the pixels that libavif decodes, over all coded images of the file.

    Raises:
        BrokenImage: The file has more boxes or coded units than any valid file.

    """
    return max(sum(image.pixels for image in images) for images in coded_images(data))


def coded_images(data: bytes) -> tuple[list[CodedImage], list[CodedImage]]:
    """Return upper bounds of what libavif decodes: the items or, of an animation, the first samples of its tracks.

    An image and its alpha plane are two coded images.

    Raises:
        BrokenImage: The file has more boxes or coded units than any valid file.

    """
    items: list[Extents] = []
    samples: list[Extents] = []
    for kind, start, end in boxes(data, 0, len(data)):
        if kind == b"meta":
            items += _items(data, start + 4, end)
        elif kind == b"moov":
            samples += [
                _first_sample(data, begin, stop) for box, begin, stop in boxes(data, start, end) if box == b"trak"
            ]
    return _images(data, items), _images(data, samples)


def _images(data: bytes, coded: list[Extents]) -> list[CodedImage]:
    check_total_size(data, coded)
    units = 0
    images: list[CodedImage] = []
    for extents in coded:
        image, count = _largest_frame(b"".join(data[start:end] for start, end in extents), MAX_UNITS - units)
        images.append(image)
        units += count
    return images


def _items(data: bytes, start: int, end: int) -> list[Extents]:
    """Return the extents of each AV1 item of the ``meta`` box in ``data[start:end]``."""
    coded = {item for item, kind in item_types(data, start, end) if kind == b"av01"}
    size = len(data)
    return [
        [(first, min(last, size)) for first, last in extents]
        for item, extents in item_extents(data, start, end)
        if item in coded
    ]


def _first_sample(data: bytes, start: int, end: int) -> Extents:
    """Return the extent of the first sample of the track in ``data[start:end]``; only that sample is decoded."""
    at = size = 0
    for wanted in (b"mdia", b"minf", b"stbl"):
        start, end = next((box[1:] for box in boxes(data, start, end) if box[0] == wanted), (end, end))
    for kind, begin, _ in boxes(data, start, end):
        if kind in (b"stco", b"co64"):
            at = int.from_bytes(data[begin + 8 : begin + (12 if kind == b"stco" else 16)])
        elif kind == b"stsz":
            size = int.from_bytes(data[begin + 4 : begin + 8]) or int.from_bytes(data[begin + 12 : begin + 16])
    return [(at, min(at + size, len(data)))]


class _Sequence(NamedTuple):
    """The fields of a sequence header that give a frame's size or are needed to find it in a frame header."""

    pixel_bytes: float
    pixels: int
    max_pixels: int  # of a frame that declares its own size
    reduced: bool
    time_bits: int  # of a frame's presentation time; 0 if it has none
    screen_content: int
    integer_mv: int
    id_bits: int

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Read a sequence header (5.5)."""
        bits = Bits(data)
        take = bits.take
        profile = take(3)
        take(1)
        reduced = bool(take(1))
        time_bits = 0
        if reduced:
            take(5)
        else:
            delay_bits = 0
            if take(1):  # timing_info
                take(64)
                equal = take(1)
                if equal:
                    bits.exp_golomb()
                if take(1):  # decoder_model_info
                    delay_bits = take(5) + 1
                    take(32 + 5)
                    presentation = take(5) + 1
                    time_bits = 0 if equal else presentation
            delays = take(1)
            for _ in range(take(5) + 1):
                take(12)
                if take(5) > 7:
                    take(1)
                if delay_bits and take(1):
                    take(2 * delay_bits + 1)
                if delays and take(1):
                    take(4)
        wide, high = take(4) + 1, take(4) + 1
        pixels = (take(wide) + 1) * (take(high) + 1)
        screen_content = integer_mv = _SELECT
        id_bits = 0
        if not reduced and take(1):
            id_bits = take(4) + 2
            id_bits += take(3) + 1
        take(3)
        if not reduced:
            take(4)
            order_hints = take(1)
            if order_hints:
                take(2)
            if not take(1):
                screen_content = take(1)
            if screen_content and not take(1):
                integer_mv = take(1)
            if order_hints:
                take(3)
        scaled = take(1)
        take(2)
        planes = _plane_bytes(bits, profile)
        # Each step that changes a frame makes another. All that the decoder keeps besides takes a byte a pixel.
        pixel_bytes = planes * (1 + scaled + take(1)) + 1
        return cls(pixel_bytes, pixels, 1 << wide + high, reduced, time_bits, screen_content, integer_mv, id_bits)

    def pixels_of(self, frame: bytes) -> int:
        """Return the pixels of the frame that this header starts, or their upper bound (5.9.2)."""
        if self.reduced:
            return self.pixels
        take = Bits(frame).take
        if take(1):  # shows an earlier frame again
            return 0
        kind, shown = take(2), take(1)
        if shown:
            take(self.time_bits)
        else:
            take(1)
        if not (kind == _SWITCH_FRAME or (kind == _KEY_FRAME and shown)):
            take(1)
        take(1)
        screen_content = take(1) if self.screen_content == _SELECT else self.screen_content
        if screen_content and self.integer_mv == _SELECT:
            take(1)
        take(self.id_bits)
        own_size = kind == _SWITCH_FRAME or take(1)
        return self.max_pixels if own_size else self.pixels


def _plane_bytes(bits: Bits, profile: int) -> float:
    """Read the colours of a sequence header (5.5.2); return the bytes that all planes of a frame take for a pixel."""
    take = bits.take
    deep = take(1)
    twelve = profile == 2 and deep and take(1)
    grey = profile != 1 and take(1)
    colours = (take(8), take(8), take(8)) if take(1) else None
    if grey:
        take(1)
        samples = 1.0
    elif colours == _SRGB:
        samples = 3.0
    else:
        take(1)
        across, down = {0: (1, 1), 1: (0, 0)}.get(profile, (1, 0))
        if twelve:
            across = take(1)
            down = across and take(1)
        if across and down:
            take(2)
        samples = 1 + 2 / ((1 + across) * (1 + down))
    if not grey:
        take(1)
    return samples * (1 + deep)


def _largest_frame(data: bytes, max_units: int) -> tuple[CodedImage, int]:
    """Return the largest frame in a sequence of coded units (5.3), and the number of units.

    Raises:
        BrokenImage: There are more than ``max_units``.

    """
    sequence: _Sequence | None = None
    position = count = pixels = 0
    pixel_bytes = 0.0
    while position < len(data):
        count += 1
        if count > max_units:
            raise too_many("coded units", MAX_UNITS)
        head = data[position]
        position += 2 if head & 4 else 1
        end = len(data)
        if head & 2:
            size = 0
            for index in range(8):  # leb128, 4.10.5
                byte = data[position] if position < len(data) else 0
                size |= (byte & 127) << 7 * index
                position += 1
                if not byte & 128:
                    break
            end = min(position + size, len(data))
        kind = head >> 3 & 15
        if kind == _SEQUENCE_HEADER:
            sequence = _Sequence.read(data[position : min(end, position + _SEQUENCE_HEADER_BYTES)])
        elif kind in (_FRAME_HEADER, _FRAME, _REDUNDANT_FRAME_HEADER) and sequence is not None:
            pixels = max(pixels, sequence.pixels_of(data[position : min(end, position + _FRAME_HEADER_BYTES)]))
            pixel_bytes = max(pixel_bytes, sequence.pixel_bytes)
        position = end
    return CodedImage(pixels, pixel_bytes), count
