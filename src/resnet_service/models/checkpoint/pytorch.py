"""Bytes of a ``torch.save`` file to plain Python values, without ever executing what is in them."""

import contextlib
import io
import itertools
import pickletools
import warnings
import zipfile
from typing import Any

import torch

from resnet_service.errors import PickledCode, SuspiciousModel, UnreadableModel

MAX_ENTRIES = 20_000
# An honest index has about ten opcodes a tensor. Each may make an object of a hundred bytes out of one of the file's.
MAX_OPCODES = 1_000_000

_ZIP_MAGIC = b"PK\x03\x04"
_PICKLES_IN_LEGACY_FILES = 4  # magic number, version, system, and then the content
_TENSOR_GLOBALS = ("torch._utils.", "torch.FloatStorage", "torch.LongStorage", "collections.OrderedDict")
_NAMED_AT_MOST = 3


def load_values(data: bytes, where: str) -> Any:
    """Return what ``torch.save`` wrote: tensors (on the CPU) and plain values, nothing else.

    Args:
        data: The file's bytes.
        where: How messages name the file.

    Raises:
        UnreadableModel: Truncated, or not made by ``torch.save``.
        SuspiciousModel: A zip whose entries are compressed, too many, or larger than the file; an index that would make
            more objects than any network has.
        PickledCode: The file names Python classes or functions, which loading it would run.

    """
    if data.startswith(_ZIP_MAGIC):
        _check_zip(data, where)
    code = _globals_in(data, where)
    try:
        with warnings.catch_warnings():
            # torch's warnings advise whoever wrote the file; whoever reads it gets our errors, or nothing to mend.
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler may raise anything on hostile bytes
        if code:
            raise PickledCode(
                f"{where} is a pickled Python object ({', '.join(code)}), not a file of weights; reading it would run "
                "whatever code it names, so it is refused. If you made it yourself with torch.save(model), convert "
                f"it once: resnet-service convert --trust-pickle {where} OUTPUT"
            ) from error
        raise _unreadable(where) from error


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
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise PickledCode(
            f"{where} is a TorchScript archive, which carries code and has no safe way of loading; "
            "save the model's state_dict instead."
        )
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise SuspiciousModel(f"{where} has compressed zip entries, which torch.save never writes.")
    if sum(entry.file_size for entry in entries) > len(data):
        raise SuspiciousModel(f"{where} declares more bytes than it has.")


def _globals_in(data: bytes, where: str) -> list[str]:
    """Name the first globals that unpickling would import, other than those that tensors are made of.

    The opcodes are read and counted, never run; on what is no pickle, reading ends early.
    """
    names: dict[str, None] = {}
    strings: list[str] = []
    opcodes = 0
    # What cannot be read, for whatever reason, is for torch.load to refuse; it is asked next.
    with contextlib.suppress(Exception):
        stream = io.BytesIO(_index_of(data))
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
        raise SuspiciousModel(f"{where} has an index of more than {MAX_OPCODES:,} opcodes.")
    return [name for name in names if not name.startswith(_TENSOR_GLOBALS)][:_NAMED_AT_MOST]


def _index_of(data: bytes) -> bytes:
    if not data.startswith(_ZIP_MAGIC):
        return data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))
