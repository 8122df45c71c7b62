"""Files of torch.save, read without PyTorch: the same tensors as PyTorch reads, and nothing executed."""

import argparse
import collections
import datetime
import io
import os
import pathlib
import pickle
import pickletools
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from resnet_service.errors import ModelError, StateDictMismatch, SuspiciousModel, UnreadableModel
from resnet_service.models.checkpoint import pickles, torch_files
from resnet_service.models.checkpoint.pickles import Object
from resnet_service.models.checkpoint.torch_files import StoredTensor, read_state_dict, read_torch_file
from tests.support.training import saved

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
OTHERS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]


def read(content: Any, **options: Any) -> Any:
    return read_torch_file(saved(content, **options), "the file").content


def array(tensor: Any) -> Any:
    assert isinstance(tensor, StoredTensor)
    return tensor.array("a tensor")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dtype", [*FLOATS, *OTHERS], ids=str)
def test_tensors_are_those_of_pytorch(dtype: torch.dtype, zipped: bool) -> None:
    torch.manual_seed(0)
    numbers = (torch.randn(3, 4, 5) * 100).to(dtype)
    # Strides, an offset, no dimensions, a parameter, and a storage that two tensors share.
    wanted = {"a": numbers, "b": numbers.transpose(0, 2)[1:, ::2], "c": numbers[2, 1, 3], "d": numbers[1]}
    if dtype in FLOATS:
        wanted["e"] = nn.Parameter(numbers)
    found = read(wanted, _use_new_zipfile_serialization=zipped)
    for name, tensor in wanted.items():
        expected = (tensor.float() if tensor.is_floating_point() else tensor).detach().numpy()
        assert np.array_equal(array(found[name]), expected), name
        assert array(found[name]).dtype == expected.dtype
        assert array(found[name]).flags.writeable


def test_a_negative_view_is_not_read_with_the_wrong_sign() -> None:
    with pytest.raises(UnreadableModel, match="holds more than tensors"):
        read_state_dict(saved({"a": torch._neg_view(torch.ones(2))}), "the file")


@pytest.mark.parametrize("content", [{}, {"a": torch.zeros(1), "epoch": 3}, [torch.zeros(1)], {3: torch.zeros(1)}])
def test_a_state_dict_holds_tensors_and_nothing_else(content: Any) -> None:
    state = read_state_dict(saved({"b": torch.ones(2), "a": torch.tensor(3)}), "the file")
    assert {key: value.tolist() for key, value in state.items()} == {"b": [1, 1], "a": 3}
    assert list(state) == ["b", "a"]
    with pytest.raises(UnreadableModel, match=r"the file holds (more than|no dict of) tensors"):
        read_state_dict(saved(content), "the file")


def test_a_file_of_a_big_endian_machine_is_read() -> None:
    numbers = np.arange(6, dtype=">f4")
    data = saved({"a": torch.arange(6, dtype=torch.float32)})
    swapped = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(swapped, "w") as new:
        for entry in old.namelist():
            content = old.read(entry)
            content = b"big" if entry.endswith("byteorder") else content
            new.writestr(entry, numbers.tobytes() if entry.endswith("data/0") else content)
    content = read_torch_file(swapped.getvalue(), "the file").content
    assert array(content["a"]).tolist() == [0, 1, 2, 3, 4, 5]


class Custom(collections.UserDict[str, int]):
    pass


def test_all_else_is_read_as_plain_values_or_names() -> None:
    content = {
        "number": 3,
        "list": [1, (2.5, "text", None, True)],
        "ordered": collections.OrderedDict(a=1),
        "default": collections.defaultdict(list, {"b": [1]}),
        "args": argparse.Namespace(model="resnet18", lr=0.1),
        "scalar": np.float64(0.5),
        "date": datetime.datetime(2024, 1, 1),
        "path": pathlib.PurePosixPath("/x"),
        "set": {1, 2},
        "custom": Custom(c=1),
        7: "seven",
    }
    found = read(content)
    assert (found["number"], found["list"], found[7]) == (3, [1, (2.5, "text", None, True)], "seven")
    assert (found["ordered"], found["default"]) == ({"a": 1}, {"b": [1]})
    assert found["args"].name == "argparse.Namespace"
    assert found["args"].state == {"model": "resnet18", "lr": 0.1}
    for name in ("scalar", "date", "path", "set", "custom"):
        assert isinstance(found[name], Object), name


def test_a_whole_model_is_read_without_its_class() -> None:
    found = read(nn.Sequential(nn.Linear(2, 3), nn.ReLU()))
    assert found.name == "torch.nn.modules.container.Sequential"
    linear = found.state["_modules"]["0"]
    assert array(linear.state["_parameters"]["weight"]).shape == (3, 2)


class Runs:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.canary}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_is_executed(tmp_path: Path, protocol: int) -> None:
    canary = tmp_path / "canary"
    data = pickle.dumps({"a": Runs(canary), "b": [1]}, protocol)
    content, names = read_torch_file(data, "the file")
    assert content["b"] == [1]
    assert content["a"].args == (f"touch {canary}",)
    assert f"{os.system.__module__}.system" in names
    assert not canary.exists()
    pickle.loads(data)  # noqa: S301 - the attack is real
    assert canary.exists()


ENTRIES = b"".join(b"M" + struct.pack("<H", number) + b"N" for number in range(50_000))


