"""Files of ``torch.save``, read without PyTorch: tensors as arrays, plain values, and names of all other objects.

Both formats are read: the zip archive, and the legacy sequence of pickles from before PyTorch 1.6. Nothing in a file is
imported or called, so any file may be read, whatever its pickle contains. Tensors are read from the file when they are
asked for: a training checkpoint has three times the bytes of its weights.
"""

import io
import math
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any, NamedTuple

import numpy as np

from resnet_service.errors import StateDictMismatch, SuspiciousModel, UnreadableModel
from resnet_service.models.checkpoint.arrays import MAX_DIMENSIONS, Array, are_sizes, widen_bf16
from resnet_service.models.checkpoint.pickles import Global, PickleError, PickleLimitExceeded, PickleReader

MAX_ENTRIES = 20_000

_MAX_SIZE = 2**48
_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_CONTENT = 3  # pickles come before that of the content: magic, version, system
_COUNT_BYTES = 8
_ZIP_CONTENT = "/data.pkl"
_TENSORS = {"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"}
_PARAMETERS = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
_SUBCLASSES = {"torch._tensor._rebuild_from_type", "torch._tensor._rebuild_from_type_v2"}
_BF16 = "BFloat16Storage"
_DTYPES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    _BF16: "u2",  # the upper half of a float32
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


@dataclass(frozen=True, eq=False)
class _Storage:
    """Numbers in the file: the class of the storage, its name in the file, and how many numbers the pickle says."""

    kind: str
    key: str
    count: int


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor in the file: its shape, and where its numbers are."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    storage: _Storage
    read_storage: Callable[[str], bytes]
    byte_order: str

    @property
    def size(self) -> int:
        """The number of its numbers."""
        return math.prod(self.shape)

    def array(self, name: str) -> Array:
        """Return the tensor as a copy: floating-point numbers as float32, others in their type.

        Raises:
            StateDictMismatch: A type that cannot be read; ``name`` is in the message.
            UnreadableModel: The storage is missing, damaged, or smaller than the tensor.

        """
        dtype = _DTYPES.get(self.storage.kind)
        if dtype is None:
            raise StateDictMismatch(
                f"{name} is of the type {self.storage.kind.removesuffix('Storage')[:20]!r}, which is not read. Save "
                "the weights as float32."
            )
        numbers = self._numbers(name, np.dtype(self.byte_order + dtype))
        if self.storage.kind == _BF16:
            return widen_bf16(numbers)
        if numbers.dtype.kind == "f":
            with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinity, which is refused
                return numbers.astype(np.float32)
        return numbers.astype(numbers.dtype.newbyteorder("="))

    def _numbers(self, name: str, dtype: np.dtype[Any]) -> Array:
        stored = self.read_storage(self.storage.key)
        count = self.storage.count
        last = self.offset + sum((side - 1) * stride for side, stride in zip(self.shape, self.strides, strict=True))
        if len(stored) != count * dtype.itemsize or not 0 < self.size <= count or last >= count:
            raise UnreadableModel(
                f"{name} has no numbers, or more than its storage in the file, which is damaged or truncated."
            )
        numbers = np.frombuffer(stored, dtype, count)
        strides = [stride * dtype.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(numbers[self.offset :], self.shape, strides, writeable=False)


class TorchFile(NamedTuple):
    """The content of a file, and the names of classes and functions in it, in order."""

    content: Any
    globals: tuple[str, ...]


def read_torch_file(data: bytes, where: str) -> TorchFile:
    """Read a file of ``torch.save``: dicts, lists, plain values, ``StoredTensor``, and ``Object`` for all else.

    Args:
        data: The file's bytes.
        where: The file's name in messages.

    Raises:
        UnreadableModel: Truncated, or not made by ``torch.save``.
        SuspiciousModel: A zip whose entries are compressed, too many, or larger than the file; a pickle of more
            opcodes or deeper tuples than any network's.

    """
    return read_torch_stream(io.BytesIO(data), where)


def read_torch_stream(stream: IO[bytes], where: str) -> TorchFile:
    """As ``read_torch_file``, of an open file, which must stay open for its tensors to be read."""
    try:
        return _read_zip(stream, where) if is_zip(stream) else _read_legacy(stream)
    except PickleLimitExceeded as error:
        raise SuspiciousModel(f"{where} is refused. {error}") from error
    except PickleError as error:
        raise unreadable(where) from error


def read_state_dict(data: bytes, where: str) -> dict[str, Array]:
    """Read a file of ``torch.save`` that holds a dict of tensors and nothing else.

    Returns:
        Each tensor by its key, in the file's order: floating-point numbers as float32, others in their type.

    Raises:
        UnreadableModel: The file holds something else, or as for ``read_torch_file``.
        SuspiciousModel: As for ``read_torch_file``.
        StateDictMismatch: A tensor of a type that cannot be read.

    """
    content = read_torch_file(data, where).content
    if not isinstance(content, dict) or not content:
        raise UnreadableModel(f"{where} holds no dict of tensors.")
    state = {}
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, StoredTensor):
            raise UnreadableModel(f"{where} holds more than tensors: {str(key)[:80]!r}.")
        state[key] = value.array(key)
    return state


