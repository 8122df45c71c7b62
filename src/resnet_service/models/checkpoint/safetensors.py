"""Files of the format safetensors: arrays behind a JSON header, read and written with numpy alone.

A file is the header's length (8 bytes, little-endian), the header, and the bytes of all tensors. The header is a JSON
object: each tensor's name to its ``dtype``, ``shape`` and ``data_offsets``, and under ``__metadata__`` strings of the
file's author. This package keeps its metadata there, as one JSON object under ``METADATA_KEY``. Nothing in a file can
be executed. The format has no checksum; files of this package carry their SHA-256 under ``DIGEST_KEY``, so that a
flipped bit is noticed.

The format: https://github.com/huggingface/safetensors. Its library is not used: it accepts duplicate names, has no
bound on the number of tensors, and its numpy loader does not read BF16.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from resnet_service.errors import (
    InvalidMetadata,
    StateDictMismatch,
    SuspiciousModel,
    UnreadableModel,
)
from resnet_service.models.checkpoint.arrays import MAX_DIMENSIONS, MAX_TENSORS, Array, are_sizes, widen_bf16
from resnet_service.models.checkpoint.keys import check_finite
from resnet_service.models.metadata import METADATA_KEY
from resnet_service.system.files import check_model_file

DIGEST_KEY = "resnet_service_sha256"

# Of the header of 20,000 tensors: an object and two lists each, and about 3 MB. The format allows 100 MB, which take
# seconds and a gigabyte to parse.
_MAX_BRACKETS = 4 * MAX_TENSORS
MAX_HEADER_BYTES = 5_000_000

_LENGTH_BYTES = 8
# Of a file's first bytes, by which ``is_safetensors`` tells its format.
HEAD_BYTES = _LENGTH_BYTES + 1
_ALIGNMENT = 8
_AUTHOR = "__metadata__"
_MAX_NAME = 300  # characters
# BF16 is the upper half of a float32.
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8"}
_NAMES = {"float32": "F32", "float16": "F16", "uint16": "BF16", "int64": "I64"}


class _Tensor(NamedTuple):
    """An entry of the header: where a tensor lies within the data, and its type."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class _Header(NamedTuple):
    tensors: list[_Tensor]
    author: dict[str, str]
    data_start: int


def is_safetensors(data: bytes) -> bool:
    """Tell a safetensors file by its first nine bytes: a plausible length, and the brace that opens the header."""
    return data[_LENGTH_BYTES:HEAD_BYTES] == b"{" and 1 < _length(data) <= MAX_HEADER_BYTES


def load_arrays(data: bytes, where: str) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the metadata and the tensors of a file.

    Args:
        data: The file's bytes. Arrays of F32 and I64 are read-only views of them.
        where: The file's name in messages.

    Returns:
        The JSON object that this package wrote, or ``{}`` if the file has none; each tensor by its name, as float32
        (F64, F32, F16, BF16) or int64 (I64).

    Raises:
        UnreadableModel: Truncated, damaged, altered after it was saved, or another kind of file.
        SuspiciousModel: A header that is too large, names a tensor twice or too many; tensors that overlap or leave
            gaps.
        StateDictMismatch: A tensor of another type.
        NonFiniteWeights: NaN or infinity among the weights.
        InvalidMetadata: This package's metadata are no JSON object.

    """
    header = _read_header(data, len(data), where)
    _check_digest(header, data, where)
    arrays = {tensor.name: _array(data, header.data_start, tensor) for tensor in header.tensors}
    check_finite(arrays, where)
    return _own_metadata(header, where), arrays


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata alone, as ``load_arrays`` does, from the header of a file; the weights are not read.

    Raises:
        ModelFileNotFound: No such file.
        ModelError: As for ``load_arrays``, as far as the header shows it.

    """
    check_model_file(path)
    with path.open("rb") as file:
        data = file.read(_LENGTH_BYTES)
        data += file.read(min(_length(data), MAX_HEADER_BYTES))
        size = os.fstat(file.fileno()).st_size
    return _own_metadata(_read_header(data, size, str(path)), str(path))


