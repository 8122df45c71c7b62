"""Files that try to execute code or to exhaust resources; library and server refuse each with one error."""

import io
import os
import pickle
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from resnet_service.errors import (
    BareStateDict,
    ModelError,
    PickledCode,
    StateDictMismatch,
    SuspiciousModel,
    UnreadableModel,
)
from resnet_service.export.conversion.options import ConvertOptions
from resnet_service.export.convert import convert
from resnet_service.models import architectures
from resnet_service.models.checkpoint import torch_files
from resnet_service.models.checkpoint.checkpoint import load_checkpoint
from resnet_service.models.checkpoint.safetensors import dump_arrays
from resnet_service.models.checkpoint.weights import needs_pytorch
from resnet_service.system.files import MAX_MODEL_BYTES
from tests.support.models import metadata, random_model
from tests.support.servers import cli


class Runs:
    """Creates a canary file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.canary}",)


def rewritten(source: Path, target: Path, change: Callable[[str, bytes], bytes], **options: Any) -> Path:
    """Copy a checkpoint's zip, changing entries on the way."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", **options) as new:
        for entry in old.namelist():
            new.writestr(entry, change(entry, old.read(entry)))
    return target


def reduce_in_zip(path: Path, canary: Path, checkpoint: Path) -> None:
    torch.save({"arch": "resnet18", "state_dict": Runs(canary)}, path)


def reduce_in_legacy(path: Path, canary: Path, checkpoint: Path) -> None:
    torch.save(Runs(canary), path, _use_new_zipfile_serialization=False)


def plain_pickle(path: Path, canary: Path, checkpoint: Path) -> None:
    path.write_bytes(pickle.dumps(Runs(canary)))


def global_in_data(path: Path, canary: Path, checkpoint: Path) -> None:
    payload = b"cos\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR."
    rewritten(checkpoint, path, lambda name, data: payload if name.endswith("data.pkl") else data)


def setitem_on_a_tensor(path: Path, canary: Path, checkpoint: Path) -> None:
    """The SETITEM of CVE-2026-24747: a dict's opcode applied to something other than a dict."""
    payload = b"\x80\x02]q\x00K\x00K\x01s."
    rewritten(checkpoint, path, lambda name, data: payload if name.endswith("data.pkl") else data)


def storages_cut(path: Path, canary: Path, checkpoint: Path) -> None:
    """Storages shorter than the pickle says they are."""
    rewritten(checkpoint, path, lambda name, data: data[:8] if "/data/" in name else data)


def legacy_storage_of_a_petabyte(path: Path, canary: Path, checkpoint: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"weight": torch.ones(12345)}, buffer, _use_new_zipfile_serialization=False)
    numel = b"M" + struct.pack("<H", 12345)
    assert numel in buffer.getvalue()
    path.write_bytes(buffer.getvalue().replace(numel, b"\x8a\x08" + struct.pack("<q", 1 << 48)))


def virtual_tensor(path: Path, canary: Path, checkpoint: Path) -> None:
    """One stored number that claims to be a tensor of 10^15, by a stride of zero."""
    state = {**random_model().state_dict(), "fc.weight": torch.zeros(1).expand(10**9, 10**6)}
    torch.save({"arch": "resnet18", "num_classes": 10, "input_size": 64, "state_dict": state}, path)


def one_storage_in_many_tensors(path: Path, canary: Path, checkpoint: Path) -> None:
    """A megabyte as a thousand tensors, each of which would become an array of its own."""
    weight = torch.zeros(250_000)
    torch.save({f"fc.{index}": weight.view(250_000) for index in range(1000)}, path)


