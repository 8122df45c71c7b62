"""Files of ``torch.save`` that are known by their SHA-256, read with numpy alone.

The few files that ``pull`` fetches and whose digests are written in this package need no PyTorch. The digest decides
first: no byte of another file is interpreted. What follows could not run code either. It interprets the opcodes that
``torch.save`` writes, and knows four names, none of which is ever imported.
"""

import io
import itertools
import math
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from resnet_service.errors import PickledCode, SourceDigestMismatch, SuspiciousModel, UnreadableModel
from resnet_service.models.checkpoint.safetensors import Array
from resnet_service.system.files import sha256_of

_MAX_OPCODES = 1_000_000
_MAX_ENTRIES = 20_000
_MAX_DIMENSIONS = 8
_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the first object of a file from before PyTorch 1.6
_LEGACY_VERSION = 1001
_LENGTH = struct.Struct("<q")  # of numbers, before the bytes of each storage in a legacy file

_DTYPES = {"torch FloatStorage": "<f4", "torch LongStorage": "<i8"}
_REBUILD = "torch._utils _rebuild_tensor_v2"
_ORDERED_DICT = "collections OrderedDict"


# What zipfile raises for damaged archives, wrong checksums and encrypted entries.
_DAMAGED = (
    *(zipfile.BadZipFile, EOFError, OSError, ValueError, LookupError),
    *(NotImplementedError, OverflowError, RuntimeError),
)


class _Name(NamedTuple):
    """A class or function that the file names: a module and a name in it, as text."""

    text: str


class _Storage(NamedTuple):
    """The numbers of one or several tensors, which are elsewhere in the file."""

    key: str
    dtype: str
    size: int


class _Tensor(NamedTuple):
    """A tensor within a storage; offset and strides count numbers, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _MalformedError(Exception):
    """The file is not what ``torch.save`` makes of a dict of tensors."""


_MARK = object()


def read_pinned(data: bytes, sha256: str, where: str) -> dict[str, Array]:
    """Return the tensors in a file of ``torch.save``: a dict of plain tensors, such as a ``state_dict``.

    Args:
        data: The file's bytes.
        sha256: The SHA-256 that the file must have, as 64 hexadecimal digits from this package's own code.
        where: The file's name in messages.

    Returns:
        Each tensor by its key, in the file's order, as float32 or int64; read-only views of ``data``.

    Raises:
        SourceDigestMismatch: Another file. Nothing of it was interpreted.
        PickledCode: The file names other classes and functions than those of plain tensors.
        SuspiciousModel: More opcodes or zip entries than any network needs, or compressed zip entries.
        UnreadableModel: Not a file of ``torch.save``, or truncated.

    """
    digest = sha256_of(data)
    if digest != sha256:
        raise SourceDigestMismatch(f"{where} has {len(data):,} bytes with SHA-256 {digest}, expected {sha256}.")
    try:
        content, storages = (_read_zip if data.startswith(_ZIP_MAGIC) else _read_legacy)(data, where)
        if not isinstance(content, dict) or not content:
            raise _MalformedError("it holds no dict of tensors")
        return {key: _array(key, tensor, storages) for key, tensor in content.items()}
    except _MalformedError as error:
        raise UnreadableModel(
            f"{where} is not a complete file of plain tensors: {error}. Fetch it again, or read it with PyTorch."
        ) from error


def _read_zip(data: bytes, where: str) -> tuple[Any, Mapping[str, bytes]]:
    """Return the content and the storages of a file of PyTorch 1.6 or later."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if len(entries) > _MAX_ENTRIES:
                raise SuspiciousModel(f"{where} has {len(entries):,} zip entries; the limit is {_MAX_ENTRIES:,}.")
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise SuspiciousModel(f"{where} has compressed zip entries, which torch.save never writes.")
            if sum(entry.file_size for entry in entries) > len(data):
                raise SuspiciousModel(f"{where} declares larger zip entries than the file has bytes.")
            # Each name begins with the folder that torch.save named the archive.
            members = {entry.filename.partition("/")[2]: archive.read(entry) for entry in entries}
    except _DAMAGED as error:
        raise _MalformedError("it is a damaged zip archive") from error
    if "data.pkl" not in members or members.get("byteorder", b"little") != b"little":
        raise _MalformedError("it is a zip archive that torch.save did not write on this kind of machine")
    content = _interpret(io.BytesIO(members["data.pkl"]), where)
    storages = {key.removeprefix("data/"): value for key, value in members.items() if key.startswith("data/")}
    return content, storages


