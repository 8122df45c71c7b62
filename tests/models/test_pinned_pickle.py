"""Reading files of torch.save without PyTorch: equal to PyTorch's own reading, and nothing that a file says is run."""

import io
import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from resnet_service.errors import ModelError, PickledCode, SourceDigestMismatch, SuspiciousModel, UnreadableModel
from resnet_service.models.checkpoint import pinned_pickle
from resnet_service.models.checkpoint.pinned_pickle import read_pinned
from resnet_service.system.files import sha256_of
from tests.support.models import random_model

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def saved(content: Any, *, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def read(data: bytes) -> dict[str, Any]:
    return read_pinned(data, sha256_of(data), "weights.pth")


@FORMATS
def test_tensors_equal_those_that_pytorch_reads(zipped: bool) -> None:
    state = random_model("resnet18").state_dict()
    found = read(saved(state, zipped=zipped))
    assert list(found) == list(state)
    for key, tensor in state.items():
        assert found[key].dtype == tensor.numpy().dtype
        np.testing.assert_array_equal(found[key], tensor.numpy())


@FORMATS
def test_tensors_that_share_a_storage_or_have_other_strides_are_read(zipped: bool) -> None:
    whole = torch.arange(24.0).reshape(2, 3, 4)
    state = {"part": whole[1, :, 1:3], "turned": whole.permute(2, 0, 1), "whole": whole, "count": torch.tensor(7)}
    found = read(saved(state, zipped=zipped))
    for key, tensor in state.items():
        np.testing.assert_array_equal(found[key], tensor.numpy())


def test_another_file_is_refused_before_it_is_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise AssertionError("the file was interpreted")

    monkeypatch.setattr(pinned_pickle, "_interpret", fail)
    monkeypatch.setattr(zipfile, "ZipFile", fail)
    data = saved({"a": torch.zeros(1)})
    for changed in (data[:-1], data + b"\0", bytes([data[0] ^ 1]) + data[1:]):
        with pytest.raises(SourceDigestMismatch, match=sha256_of(data)):
            read_pinned(changed, sha256_of(data), "weights.pth")


class Runs:
    """An object whose unpickling runs a command."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.canary}",)


def in_zip(pickled: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
    return buffer.getvalue()


def in_legacy(pickled: bytes) -> bytes:
    header = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    return b"".join(pickle.dumps(value, 2) for value in header) + pickled + pickle.dumps([], 2)


def hostile(canary: Path) -> dict[str, bytes]:
    """Return pickles that run a command when Python's unpickler reads them, one for each way to do so."""
    command = f"touch {canary}".encode()
    text = b"X" + len(command).to_bytes(4, "little") + command
    return {
        "reduce": pickle.dumps(Runs(canary), 2),
        "stack_global": pickle.dumps(Runs(canary), 4),
        "inst": b"(S'" + command + b"'\nios\nsystem\n.",
        "obj": b"(cos\nsystem\n" + text + b"o.",
        "newobj": b"\x80\x02csubprocess\nPopen\n(" + text + b"K\x00N" + b"N" * 5 + b"\x88\x88t\x81.",
        "global": b"\x80\x02cos\nsystem\n" + text + b"\x85R.",
        "beside tensors": b"\x80\x02}X\x01\x00\x00\x00acos\nsystem\n" + text + b"\x85Rs.",
        "build": b"\x80\x02ccollections\nOrderedDict\n)Rcos\nsystem\n" + text + b"\x85Rb.",
        "attribute": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2.__globals__\n.",
        "eval": b'c__builtin__\neval\n(S\'__import__("os").system("' + command + b"\")'\ntR.",
        "extension": b"\x80\x02\x82\x01.",
    }


@pytest.mark.parametrize("wrap", [in_zip, in_legacy])
def test_hostile_pickles_end_in_one_sentence(tmp_path: Path, wrap: Callable[[bytes], bytes]) -> None:
    canary = tmp_path / "canary"
    for name, pickled in hostile(canary).items():
        with pytest.raises(PickledCode, match="not loaded") as caught:
            read(wrap(pickled))
        assert "\n" not in str(caught.value), name
    assert not canary.exists()


def test_the_hostile_pickles_are_hostile(tmp_path: Path) -> None:
    """Without the protection, the canary is touched: the test above could fail."""
    canary = tmp_path / "canary"
    for name in ("reduce", "stack_global", "inst", "obj", "global", "beside tensors", "build", "eval"):
        pickled = hostile(canary)[name]
        child = [sys.executable, "-c", "import pickle, sys; pickle.load(sys.stdin.buffer)"]
        subprocess.run(child, input=pickled, check=False, capture_output=True, timeout=30)
        assert canary.exists(), name
        canary.unlink()


@pytest.mark.parametrize("wrap", [in_zip, in_legacy])
@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        b".",
        b"\x80\x02.",
        b"\x80\x02}",
        b"\x80\x02}.",
        b"\x80\x02K\x01.",
        b"\x80\x02]K\x01a.",
        b"\x80\x02(t(u.",
        b"\x80\x02h\x07.",
        b"\x80\x02N\x85Q.",
        b"\x80\x02}X\x01\x00\x00\x00aK\x01s.",
        b"\x80\x02}K\x01K\x01s.",
        b"\x80\x02" + b"N" + b"\x85" * 100_000 + b".",
        b"\x80\x02\x8a\xff" + b"\xff" * 10,
        b"\x80\x02X\xff\xff\xff\x7fa",
        b"\x80\x02r\xff\xff\xff\x7f.",
        b"\xff\xff",
    ],
    ids=lambda pickled: f"{pickled[:12]!r}",
)
def test_damaged_pickles_end_in_one_sentence(pickled: bytes, wrap: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ModelError) as caught:
        read(wrap(pickled))
    assert "\n" not in str(caught.value)