def flipped(path: Path, canary: Path, checkpoint: Path) -> None:
    """One bit of the weights, which PyTorch does not notice."""
    data = bytearray(checkpoint.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def storage_of_no_file(path: Path, canary: Path, checkpoint: Path) -> None:
    """A tensor in a plain pickle, which has no storages."""
    storage = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x03tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00K\x03\x85K\x01\x85tR"
    path.write_bytes(b"\x80\x02}U\x01a" + tensor + b"s.")


def compressed(path: Path, canary: Path, checkpoint: Path) -> None:
    """One compressed entry, whose declared size is smaller than the file."""
    rewritten(checkpoint, path, lambda name, data: data)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("archive/data/extra", os.urandom(1000))


def many_entries(path: Path, canary: Path, checkpoint: Path) -> None:
    with zipfile.ZipFile(path, "w") as bomb:
        for index in range(torch_files.MAX_ENTRIES + 1):
            bomb.writestr(f"a/data/{index}", b"")


def overlapping(path: Path, canary: Path, checkpoint: Path) -> None:
    """Two directory entries that are the same bytes: more bytes declared than the file has (Fifield's zip bomb)."""
    with zipfile.ZipFile(path, "w") as bomb:
        bomb.writestr("a/data.pkl", b"\x80\x02}.")
        bomb.writestr("a/data/0", bytes(1_000_000))
        twin = zipfile.ZipInfo("a/data/1")
        twin.header_offset, twin.file_size, twin.compress_size = 0, 1_000_000, 1_000_000
        twin.CRC = bomb.getinfo("a/data/0").CRC
        bomb.filelist.append(twin)


def torchscript(path: Path, canary: Path, checkpoint: Path) -> None:
    with zipfile.ZipFile(path, "w") as script:
        script.writestr("model/constants.pkl", b"\x80\x02).")
        script.writestr("model/data.pkl", b"\x80\x02).")


def empty(path: Path, canary: Path, checkpoint: Path) -> None:
    path.touch()


def text(path: Path, canary: Path, checkpoint: Path) -> None:
    path.write_text("not a model\n" * 100)


def only_a_zip_magic(path: Path, canary: Path, checkpoint: Path) -> None:
    path.write_bytes(b"PK\x03\x04" + bytes(1000))


def half(path: Path, canary: Path, checkpoint: Path) -> None:
    data = checkpoint.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def without_its_end(path: Path, canary: Path, checkpoint: Path) -> None:
    path.write_bytes(checkpoint.read_bytes()[:-30])


def deep_nesting(path: Path, canary: Path, checkpoint: Path) -> None:
    payload = b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."
    rewritten(checkpoint, path, lambda name, data: payload if name.endswith("data.pkl") else data)


def tuples_as_keys(path: Path, canary: Path, checkpoint: Path) -> None:
    """A key whose hash Python computes by recursion without a limit, which overflows the stack of the process."""
    payload = b"\x80\x02})" + b"\x85" * 900_000 + b"K\x01s."
    rewritten(checkpoint, path, lambda name, data: payload if name.endswith("data.pkl") else data)


def copies(path: Path, canary: Path, checkpoint: Path) -> None:
    """A dict of many entries, copied by every few opcodes."""
    entries = b"".join(b"M" + struct.pack("<H", number) + b"N" for number in range(50_000))
    copy = b"ccollections\nOrderedDict\nh\x00\x85R0"
    payload = b"\x80\x02}q\x00(" + entries + b"u" + copy * 50_000 + b"."
    rewritten(checkpoint, path, lambda name, data: payload if name.endswith("data.pkl") else data)


def two_pickles(path: Path, canary: Path, checkpoint: Path) -> None:
    """Two entries of one name, of which one reader takes the first and another the second."""
    rewritten(checkpoint, path, lambda name, data: data)
    with zipfile.ZipFile(path, "a") as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        with warnings.catch_warnings(action="ignore"):
            archive.writestr(name, b"\x80\x02}.")


ATTACKS: dict[Callable[[Path, Path, Path], None], type[ModelError]] = {
    reduce_in_zip: PickledCode,
    reduce_in_legacy: PickledCode,
    plain_pickle: PickledCode,
    global_in_data: PickledCode,
    setitem_on_a_tensor: UnreadableModel,
    storages_cut: UnreadableModel,
    legacy_storage_of_a_petabyte: UnreadableModel,
    virtual_tensor: UnreadableModel,
    one_storage_in_many_tensors: SuspiciousModel,
    flipped: UnreadableModel,
    storage_of_no_file: UnreadableModel,
    compressed: SuspiciousModel,
    many_entries: SuspiciousModel,
    overlapping: SuspiciousModel,
    torchscript: PickledCode,
    empty: UnreadableModel,
    text: UnreadableModel,
    only_a_zip_magic: UnreadableModel,
    half: UnreadableModel,
    without_its_end: UnreadableModel,
    deep_nesting: UnreadableModel,
    tuples_as_keys: SuspiciousModel,
    copies: SuspiciousModel,
    two_pickles: SuspiciousModel,
}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_the_attack_is_refused_and_nothing_ran(
    tmp_path: Path, checkpoint: Path, attack: Callable[[Path, Path, Path], None]
) -> None:
    path, canary = tmp_path / "evil.pth", tmp_path / "canary"
    attack(path, canary, checkpoint)
    with pytest.raises(ATTACKS[attack], match=r"evil\.pth") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert not canary.exists()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_conversion_refuses_the_attack_and_nothing_ran(
    tmp_path: Path, checkpoint: Path, attack: Callable[[Path, Path, Path], None]
) -> None:
    path, canary = tmp_path / "evil.pth", tmp_path / "canary"
    attack(path, canary, checkpoint)
    with pytest.raises(ModelError, match=r"evil\.pth") as caught:
        convert(path, tmp_path / "model.safetensors")
    assert "\n" not in str(caught.value)
    assert not canary.exists()
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
@pytest.mark.slow
def test_the_server_ends_with_one_line(
    tmp_path: Path, checkpoint: Path, attack: Callable[[Path, Path, Path], None]
) -> None:
    path, canary = tmp_path / "evil.pth", tmp_path / "canary"
    attack(path, canary, checkpoint)
    done = cli("serve", "--checkpoint", path, "--port", "0")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert not canary.exists()


def test_the_canary_works(tmp_path: Path, checkpoint: Path) -> None:
    """The attacks are real: without the protection, the file runs its code."""
    path, canary = tmp_path / "evil.pth", tmp_path / "canary"
    reduce_in_zip(path, canary, checkpoint)
    torch.load(path, weights_only=False)
    assert canary.exists()


def test_a_name_that_is_not_used_is_refused_too(tmp_path: Path, checkpoint: Path) -> None:
    """A call whose result is thrown away, before the content of a regular checkpoint."""
    payload = b"cos\nsystem\n(S'true'\ntR0"
    path = rewritten(
        checkpoint,
        tmp_path / "evil.pth",
        lambda name, data: data[:2] + payload + data[2:] if name.endswith("data.pkl") else data,
    )
    with pytest.raises(PickledCode, match=r"os\.system"):
        load_checkpoint(path)


def test_the_choice_of_a_runtime_takes_no_memory_for_a_text_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    path.write_bytes(b"\x80\x04\x8d" + struct.pack("<Q", 1 << 50) + b"a.")
    with pytest.raises(UnreadableModel, match="damaged"):
        needs_pytorch(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_storage_is_read_once(tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a file of two large storages, and thousands of small tensors in them, would be read for hours."""
    storages = torch.zeros(1000), torch.zeros(1000)
    state = {str(index): storages[index % 2][index : index + 1] for index in range(100)}
    torch.save(state, tmp_path / "model.pth", _use_new_zipfile_serialization=zipped)
    read: list[Any] = []
    name = "_read_entry" if zipped else "_read_at"
    original = getattr(torch_files, name)

    def counted(*given: Any) -> bytes:
        read.append(given[1])
        data: bytes = original(*given)
        return data

    monkeypatch.setattr(torch_files, name, counted)
    with pytest.raises(BareStateDict):
        load_checkpoint(tmp_path / "model.pth")
    assert len(read) == len(set(read)) >= 2


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.pth"
    with path.open("wb") as sparse:
        sparse.truncate(MAX_MODEL_BYTES + 1)
    with pytest.raises(SuspiciousModel, match="limit"):
        load_checkpoint(path)


def test_the_refusal_of_a_pickled_model_names_the_command_to_convert_it(tmp_path: Path) -> None:
    torch.save(random_model(), tmp_path / "whole.pth")
    with pytest.raises(PickledCode, match=r"torchvision\.models\.resnet.*resnet-service convert .*whole\.pth"):
        load_checkpoint(tmp_path / "whole.pth")


def test_a_trusted_pickled_model_is_converted(tmp_path: Path) -> None:
    model = random_model()
    torch.save(model, tmp_path / "whole.pth")
    options = ConvertOptions(arch="resnet18", input_size=64, trust_pickle=True)
    convert(tmp_path / "whole.pth", tmp_path / "model.pth", options)
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(load_checkpoint(tmp_path / "model.pth").model(image), model(image))


def test_a_trusted_pickle_runs_in_a_child_process(tmp_path: Path) -> None:
    class Poisons:
        def __reduce__(self) -> Any:
            return exec, ("import sys; sys.modules['resnet_service.poisoned'] = sys",)

    torch.save({"state_dict": Poisons()}, tmp_path / "evil.pth")
    with pytest.raises(ModelError):
        convert(tmp_path / "evil.pth", tmp_path / "model.pth", ConvertOptions(arch="resnet18", trust_pickle=True))
    assert "resnet_service.poisoned" not in sys.modules


def test_a_pickled_model_without_its_code_is_refused(tmp_path: Path) -> None:
    payload = b"cno_such_module\nNet\n."
    (tmp_path / "whole.pth").write_bytes(b"")
    torch.save({"a": 1}, tmp_path / "base.pth")
    rewritten(
        tmp_path / "base.pth",
        tmp_path / "whole.pth",
        lambda name, data: payload if name.endswith("data.pkl") else data,
    )
    with pytest.raises(PickledCode, match=r"no_such_module.*training code"):
        convert(tmp_path / "whole.pth", tmp_path / "model.pth", ConvertOptions(arch="resnet18", trust_pickle=True))


def test_no_other_module_may_execute_a_file() -> None:
    for path in Path("src").rglob("*.py"):
        source = path.read_text()
        for forbidden in ("torch.load", "weights_only", "jit.load", "torch.package", "pickle.load", "add_safe_globals"):
            assert forbidden not in source or path.name == "unpickle.py", f"{forbidden} in {path}"


def test_a_small_file_that_names_a_large_network_takes_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights are compared with the architecture before the network, of gigabytes, is built."""
    facts = metadata(arch="timm/vit_gigantic_patch14_224", num_classes=2, input_size=224, resize_size=224)
    path = tmp_path / "model.safetensors"
    path.write_bytes(dump_arrays(facts.model_dump(mode="json"), {"head.bias": np.zeros(2, np.float32)}))

    def fail(*_: object) -> None:
        raise AssertionError("the network was built")

    monkeypatch.setattr(architectures, "build", fail)
    with pytest.raises(StateDictMismatch, match="does not fit timm/vit_gigantic"):
        load_checkpoint(path)