def _read_legacy(data: bytes, where: str) -> tuple[Any, Mapping[str, bytes]]:
    """Return the content and the storages of a file from before PyTorch 1.6: five pickles, then the numbers."""
    stream = io.BytesIO(data)
    header = [_interpret(stream, where) for _ in range(3)]
    if header[:2] != [_LEGACY_MAGIC, _LEGACY_VERSION] or not isinstance(header[2], dict):
        raise _MalformedError("it does not begin as torch.save's files do")
    if header[2].get("little_endian") is not True:
        raise _MalformedError("its numbers are big-endian")
    content = _interpret(stream, where)
    keys = _interpret(stream, where)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or not isinstance(content, dict):
        raise _MalformedError("it holds no dict of tensors")
    dtypes = {value.storage.key: value.storage.dtype for value in content.values() if isinstance(value, _Tensor)}
    storages: dict[str, bytes] = {}
    for key in keys:
        length = stream.read(_LENGTH.size)
        if len(length) < _LENGTH.size or key not in dtypes:
            raise _MalformedError("its storages are not those of its tensors")
        size = _LENGTH.unpack(length)[0] * np.dtype(dtypes[key]).itemsize
        if not 0 <= size <= len(data):
            raise _MalformedError("a storage is larger than the file")
        storages[key] = stream.read(size)
    return content, storages


def _array(key: Any, tensor: Any, storages: Mapping[str, bytes]) -> Array:
    if not isinstance(key, str) or not key.isprintable() or not isinstance(tensor, _Tensor):
        raise _MalformedError("something in it is not a tensor with a name")
    storage = tensor.storage
    item = np.dtype(storage.dtype).itemsize
    numbers = storages.get(storage.key, b"")
    if len(numbers) != storage.size * item:
        raise _MalformedError(f"{key} has no numbers of the length that it declares")
    if len(tensor.shape) > _MAX_DIMENSIONS or math.prod(tensor.shape) > storage.size:
        raise _MalformedError(f"{key} is larger than its storage")
    try:
        # numpy checks that offset, shape and strides stay within the buffer.
        return np.ndarray(
            tensor.shape, storage.dtype, numbers, tensor.offset * item, [stride * item for stride in tensor.strides]
        )
    except (ValueError, TypeError, OverflowError) as error:
        raise _MalformedError(f"{key} lies outside its storage") from error


