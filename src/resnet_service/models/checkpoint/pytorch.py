"""Files of ``torch.save``: tensors and plain values, read without executing code in the file."""

import contextlib
import io
import itertools
import pickletools
import warnings
import zipfile
from collections.abc import Mapping
from typing import Any

import torch

from resnet_service.errors import PickledCode, SuspiciousModel, UnreadableModel

MAX_ENTRIES = 20_000
# A regular file has about ten opcodes per tensor. A single byte can create an object of a hundred bytes.
MAX_OPCODES = 1_000_000

_ZIP_MAGIC = b"PK\x03\x04"
_PICKLES_IN_LEGACY_FILES = 4  # magic number, version, system, content
_TENSOR_GLOBALS = ("torch._utils.", "torch.FloatStorage", "torch.LongStorage", "collections.OrderedDict")
_MAX_NAMES = 3


def load_values(data: bytes, where: str) -> Any:
    """Return the content of a ``torch.save`` file: tensors (on the CPU) and plain values, nothing else.

    Args:
        data: The file's bytes.
        where: The file's name in messages.

    Raises:
        UnreadableModel: Truncated, or not made by ``torch.save``.
        SuspiciousModel: A zip whose entries are compressed, too many, or larger than the file; more pickle opcodes
            than any network needs.
        PickledCode: The file names Python classes or functions, which loading would run.

    """
    if data.startswith(_ZIP_MAGIC):
        _check_zip(data, where)
    names = _unsafe_globals(data, where)
    try:
        with warnings.catch_warnings():
            # torch's warnings advise the author of the file; its reader can change nothing.
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler may raise anything on hostile bytes
        if names:
            raise PickledCode(
                f"{where} is a pickled Python object ({', '.join(names)}), not a file of weights; loading it would run "
                "the code it names. If you made it yourself with torch.save(model), convert it once: "
                f"resnet-service convert --trust-pickle {where} OUTPUT"
            ) from error
        raise _unreadable(where) from error


def dump_values(content: Mapping[str, Any]) -> bytes:
    """Return the bytes of a ``torch.save`` file with ``content``."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _unreadable(where: str) -> UnreadableModel:
    return UnreadableModel(
        f"{where} is not a complete PyTorch checkpoint: it is damaged, truncated, or another kind of file."
    )


def _check_zip(data: bytes, where: str) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError) as error:
        raise _unreadable(where) from error
    if len(entries) > MAX_ENTRIES:
        raise SuspiciousModel(f"{where} has {len(entries):,} zip entries; the limit is {MAX_ENTRIES:,}.")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise SuspiciousModel(f"{where} has compressed zip entries, which torch.save never writes.")
    if sum(entry.file_size for entry in entries) > len(data):
        raise SuspiciousModel(f"{where} declares larger zip entries than the file has bytes.")


def _unsafe_globals(data: bytes, where: str) -> list[str]:
    """Return the first globals that unpickling would import, other than those that tensors are made of.

    The opcodes are read and counted, never run. ``torch.serialization.get_unsafe_globals_in_checkpoint`` reads neither
    legacy files nor opcodes that ``torch.save`` does not write, and has no bound on their number.
    """
    names: dict[str, None] = {}
    strings: list[str] = []
    opcodes = 0
    # torch.load comes next and refuses what cannot be read here.
    with contextlib.suppress(Exception):
        stream = io.BytesIO(_pickle_of(data))
        for _ in range(_PICKLES_IN_LEGACY_FILES):
            for opcode, argument, _ in itertools.islice(pickletools.genops(stream), MAX_OPCODES + 1):
                opcodes += 1
                if opcode.name == "STACK_GLOBAL" and len(strings) > 1:
                    names[".".join(strings[-2:])] = None
                elif opcode.name in ("GLOBAL", "INST"):
                    names[str(argument).replace(" ", ".")] = None
                elif isinstance(argument, str):
                    strings.append(argument)
    if opcodes > MAX_OPCODES:
        raise SuspiciousModel(f"{where} has more than {MAX_OPCODES:,} pickle opcodes; no network needs as many.")
    return [name for name in names if not name.startswith(_TENSOR_GLOBALS)][:_MAX_NAMES]


def _pickle_of(data: bytes) -> bytes:
    if not data.startswith(_ZIP_MAGIC):
        return data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))
