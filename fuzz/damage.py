"""Damage to files, as by transfers, disks and attackers; the same for the same seed."""

import random
import struct
import zlib
from collections.abc import Callable

# Limits of the ranges of counts and sizes, which may overflow or be read as "none".
_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_HEAD = 128


def truncated(data: bytearray, dice: random.Random) -> bytearray:
    """Truncate the file."""
    return data[: dice.randrange(len(data))]


def flipped(data: bytearray, dice: random.Random) -> bytearray:
    """Flip up to eight bits."""
    for _ in range(dice.randint(1, 8)):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return data


def lying(data: bytearray, dice: random.Random) -> bytearray:
    """Write an extreme number over 1, 2 or 4 bytes, mostly in the head, where sizes and counts are."""
    at = dice.randrange(min(_HEAD, len(data)) if dice.random() < 0.8 else len(data))
    size = dice.choice((1, 2, 4))
    value = dice.choice(_EXTREMES) & (1 << 8 * size) - 1
    data[at : at + size] = value.to_bytes(size, dice.choice(("little", "big")))
    return data


def swapped(data: bytearray, dice: random.Random) -> bytearray:
    """Exchange two pieces."""
    size = dice.randint(1, max(1, len(data) // 4))
    first, second = sorted(dice.randrange(len(data)) for _ in range(2))
    return data[:first] + data[second : second + size] + data[first + size : second] + data[first : first + size]


def repeated(data: bytearray, dice: random.Random) -> bytearray:
    """Repeat a piece."""
    at = dice.randrange(len(data))
    piece = data[at : at + dice.randint(1, 64)]
    return data[:at] + piece * dice.randint(2, 40) + data[at:]


def emptied(data: bytearray, dice: random.Random) -> bytearray:
    """Replace a piece with zeros, like a lost sector of a disk."""
    at, size = dice.randrange(len(data)), dice.randint(1, 512)
    data[at : at + size] = bytes(len(data[at : at + size]))
    return data


def png_chunks_swapped(data: bytearray, dice: random.Random) -> bytearray:
    """Exchange, repeat or falsify whole chunks of a PNG, with correct checksums."""
    chunks = []
    at = 8
    while at + 12 <= len(data):
        length = struct.unpack_from(">I", data, at)[0]
        chunks.append((bytes(data[at + 4 : at + 8]), bytearray(data[at + 8 : at + 8 + length])))
        at += 12 + length
    if not chunks or data[:4] != b"\x89PNG":
        return flipped(data, dice)
    for _ in range(dice.randint(1, 4)):
        first, second = (dice.randrange(len(chunks)) for _ in range(2))
        if dice.random() < 0.4:
            chunks[first], chunks[second] = chunks[second], chunks[first]
        elif dice.random() < 0.5:
            chunks.insert(first, chunks[second])
        elif chunks[first][1]:
            chunks[first] = (chunks[first][0], lying(bytearray(chunks[first][1]), dice))
    whole = data[:8]
    for kind, content in chunks:
        whole += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return whole


KINDS: tuple[Callable[[bytearray, random.Random], bytearray], ...] = (
    truncated,
    flipped,
    lying,
    swapped,
    repeated,
    emptied,
    png_chunks_swapped,
)


def damaged(data: bytes, seed: int) -> bytes:
    """Return ``data`` after one to three kinds of damage."""
    dice = random.Random(seed)  # noqa: S311 - reproducible, not secret
    result = bytearray(data)
    for _ in range(dice.randint(1, 3)):
        if result:
            result = dice.choice(KINDS)(result, dice)
    return bytes(result)