def nested(depth: int) -> list[Any]:
    """Return a list that holds the same list twice, and so on; its text has 2^depth brackets."""
    made: list[Any] = []
    for _ in range(depth):
        made = [made, made]
    return made


HOSTILE: dict[str, tuple[bytes, type[ModelError]]] = {
    "a key whose hash overflows the stack": (b"\x80\x02})" + b"\x85" * 900_000 + b"K\x01s.", SuspiciousModel),
    "a value that was never stored": (b"\x80\x02(h\x00t.", UnreadableModel),
    "opcodes without end": (b"\x80\x02" + b"N0" * 600_000 + b"N.", SuspiciousModel),
    "a dict copied 50,000 times": (
        b"\x80\x02}q\x00(" + ENTRIES + b"u" + b"ccollections\nOrderedDict\nh\x00\x85R0" * 50_000 + b".",
        SuspiciousModel,
    ),
    "an item for a number": (b"\x80\x02K\x01K\x02a.", UnreadableModel),
    "a key for a list": (b"\x80\x02]K\x00K\x01s.", UnreadableModel),
    "a key without a value": (b"\x80\x02}(K\x01u.", UnreadableModel),
    "a mark without end": (b"\x80\x02(.", UnreadableModel),
    "a name of two lines": (b"\x80\x04\x8c\x03os\n\x8c\x06system\x93.", UnreadableModel),
    "an unknown opcode": (b"\x80\x02\xff.", UnreadableModel),
    "nothing on the stack": (b"\x80\x02.", UnreadableModel),
    "an integer of 5,000 bytes": (pickle.dumps({1 << 40_000: 0}, 2), UnreadableModel),
    "a storage whose name is lists of lists": (
        b"\x80\x02}X\x01\x00\x00\x00a(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        + pickle.dumps(nested(27), 2)[2:-1]
        + b"X\x03\x00\x00\x00cpuK\x01tQs.",
        UnreadableModel,
    ),
    "a text of more bytes than the file": (b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"a.", UnreadableModel),
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE)
def test_hostile_pickles_are_refused(payload: tuple[bytes, type[ModelError]]) -> None:
    data, error = payload
    with pytest.raises(error, match=r"^the file ") as caught:
        read_torch_file(data, "the file")
    assert "\n" not in str(caught.value)


def is_unknown(opcode: str) -> bool:
    try:
        pickles.PickleReader(lambda name, args: None)._run(opcode, None)
    except pickles.PickleError as error:
        return "not known" in str(error)
    except (TypeError, LookupError, AttributeError):
        return False  # there is nothing on the stack that it needs
    return False


def test_every_opcode_is_known() -> None:
    assert not [opcode.name for opcode in pickletools.opcodes if is_unknown(opcode.name)]
    assert is_unknown("OTHER")


def test_containers_in_themselves_are_read() -> None:
    loop: list[Any] = []
    loop.append(loop)
    content = read_torch_file(pickle.dumps({"a": loop}), "the file").content
    assert content["a"][0] is content["a"]


def test_the_limits_are_those_of_the_reader_for_serving() -> None:
    """Regular files stay far below: the largest network of torchvision has 30,000 opcodes."""
    assert pickles.MAX_OPCODES == 1_000_000
    assert torch_files.MAX_ENTRIES == 20_000


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((3, 2), (2, 1), 1),
        ((7,), (1,), 0),
        ((2,), (6,), 0),
        ((10**9, 10**6), (0, 0), 0),
        ((0,), (1,), 0),
        ((1,), (1,), 6),
    ],
)
def test_no_tensor_reaches_beyond_its_storage(shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> None:
    (good,) = read([torch.arange(6.0)])
    tensor = StoredTensor(shape, strides, offset, good.storage, good.read_storage, "<")
    with pytest.raises(UnreadableModel, match="a tensor has no numbers, or more than its storage"):
        tensor.array("a tensor")


@pytest.mark.parametrize("size", [-1, 2**48, True, "3", 1.0])
def test_a_size_that_no_tensor_has_is_refused(size: Any) -> None:
    rebuild = torch_files._Rebuilder(lambda _: b"", "<")
    storage = torch_files._Storage("FloatStorage", "0", 1)
    for shape, strides in (((size,), (1,)), ((1,), (size,)), ((1, 1), (1,)), ((1,) * 9, (1,) * 9)):
        with pytest.raises(pickles.PickleError, match="valid shape"):
            rebuild.call("torch._utils._rebuild_tensor_v2", (storage, 0, shape, strides))


def test_a_flipped_bit_in_the_weights_is_noticed() -> None:
    """PyTorch does not compare the checksums of the zip archive."""
    data = bytearray(saved({"a": torch.full((1000,), 0.123)}))
    at = data.index(struct.pack("<f", 0.123) * 100)
    data[at + 50] ^= 1
    content = read_torch_file(bytes(data), "the file").content
    with pytest.raises(UnreadableModel, match="damaged"):
        content["a"].array("a")


def test_a_type_that_is_not_read_is_named() -> None:
    content = read({"a": torch.ones(2, dtype=torch.cfloat)})
    with pytest.raises(StateDictMismatch, match=r"a is of the type 'ComplexFloat'.*float32"):
        content["a"].array("a")


def test_truncated_legacy_files_are_refused() -> None:
    data = saved({"a": torch.ones(1000)}, _use_new_zipfile_serialization=False)
    for length in range(0, len(data), 50):
        with pytest.raises(ModelError):
            array(read_torch_file(data[:length], "the file").content["a"])