def with_entry(data: bytes, key: str, value: Any, where: str) -> bytes:
    """Return a file that holds a dict, with another entry or another value of one; the tensors stay as they are.

    Args:
        data: The file's bytes.
        key: The entry.
        value: Plain values.
        where: The file's name in messages.

    Raises:
        ModelError: As for ``read_torch_file``.

    """
    stream = io.BytesIO(data)
    read_torch_stream(stream, where)  # within all limits
    stream.seek(0)
    if not is_zip(stream):
        for _ in range(_LEGACY_CONTENT + 1):
            start = stream.tell()
            for _ in pickletools.genops(stream):
                pass
        end = stream.tell()
        return data[:start] + _with_entry(data[start:end], key, value) + data[end:]
    archive = _open_zip(stream, where)
    pickled = _zip_content(archive, where)
    changed = io.BytesIO()
    with zipfile.ZipFile(changed, "w") as new:
        for name in archive.namelist():
            content = _read_entry(archive, name, where)
            new.writestr(zipfile.ZipInfo(name), _with_entry(content, key, value) if name == pickled else content)
    return changed.getvalue()


def _with_entry(pickled: bytes, key: str, value: Any) -> bytes:
    """Return the pickle of a dict with further opcodes: they push key and value, and set the entry."""
    pushed = (pickle.dumps(one, protocol=2).removeprefix(pickle.PROTO + b"\2") for one in (key, value))
    return b"".join(one.removesuffix(pickle.STOP) for one in (pickled, *pushed)) + pickle.SETITEM + pickle.STOP


def is_zip(stream: IO[bytes]) -> bool:
    """Whether an open file is a zip archive by its first bytes; it is left at its start."""
    stream.seek(0)
    head = stream.read(len(_ZIP_MAGIC))
    stream.seek(0)
    return head == _ZIP_MAGIC


def _open_zip(stream: IO[bytes], where: str) -> zipfile.ZipFile:
    """Open a zip archive, and check its directory: as ``torch.save`` writes it, of no more bytes than the file has.

    Raises:
        UnreadableModel: No zip archive, or a damaged one.
        SuspiciousModel: Entries are compressed, too many, of one name, or larger than the file.

    """
    size = stream.seek(0, io.SEEK_END)
    try:
        archive = zipfile.ZipFile(stream)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError) as error:
        raise unreadable(where) from error
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise SuspiciousModel(f"{where} has {len(entries):,} zip entries; the limit is {MAX_ENTRIES:,}.")
    if len({entry.filename for entry in entries}) != len(entries):  # readers differ in which of them they take
        raise SuspiciousModel(f"{where} has two zip entries of one name.")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise SuspiciousModel(f"{where} has compressed zip entries, which torch.save never writes.")
    if sum(entry.file_size for entry in entries) > size:
        raise SuspiciousModel(f"{where} declares larger zip entries than the file has bytes.")
    return archive


def unreadable(where: str) -> UnreadableModel:
    """Return the error of a file that is no complete file of ``torch.save``."""
    return UnreadableModel(
        f"{where} is not a complete PyTorch checkpoint: it is damaged, truncated, or another kind of file."
    )


def _key(value: Any) -> str:
    """Return the name of a storage, a text or, in old files, a number; the text of any other value may be endless."""
    if type(value) not in (str, int):
        raise PickleError("a storage without a name")
    return str(value)