def dump_arrays(metadata: Mapping[str, Any], state: Mapping[str, Array]) -> bytes:
    """Return the bytes of a file.

    Args:
        metadata: What JSON can express.
        state: Arrays of float32, float16 or int64, or of uint16, which are the bits of BF16.

    Raises:
        StateDictMismatch: An array of another type.

    """
    entries: dict[str, Any] = {}
    parts = []
    offset = 0
    # In falling order of item size, as the library writes them, so that each array is aligned.
    for name in sorted(state, key=lambda name: (-state[name].dtype.itemsize, name)):
        array = state[name]
        dtype = _NAMES.get(array.dtype.name)
        if dtype is None:
            raise StateDictMismatch(f"{name} has the type {array.dtype.name}; only {', '.join(_NAMES)} are saved.")
        part = array.astype(_DTYPES[dtype], copy=False).tobytes()
        entries[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [offset, offset + len(part)]}
        parts.append(part)
        offset += len(part)
    content = b"".join(parts)
    return _header_bytes(entries, {}, metadata, content) + content


def with_metadata(data: bytes, metadata: Mapping[str, Any], where: str) -> bytes:
    """Return the file ``data`` with other metadata and the same tensors, byte for byte; errors as of a damaged file."""
    header = _read_header(data, len(data), where)
    _check_digest(header, data, where)
    content = data[header.data_start :]
    return _header_bytes(_entries(header.tensors), header.author, metadata, content) + content


def _header_bytes(
    entries: Mapping[str, Any], author: Mapping[str, str], metadata: Mapping[str, Any], content: bytes
) -> bytes:
    # transformers loads only files that name their format; "pt" says that names and shapes are those of PyTorch.
    strings = {"format": "pt", **author, METADATA_KEY: json.dumps(metadata)}
    strings[DIGEST_KEY] = _digest(entries, strings, content)
    header = json.dumps({_AUTHOR: strings, **entries}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % _ALIGNMENT)
    return len(header).to_bytes(_LENGTH_BYTES, "little") + header


def _entries(tensors: Iterable[_Tensor]) -> dict[str, Any]:
    return {
        tensor.name: {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [tensor.begin, tensor.end]}
        for tensor in tensors
    }


def _digest(entries: Mapping[str, Any], author: Mapping[str, str], content: bytes | memoryview) -> str:
    """Return the SHA-256 of all that a file says but this digest, independent of the order of its header."""
    others = {key: value for key, value in author.items() if key != DIGEST_KEY}
    digest = hashlib.sha256(json.dumps([entries, others], sort_keys=True).encode())
    digest.update(content)
    return digest.hexdigest()


def _check_digest(header: _Header, data: bytes, where: str) -> None:
    """Compare the file with the digest that it carries; files of other libraries have none."""
    expected = header.author.get(DIGEST_KEY)
    if expected is None:
        return
    if _digest(_entries(header.tensors), header.author, memoryview(data)[header.data_start :]) != expected:
        raise UnreadableModel(
            f"{where} was damaged or altered after it was saved: its SHA-256 is not the one that it carries. Copy or "
            "save it again."
        )


def _length(data: bytes) -> int:
    return int.from_bytes(data[:_LENGTH_BYTES], "little")


def _read_header(data: bytes, size: int, where: str) -> _Header:
    """Parse the header of a file of ``size`` bytes; ``data`` are its first bytes, the header included."""
    if size < _LENGTH_BYTES + 2:
        raise _unreadable(where, "it is too short")
    length = _length(data)
    start = _LENGTH_BYTES + length
    if start > size:
        raise _unreadable(where, f"it declares a header of {length:,} bytes and has {size:,} bytes in all")
    if length > MAX_HEADER_BYTES:
        raise SuspiciousModel(f"{where} has a header of {length:,} bytes; the limit is {MAX_HEADER_BYTES:,}.")
    text = data[_LENGTH_BYTES:start]
    if text.count(b"[") + text.count(b"{") > _MAX_BRACKETS:
        raise SuspiciousModel(f"{where} has a header of more lists and objects than {MAX_TENSORS:,} tensors need.")
    try:
        content = _parse_object(text)
    except _NotAllowedError as error:
        raise SuspiciousModel(f"{where} has a header that no safetensors file has: {error}.") from error
    except _NotJSONError as error:
        raise _unreadable(where, f"its header is {error}") from error
    author = content.pop(_AUTHOR, {})
    if not isinstance(author, dict) or not all(isinstance(value, str) for value in author.values()):
        raise _unreadable(where, f"its {_AUTHOR} has values other than strings")
    if len(content) > MAX_TENSORS:
        raise SuspiciousModel(f"{where} has {len(content):,} tensors; the limit is {MAX_TENSORS:,}.")
    tensors = [_parse_tensor(name, entry, where) for name, entry in content.items()]
    _check_layout(tensors, size - start, where)
    return _Header(tensors, author, start)


