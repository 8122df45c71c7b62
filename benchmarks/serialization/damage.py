"""Damaged copies of a file: one flipped bit in the weights or elsewhere, or a missing end."""

import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from benchmarks.serialization.processes import Failed, Loaded, LoadingProcess

Region = Literal["weights", "rest", "end"]

# Tensors in the archives of torch.save, TorchScript and torch.export.
_TENSOR_ENTRY = re.compile(r"/(data|constants|weights)/(\w+_)?\d+$")
_LARGE_BYTES = 1024
_ZIP_HEADER_BYTES = 30  # of an entry, before its name and its padding


class Damage(NamedTuple):
    """What became of damaged copies: all, refused (or the process ended), loaded with the same answer."""

    copies: int
    noticed: int
    harmless: int


def weight_spans(path: Path) -> list[tuple[int, int]]:
    """Return where in a file its weights are, as pairs of begin and end."""
    data = path.read_bytes()
    if data.startswith(b"PK"):
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if _TENSOR_ENTRY.search(entry.filename)]
        return [_zip_span(data, entry) for entry in entries if entry.file_size >= _LARGE_BYTES]
    if path.suffix == ".safetensors":
        return [(8 + int.from_bytes(data[:8], "little"), len(data))]
    return _onnx_spans(data)


def damaged(path: Path, region: Region, count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield ``count`` damaged copies of a file, always the same ones for a seed."""
    data = path.read_bytes()
    rng = np.random.default_rng(seed)
    if region == "end":
        # Missing one byte, 100, and random parts.
        lengths = [len(data) - 1, len(data) - 100, *(int(rng.uniform(0, len(data))) for _ in range(count))]
        yield from (data[:length] for length in lengths[:count])
        return
    spans = weight_spans(path)
    if region == "rest":
        spans = _between(spans, len(data))
    sizes = np.array([end - begin for begin, end in spans])
    for _ in range(count):
        # Each byte of all spans is equally likely.
        offset = int(rng.integers(sizes.sum()))
        index = int(np.searchsorted(np.cumsum(sizes), offset, side="right"))
        position = spans[index][0] + offset - int(sizes[:index].sum())
        copy = bytearray(data)
        copy[position] ^= 1 << int(rng.integers(8))
        yield bytes(copy)


def try_damaged(process: LoadingProcess, path: Path, region: Region, count: int, folder: Path) -> Damage:
    """Load damaged copies, written to ``folder``, and count what happens.

    Raises:
        RuntimeError: The whole file does not load.

    """
    whole = process.load(path)
    if isinstance(whole, Failed):
        raise RuntimeError(f"{path.name} does not load: {whole.error}: {whole.message}")
    target = folder / path.name
    noticed = harmless = copies = 0
    for data in damaged(path, region, count):
        target.write_bytes(data)
        found = process.load(target)
        copies += 1
        noticed += isinstance(found, Failed)
        harmless += isinstance(found, Loaded) and bool(np.array_equal(found.logits, whole.logits))
    target.unlink(missing_ok=True)
    return Damage(copies, noticed, harmless)


def _zip_span(data: bytes, entry: zipfile.ZipInfo) -> tuple[int, int]:
    lengths = data[entry.header_offset + 26 : entry.header_offset + _ZIP_HEADER_BYTES]  # of name and extra field
    name, extra = int.from_bytes(lengths[:2], "little"), int.from_bytes(lengths[2:], "little")
    begin = entry.header_offset + _ZIP_HEADER_BYTES + name + extra
    return begin, begin + entry.file_size


def _onnx_spans(data: bytes) -> list[tuple[int, int]]:
    import onnx

    spans, position = [], 0
    for tensor in onnx.load_model_from_string(data).graph.initializer:
        if len(tensor.raw_data) >= _LARGE_BYTES:
            begin = data.index(tensor.raw_data, position)
            position = begin + len(tensor.raw_data)
            spans.append((begin, position))
    return spans


def _between(spans: Sequence[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    edges = [0, *(edge for span in sorted(spans) for edge in span), length]
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return [(begin, end) for begin, end in pairs if begin < end]