class _Rebuilder:
    """Makes tensors of the calls and persistent ids that ``torch.save`` writes for them."""

    def __init__(self, read_storage: Callable[[str], bytes], byte_order: str) -> None:
        self.read_storage = read_storage
        self.byte_order = byte_order
        self.storages: dict[str, _Storage] = {}

    def persistent(self, reference: Any) -> Any:
        """Return the storage of a reference ``("storage", class, key, device, count)``."""
        if not isinstance(reference, tuple) or len(reference) < 5 or not isinstance(reference[1], Global):
            return None
        if len(reference) > 5 and reference[5] is not None:  # a view of another storage, as PyTorch 0.3 wrote
            return None
        if not are_sizes((reference[4],), below=_MAX_SIZE):
            raise PickleError("a storage without a valid size")
        key = _key(reference[2])
        return self.storages.setdefault(key, _Storage(reference[1].name.rpartition(".")[2], key, reference[4]))

    def call(self, name: str, args: tuple[Any, ...]) -> Any:
        """Return the tensor that a call makes, or ``None``."""
        if name in _SUBCLASSES and len(args) > 2 and isinstance(args[0], Global) and isinstance(args[2], tuple):
            name, args = args[0].name, args[2]
        if name in _PARAMETERS and args and isinstance(args[0], StoredTensor):
            return args[0]
        if name not in _TENSORS or len(args) < 4 or not isinstance(args[0], _Storage):
            return None
        if len(args) > 6 and args[6]:  # a view whose numbers are stored with another sign, or conjugated
            return None
        storage, offset, shape, strides = args[0], args[1], args[2], args[3]
        if not all(are_sizes(sizes, below=_MAX_SIZE) for sizes in ((offset,), shape, strides)):
            raise PickleError("a tensor without a valid shape")
        if len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
            raise PickleError("a tensor without a valid shape")
        return StoredTensor(tuple(shape), tuple(strides), offset, storage, self.read_storage, self.byte_order)


def _read_zip(stream: IO[bytes], where: str) -> TorchFile:
    archive = _open_zip(stream, where)

    @lru_cache(maxsize=1)  # several tensors may share a storage
    def read(name: str) -> bytes:
        return _read_entry(archive, name, where)

    pickle_name = _zip_content(archive, where)
    folder = pickle_name.removesuffix(_ZIP_CONTENT)
    byte_order = read(f"{folder}/byteorder") if f"{folder}/byteorder" in archive.namelist() else b"little"
    rebuilder = _Rebuilder(lambda key: read(f"{folder}/data/{key}"), ">" if byte_order == b"big" else "<")
    reader = PickleReader(rebuilder.call, rebuilder.persistent)
    content = reader.read(io.BytesIO(read(pickle_name)))
    return TorchFile(content, tuple(reader.globals))


def _zip_content(archive: zipfile.ZipFile, where: str) -> str:
    """Return the name of the entry that is the pickle of the file's content."""
    name = next((name for name in archive.namelist() if name.endswith(_ZIP_CONTENT)), None)
    if name is None:
        raise unreadable(where)
    return name


def _read_entry(archive: zipfile.ZipFile, name: str, where: str) -> bytes:
    try:
        return archive.read(name)  # which compares the checksum
    # RuntimeError: encrypted. Others: damage in the header of an entry.
    except (KeyError, RuntimeError, zipfile.BadZipFile, EOFError, ValueError, OSError) as error:
        raise unreadable(where) from error


def _read_at(stream: IO[bytes], begin: int, length: int) -> bytes:
    stream.seek(begin)
    return stream.read(length)


def _read_legacy(stream: IO[bytes]) -> TorchFile:
    size = stream.seek(0, io.SEEK_END)
    storages: dict[str, tuple[int, int]] = {}  # where the bytes of each begin, and how many they are

    @lru_cache(maxsize=1)
    def read_storage(key: str) -> bytes:
        return _read_at(stream, *storages.get(key, (0, 0)))  # a pickle that torch.save did not write has none

    rebuilder = _Rebuilder(read_storage, "<")
    reader = PickleReader(rebuilder.call, rebuilder.persistent)
    stream.seek(0)
    content = reader.read(stream)
    if content != _LEGACY_MAGIC:  # a pickle that torch.save did not write
        return TorchFile(content, tuple(reader.globals))
    reader.read(stream)  # the version of the format
    system = reader.read(stream)
    if isinstance(system, Mapping) and system.get("little_endian") is False:
        rebuilder.byte_order = ">"
    content = reader.read(stream)
    keys = reader.read(stream)
    if not isinstance(keys, list):
        raise PickleError("no list of storages")
    for key in map(_key, keys):
        if key not in rebuilder.storages:
            raise PickleError("a storage of no tensor")
        count = int.from_bytes(stream.read(_COUNT_BYTES), "little", signed=True)
        dtype = _DTYPES.get(rebuilder.storages[key].kind)
        if dtype is None:
            raise PickleError("a storage of an unknown type")
        begin, length = stream.tell(), count * np.dtype(dtype).itemsize
        if not 0 <= length <= size - begin:
            raise PickleError("a storage beyond the end of the file")
        storages[key] = begin, length
        stream.seek(begin + length)
    if storages.keys() != rebuilder.storages.keys():
        raise PickleError("a tensor without its storage")
    return TorchFile(content, tuple(reader.globals))
