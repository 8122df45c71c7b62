"""Atomic writes, bounded reads of model files, and SHA-256 digests."""

import fcntl
import glob
import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from resnet_service.errors import FileNotWritten, ModelFileNotFound, SuspiciousModel, UnreadableModel

MAX_MODEL_BYTES = 4 * 2**30
_PARTIAL = ".partial"


def atomic_write(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``; a crash at any moment leaves the old file or the new one, never a partial one.

    The bytes are written and synced under a temporary name, then renamed to ``path``; the rename is atomic. A process
    that is killed in between leaves its temporary file behind; the next write to ``path`` removes it.

    Raises:
        FileNotWritten: The disk is full, the folder is read-only, …; ``path`` is untouched.

    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            prefix=f".{path.name}.", suffix=_PARTIAL, dir=path.parent, delete=False
        ) as file:
            temporary = Path(file.name)
            fcntl.flock(file, fcntl.LOCK_EX)  # released when this process ends: an unlocked file was left behind
            _remove_left_behind(path)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            # Temporary files are readable by their owner only, and the service may run as another user.
            temporary.chmod(0o644)
            temporary.replace(path)
    except OSError as error:
        raise FileNotWritten(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _remove_left_behind(path: Path) -> None:
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*{_PARTIAL}"):
        with suppress(OSError), partial.open("rb") as file:  # another process may be writing or removing it
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            partial.unlink()


def check_model_file(path: Path) -> None:
    """Check that the file exists, before the packages that read it are imported: PyTorch takes seconds.

    Raises:
        ModelFileNotFound: No such file, or not a file.

    """
    if not path.is_file():
        raise ModelFileNotFound(f"There is no model file {path}; `resnet-service pull` fetches one.")


def check_target(source: Path, target: Path) -> None:
    """Check, before minutes of work, that ``target`` can be written and is not ``source``.

    Raises:
        FileNotWritten: It is a folder, or the file to read.

    """
    if target.is_dir():
        raise FileNotWritten(f"{target} is a folder. Name the file to write.")
    if target.exists() and target.samefile(source):
        raise FileNotWritten(f"{target} is the file to read. Name another file to write.")


def read_model_file(path: Path) -> bytes:
    """Read a model file once, so that its digest and its contents come from the same bytes.

    Raises:
        ModelFileNotFound: No such file, or not a file.
        UnreadableModel: Empty, or not readable.
        SuspiciousModel: Larger than ``MAX_MODEL_BYTES``.

    """
    check_model_file(path)
    try:
        size = path.stat().st_size
        if size > MAX_MODEL_BYTES:
            raise SuspiciousModel(f"{path} has {size:,} bytes; the limit is {MAX_MODEL_BYTES:,}.")
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableModel(f"{path} cannot be read: {error.strerror}.") from error
    if not data:
        raise UnreadableModel(f"{path} is empty; copy or fetch it again.")
    return data


def sha256_of(data: bytes | memoryview) -> str:
    """Return the SHA-256 of ``data`` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