def test_keys_are_texts_before_they_are_hashed() -> None:
    """The hash of a tuple so deep would exhaust the stack, and end the process."""
    with pytest.raises(UnreadableModel):
        read(in_zip(b"\x80\x02}" + b"N" + b"\x85" * 900_000 + b"K\x01s."))


def test_an_endless_pickle_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinned_pickle, "_MAX_OPCODES", 1000)
    with pytest.raises(SuspiciousModel, match="opcodes"):
        read(in_zip(b"\x80\x02" + b"N" * 2000 + b"."))


@FORMATS
def test_every_truncation_ends_in_one_sentence(zipped: bool) -> None:
    data = saved(OrderedDict(a=torch.ones(5), b=torch.tensor(3)), zipped=zipped)
    read(data)
    for length in range(0, len(data), 7):
        with pytest.raises(ModelError):
            read(data[:length])


@FORMATS
def test_every_flipped_byte_ends_in_one_sentence_or_in_numbers(zipped: bool) -> None:
    data = saved(OrderedDict(a=torch.ones(5), b=torch.tensor(3)), zipped=zipped)
    for index in range(len(data)):
        changed = data[:index] + bytes([data[index] ^ 0x15]) + data[index + 1 :]
        try:
            found = read(changed)
        except ModelError:
            continue
        assert all(isinstance(array, np.ndarray) for array in found.values())


def test_tensors_outside_their_storage_are_refused() -> None:
    def tensor(*parts: Any, size: int = 4) -> bytes:
        part = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
        part += pickle.dumps(size, 2)[2:-1] + b"tQ"
        numbers = b"".join(pickle.dumps(value, 2)[2:-1] for value in parts)
        call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + part + numbers + b"\x89ccollections\nOrderedDict\n)RtR"
        return b"\x80\x02}X\x01\x00\x00\x00a" + call + b"s."

    def file(pickled: bytes) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("archive/data.pkl", pickled)
            archive.writestr("archive/data/0", np.arange(4, dtype="<f4").tobytes())
        return buffer.getvalue()

    np.testing.assert_array_equal(read(file(tensor(1, (3,), (1,))))["a"], [1, 2, 3])
    for arguments in [
        (2, (3,), (1,)),
        (0, (2, 2), (3, 1)),
        (0, (5,), (1,)),
        (0, (10**9,), (0,)),
        (0, (2**62, 4), (0, 1)),
        (0, (2,), (2**61,)),
        (2**62, (1,), (1,)),
        (0, (2,), (1, 1)),
        (0, (1,) * 9, (1,) * 9),
    ]:
        with pytest.raises(UnreadableModel):
            read(file(tensor(*arguments)))
    with pytest.raises(UnreadableModel):
        read(file(tensor(0, (4,), (1,), size=5)))
    for others in [(-1, (2,), (1,)), (3, (2,), (-1,)), (0, (-2,), (1,)), (0, [2], (1,))]:
        with pytest.raises(PickledCode):
            read(file(tensor(*others)))


def test_compressed_entries_are_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10_000_000)
    with pytest.raises(SuspiciousModel, match="compressed"):
        read(buffer.getvalue())