def _parse_tensor(name: str, entry: Any, where: str) -> _Tensor:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _unreadable(where, f"{name} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise StateDictMismatch(
            f"{where}: {name} has the type {str(dtype)[:20]!r}; only {', '.join(_DTYPES)} load. "
            "Save the weights as float32 or float16."
        )
    if not are_sizes(shape) or len(shape) > MAX_DIMENSIONS or 0 in shape:
        raise _unreadable(where, f"{name} has no valid shape")
    if not are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _unreadable(where, f"{name} has no valid data_offsets")
    begin, end = offsets
    if math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize != end - begin:
        raise _unreadable(where, f"{name} has a shape and a type of another size than its data")
    return _Tensor(name, dtype, tuple(shape), begin, end)


def _check_layout(tensors: list[_Tensor], size: int, where: str) -> None:
    """Check that the tensors fill the data exactly, as the format demands."""
    position = 0
    for tensor in sorted(tensors, key=lambda tensor: (tensor.begin, tensor.end)):
        if tensor.end > size:
            raise _unreadable(where, f"{tensor.name} lies beyond the end of the file")
        if tensor.begin != position:
            problem = "overlap" if tensor.begin < position else "leave a gap"
            raise SuspiciousModel(f"{where} has tensors that {problem} at {tensor.name}; a safetensors file has none.")
        position = tensor.end
    if position != size:
        raise _unreadable(where, f"its header describes {position:,} bytes of weights, and it has {size:,}")


def _array(data: bytes, start: int, tensor: _Tensor) -> Array:
    stored: Array = np.ndarray(tensor.shape, _DTYPES[tensor.dtype], buffer=data, offset=start + tensor.begin)
    if tensor.dtype == "I64":
        return stored.astype(np.int64, copy=False)
    if tensor.dtype == "BF16":
        return widen_bf16(stored)
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinity, which is refused
        return stored.astype(np.float32, copy=False)


def _own_metadata(header: _Header, where: str) -> dict[str, Any]:
    text = header.author.get(METADATA_KEY)
    if text is None:
        return {}
    try:
        return _parse_object(text.encode(errors="surrogatepass"))
    except (_NotAllowedError, _NotJSONError) as error:
        reason = f"not valid: {error}" if isinstance(error, _NotAllowedError) else str(error)
        raise InvalidMetadata(f"{where}: the metadata are {reason}. Convert or save the checkpoint again.") from error


class _NotAllowedError(ValueError):
    """JSON that the format does not allow, and what is wrong with it."""


class _NotJSONError(ValueError):
    """Text that is no JSON object, and what it is instead, such as "not JSON"."""


def _parse_object(text: bytes) -> dict[str, Any]:
    """Parse a JSON object in which no key appears twice, all are printable, and numbers are finite.

    Raises:
        _NotAllowedError: A key or a number is otherwise.
        _NotJSONError: Not a JSON object.

    """
    try:
        content = json.loads(text.decode(), object_pairs_hook=_object, parse_constant=_refuse_constant)
    except _NotAllowedError:
        raise
    # UnicodeDecodeError is a ValueError, and so is a number of too many digits.
    except (ValueError, RecursionError) as error:
        raise _NotJSONError("not JSON") from error
    if not isinstance(content, dict):
        raise _NotJSONError("not a JSON object")
    return content


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise _NotAllowedError("a name appears twice")
    # Names go into messages and onto terminals.
    if any(len(name) > _MAX_NAME or not name.isprintable() for name in content):
        raise _NotAllowedError(f"a name is longer than {_MAX_NAME} characters or not printable")
    return content


def _refuse_constant(name: str) -> None:
    raise _NotAllowedError(f"a number is {name}")


def _unreadable(where: str, reason: str) -> UnreadableModel:
    return UnreadableModel(
        f"{where} is not a complete safetensors file: {reason}. It is damaged, truncated, or another kind of file; "
        "copy or fetch it again."
    )