class _Machine:
    """The stack and the memo of a pickle. Its values are plain: nothing in it can be called."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise _MalformedError("its pickle is damaged")
        return value

    def pop_to_mark(self) -> list[Any]:
        values = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def pop_tuple(self, length: int) -> tuple[Any, ...]:
        return tuple([self.pop() for _ in range(length)][::-1])

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def name(self, text: str) -> None:
        if text not in (*_DTYPES, _REBUILD, _ORDERED_DICT):
            shown = text.replace(" ", ".")
            shown = shown if shown.isprintable() and len(shown) < 100 else "one that is not printable"
            raise PickledCode(
                f"{self.where} names the class or function {shown}, which no file of plain tensors has. It was not "
                "loaded; fetch the file from its publisher."
            )
        self.push(_Name(text))

    def storage(self) -> None:
        match self.pop():
            # A legacy file has one part more, None unless the storage is a part of another one.
            case ("storage", _Name(text), str(key), str(), int(size), *more) if text in _DTYPES and more in (
                [],
                [None],
            ):
                self.push(_Storage(key, _DTYPES[text], size))
            case _:
                raise _MalformedError("its pickle refers to something that is no storage")

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        match function, arguments:
            case _Name(text), () if text == _ORDERED_DICT:
                self.push({})
            case _Name(text), (_Storage() as storage, int(offset), shape, strides, bool(), dict()) if (
                text == _REBUILD and _are_sizes(shape) and _are_sizes(strides) and offset >= 0
            ):
                self.push(_Tensor(storage, offset, shape, strides))
            case _:
                raise PickledCode(f"{self.where} calls something other than what makes a tensor. It was not loaded.")

    def set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(values) % 2 or not all(type(key) is str for key in values[::2]):
            raise _MalformedError("its pickle is damaged")
        target.update(zip(values[::2], values[1::2], strict=True))

    def append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise _MalformedError("its pickle is damaged")
        target.extend(values)

    def build(self) -> None:
        """Ignore the attributes of a dict: PyTorch keeps the versions of its modules there."""
        self.pop()
        if not isinstance(self.stack[-1], dict):
            raise PickledCode(f"{self.where} sets the state of an object that is no dict. It was not loaded.")


def _are_sizes(values: Any) -> bool:
    return isinstance(values, tuple) and all(type(value) is int and value >= 0 for value in values)


# All that torch.save writes for a dict of tensors, by pickletools' names. Any other opcode is refused.
_OPCODES: Mapping[str, Callable[[_Machine, Any], object]] = MappingProxyType(
    {
        "PROTO": lambda machine, version: None,
        "NONE": lambda machine, _: machine.push(None),
        "NEWTRUE": lambda machine, _: machine.push(True),
        "NEWFALSE": lambda machine, _: machine.push(False),
        **dict.fromkeys(
            ("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE"), lambda machine, value: machine.push(value)
        ),
        "EMPTY_DICT": lambda machine, _: machine.push({}),
        "EMPTY_LIST": lambda machine, _: machine.push([]),
        "EMPTY_TUPLE": lambda machine, _: machine.push(()),
        "MARK": lambda machine, _: machine.push(_MARK),
        "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_to_mark())),
        "TUPLE1": lambda machine, _: machine.push(machine.pop_tuple(1)),
        "TUPLE2": lambda machine, _: machine.push(machine.pop_tuple(2)),
        "TUPLE3": lambda machine, _: machine.push(machine.pop_tuple(3)),
        "APPEND": lambda machine, _: machine.append([machine.pop()]),
        "APPENDS": lambda machine, _: machine.append(machine.pop_to_mark()),
        "SETITEM": lambda machine, _: machine.set_items([*machine.pop_tuple(2)]),
        "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
        **dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda machine, index: machine.put(index)),
        **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda machine, index: machine.push(machine.memo[index])),
        "GLOBAL": lambda machine, text: machine.name(text),
        "BINPERSID": lambda machine, _: machine.storage(),
        "REDUCE": lambda machine, _: machine.call(),
        "BUILD": lambda machine, _: machine.build(),
    }
)


def _interpret(stream: io.BytesIO, where: str) -> Any:
    """Interpret one pickle, and leave ``stream`` behind it."""
    machine = _Machine(where)
    try:
        for name, argument in _opcodes(stream, where):
            if name == "STOP":
                value = machine.pop()
                if machine.stack:
                    raise _MalformedError("its pickle is damaged")
                return value
            if name not in _OPCODES:
                raise PickledCode(
                    f"{where} has the pickle opcode {name}, which no file of plain tensors has. It was not loaded; "
                    "fetch the file from its publisher."
                )
            _OPCODES[name](machine, argument)
    except (LookupError, ValueError) as error:  # an empty stack, no mark, no such memo; a damaged opcode
        raise _MalformedError("its pickle is damaged or truncated") from error
    raise _MalformedError("its pickle is truncated")


def _opcodes(stream: io.BytesIO, where: str) -> Iterator[tuple[str, Any]]:
    for opcode, argument, _ in itertools.islice(pickletools.genops(stream), _MAX_OPCODES):
        yield opcode.name, argument
        if opcode.name == "STOP":
            return
    raise SuspiciousModel(f"{where} has more than {_MAX_OPCODES:,} pickle opcodes; no network needs as many.")
