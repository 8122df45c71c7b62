import fcntl
import os
from pathlib import Path

import pytest

from resnet_service.errors import FileNotWritten
from resnet_service.system.files import atomic_write, sha256_of


def test_written_files_are_complete_readable_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    atomic_write(path, b"first")
    atomic_write(path, b"second")
    assert path.read_bytes() == b"second"
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(path.parent) == ["file"]


def test_what_cannot_be_written_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "inside").touch()
    with pytest.raises(FileNotWritten, match="taken cannot be written: Is a directory"):
        atomic_write(tmp_path / "taken", b"data")
    assert os.listdir(tmp_path) == ["taken"]


def test_what_a_killed_writer_left_is_removed_and_what_another_one_writes_is_not(tmp_path: Path) -> None:
    left = [tmp_path / f".model[1].pth.{name}.partial" for name in ("dead", "alive")]
    others = [tmp_path / ".model.pth.dead.partial", tmp_path / ".model[1].pth.dead"]
    for path in (*left, *others):
        path.write_bytes(b"half")
    with left[1].open() as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        atomic_write(tmp_path / "model[1].pth", b"whole")
    assert set(tmp_path.iterdir()) == {tmp_path / "model[1].pth", left[1], *others}


def test_digest_is_that_of_sha256sum() -> None:
    assert sha256_of(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
