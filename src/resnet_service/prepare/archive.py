"""Bytes of a ``torch.save`` file to plain Python values, without ever executing what is in them."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from resnet_service.errors import ModelFileNotFound, PickledCode, SuspiciousCheckpoint, UnreadableCheckpoint

MAX_FILE_BYTES = 4 * 2**30
MAX_ENTRIES = 20_000
MAX_PICKLE_BYTES = 32 * 2**20

_ZIP_MAGIC = b"PK\x03\x04"


def read_bytes(path: Path) -> bytes:
    """Read a model file once; its digest and its contents then come from the same bytes.

    Raises:
        ModelFileNotFound: No such file, or not a file.
        UnreadableCheckpoint: Empty, or not readable.
        SuspiciousCheckpoint: Larger than ``MAX_FILE_BYTES``.

    """
    if not path.is_file():
        raise ModelFileNotFound(f"There is no model file {path}; `resnet-service pull` fetches one.")
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise SuspiciousCheckpoint(f"{path} has {size:,} bytes; the limit is {MAX_FILE_BYTES:,}.")
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableCheckpoint(f"{path} cannot be read: {error.strerror}.") from error
    if not data:
        raise UnreadableCheckpoint(f"{path} is empty; copy or fetch it again.")
    return data


def load_values(data: bytes, where: str) -> Any:
    """Return what ``torch.save`` wrote: tensors (on the CPU) and plain values, nothing else.

    Args:
        data: The file's bytes.
        where: How messages name the file.

    Raises:
        UnreadableCheckpoint: Truncated, or not made by ``torch.save``.
        SuspiciousCheckpoint: A zip whose entries are compressed, too many, or larger than the file.
        PickledCode: The file names Python classes or functions, which loading it would run.

    """
    if data.startswith(_ZIP_MAGIC):
        _check_zip(data, where)
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        code = _code_in(data)
        if code:
            raise PickledCode(
                f"{where} is a pickled Python object ({', '.join(code)}), not a file of weights; reading it would run "
                "whatever code it names, so it is refused. If you made it yourself with torch.save(model), convert "
                f"it once: resnet-service convert --trust-pickle {where} OUTPUT"
            ) from error
        raise _unreadable(where) from error
    except Exception as error:  # the unpickler may raise anything on hostile bytes
        raise _unreadable(where) from error


def _unreadable(where: str) -> UnreadableCheckpoint:
    return UnreadableCheckpoint(
        f"{where} is not a complete PyTorch checkpoint: it is damaged, truncated, or another kind of file."
    )


def _check_zip(data: bytes, where: str) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError) as error:
        raise _unreadable(where) from error
    if len(entries) > MAX_ENTRIES:
        raise SuspiciousCheckpoint(f"{where} has {len(entries):,} zip entries; the limit is {MAX_ENTRIES:,}.")
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise PickledCode(
            f"{where} is a TorchScript archive, which carries code and has no safe way of loading; "
            "save the model's state_dict instead."
        )
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise SuspiciousCheckpoint(f"{where} has compressed zip entries, which torch.save never writes.")
    if sum(entry.file_size for entry in entries) > len(data):
        raise SuspiciousCheckpoint(f"{where} declares more bytes than it has.")
    if any(entry.filename.endswith("/data.pkl") and entry.file_size > MAX_PICKLE_BYTES for entry in entries):
        raise SuspiciousCheckpoint(f"{where} has an index of more than {MAX_PICKLE_BYTES:,} bytes.")


def _code_in(data: bytes) -> list[str]:
    """Name the globals that loading in full would import, the first five; found without importing any."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(data))
    except Exception:  # noqa: BLE001 - only zip files can be asked; for others the refusal itself is evidence enough
        return ["classes or functions that cannot be named without running it"]
    return sorted(names)[:5]
