"""Checkpoints of the format safetensors: written, read with and without PyTorch, and read as the library reads them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from resnet_service.errors import BareStateDict, ClassCountMismatch, InvalidMetadata, StateDictMismatch
from resnet_service.export.conversion.options import ConvertOptions
from resnet_service.export.convert import convert
from resnet_service.models.checkpoint.checkpoint import load_checkpoint, save_checkpoint
from resnet_service.models.checkpoint.safetensors import dump_arrays, load_arrays
from resnet_service.models.checkpoint.weights import read_weights, record_evaluation
from resnet_service.models.discovery import choose_model
from resnet_service.models.labels import read_label_set
from resnet_service.models.metadata import EvaluationRecord, Provenance
from resnet_service.system.files import sha256_of
from tests.support.models import metadata, random_checkpoint, random_model
from tests.support.servers import REPOSITORY, cli, cli_here, hidden

MODEL = random_model()
SHIPPED = REPOSITORY / "checkpoints" / "resnet18-fashion-mnist.safetensors"
IMAGES = REPOSITORY / "tests" / "data" / "fashion-mnist"
RECORD = EvaluationRecord(dataset="d", sha256="0" * 64, pictures=3, top1=50, top5=100, calibration_error=0.1)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_checkpoint(MODEL, tmp_path / "model.safetensors", metadata())
    return tmp_path / "model.safetensors"


def bare(path: Path, **changes: torch.Tensor) -> Path:
    """Write a file as the library does, without this package's metadata, as those of timm and Hugging Face are."""
    safetensors.torch.save_file({**MODEL.state_dict(), **changes}, path, metadata={"format": "pt"})
    return path


def same_weights(one: Mapping[str, torch.Tensor], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(tensor, torch.tensor(other[key]))
        if isinstance(other[key], np.ndarray)
        else torch.equal(tensor, other[key])
        for key, tensor in one.items()
    )


def test_a_saved_checkpoint_loads(tmp_path: Path) -> None:
    _, reference = read_label_set(Path("labels/imagenet1k.json"))
    facts = metadata(labels=reference, provenance=Provenance(source="猫, a test"), mean=(0.1, 0.2, 0.3))
    path = tmp_path / "new" / "model.safetensors"
    save_checkpoint(MODEL, path, facts)
    loaded = load_checkpoint(path)
    assert loaded.metadata.model_copy(update={"library_versions": {}}) == facts
    assert loaded.metadata.library_versions["torch"] == torch.__version__
    assert loaded.sha256 == sha256_of(path.read_bytes())
    assert same_weights(MODEL.state_dict(), loaded.model.state_dict())
    read = read_weights(path)
    assert (read.metadata, read.sha256) == (loaded.metadata, loaded.sha256)
    assert same_weights(MODEL.state_dict(), read.state)


def test_the_loaded_network_is_independent_of_the_file(saved: Path) -> None:
    """The arrays are views of read-only memory, which a training step would write to."""
    loaded = load_checkpoint(saved)
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter.add_(1)


def test_the_library_reads_what_we_write(saved: Path) -> None:
    assert same_weights(MODEL.state_dict(), safetensors.torch.load_file(saved))
    with safetensors.safe_open(saved, "np") as file:
        assert file.metadata()["format"] == "pt"
        assert json.loads(file.metadata()["resnet_service"])["arch"] == "resnet18"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_halves_the_file_and_is_widened(saved: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    save_checkpoint(MODEL, tmp_path / "half.safetensors", metadata(), dtype=dtype)
    rounded = {
        key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in MODEL.state_dict().items()
    }
    assert same_weights(rounded, safetensors.torch.load_file(tmp_path / "half.safetensors"))
    widened = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in rounded.items()}
    assert same_weights(widened, load_checkpoint(tmp_path / "half.safetensors").model.state_dict())
    assert (tmp_path / "half.safetensors").stat().st_size < 0.52 * saved.stat().st_size


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64])
def test_we_read_what_the_library_writes(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    # The odd number of bytes before it makes an array unaligned.
    state = {"a": (torch.randn(3, 1, 5) * 100).to(dtype), "b": torch.tensor(3).to(dtype), "c": torch.ones(1).half()}
    own, arrays = load_arrays(safetensors.torch.save(state), "the file")
    assert own == {}
    wanted = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    assert same_weights(wanted, arrays)
    assert {array.dtype for array in arrays.values()} <= {np.dtype("float32"), np.dtype("int64")}


def test_our_bytes_are_those_of_the_library() -> None:
    """But for the spaces and the order within the header, which the format leaves open."""
    state = {"fc.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(3), "h": np.ones(3, np.float16)}
    ours = safetensors.numpy.load(dump_arrays({}, state))
    theirs = safetensors.numpy.load(safetensors.numpy.save(state))
    for key, array in state.items():
        assert np.array_equal(ours[key], array)
        assert ours[key].dtype == theirs[key].dtype


def test_a_type_that_no_reader_takes_is_not_written() -> None:
    with pytest.raises(StateDictMismatch, match="mask has the type bool"):
        dump_arrays({}, {"mask": np.ones(3, np.bool_)})


def test_a_model_that_does_not_fit_its_metadata_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ClassCountMismatch):
        save_checkpoint(MODEL, tmp_path / "model.safetensors", metadata(num_classes=11))
    assert list(tmp_path.iterdir()) == []


def test_a_bare_state_dict_loads_with_its_architecture(tmp_path: Path) -> None:
    path = bare(tmp_path / "bare.safetensors")
    with pytest.raises(BareStateDict, match=r"give --arch resnet18.*resnet-service convert .* --arch resnet18"):
        load_checkpoint(path)
    for loaded in (load_checkpoint(path, arch="resnet18"), read_weights(path, arch="resnet18")):
        assert (loaded.metadata.num_classes, loaded.metadata.input_size) == (10, 224)


def test_the_content_decides_whatever_the_name(tmp_path: Path) -> None:
    assert load_checkpoint(bare(tmp_path / "bare.bin"), arch="resnet18").metadata.num_classes == 10


def test_prefixes_of_wrappers_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "wrapped.safetensors"
    state = {f"module._orig_mod.{key}": tensor for key, tensor in MODEL.state_dict().items()}
    safetensors.torch.save_file(state, path)
    assert same_weights(MODEL.state_dict(), load_checkpoint(path, arch="resnet18").model.state_dict())
    assert same_weights(MODEL.state_dict(), read_weights(path, arch="resnet18").state)


def test_given_metadata_must_agree_with_the_file(saved: Path) -> None:
    for read in (load_checkpoint, read_weights):
        read(saved, arch="resnet18")
        with pytest.raises(InvalidMetadata, match="arch='resnet18', but 'resnet34' was given"):
            read(saved, arch="resnet34")


def test_each_format_converts_to_the_other(checkpoint: Path, tmp_path: Path) -> None:
    there, back = tmp_path / "there.safetensors", tmp_path / "back.pth"
    done = cli_here("convert", checkpoint, there)
    assert done.stderr.startswith(f"Wrote {there}: resnet18, 10 classes, 64 pixels from 72, bilinear, ")
    convert(there, back)
    assert same_weights(load_checkpoint(checkpoint).model.state_dict(), read_weights(there).state)
    assert same_weights(load_checkpoint(checkpoint).model.state_dict(), load_checkpoint(back).model.state_dict())
    facts = [load_checkpoint(back).metadata, load_checkpoint(checkpoint).metadata, read_weights(there).metadata]
    facts = [one.model_copy(update={"library_versions": {}}) for one in facts]
    assert facts[0] == facts[1] == facts[2]
    convert(bare(tmp_path / "bare.safetensors"), there, ConvertOptions(arch="resnet18", input_size=96))
    assert read_weights(there).metadata.input_size == 96


def test_it_is_exported_and_found(tmp_path: Path) -> None:
    path = random_checkpoint(tmp_path / "model.safetensors")
    assert choose_model(None, tmp_path) == path
    done = cli_here("export", path)
    assert done.returncode == 0, done.stderr
    assert choose_model(None, tmp_path) == tmp_path / "model.onnx"


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
def test_inspect_says_the_same_without_pytorch(name: str, tmp_path: Path) -> None:
    path = random_checkpoint(tmp_path / name)
    done = cli("inspect", path, "--json", PYTHONPATH=hidden(tmp_path / "hidden"))
    here = cli_here("inspect", path, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == here.stderr == ""
    assert json.loads(done.stdout) == json.loads(here.stdout)


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
def test_inspect_says_what_only_pytorch_could_compare(name: str, tmp_path: Path) -> None:
    path = random_checkpoint(tmp_path / name, arch="timm/test_resnet")
    done = cli("inspect", path, "--json", PYTHONPATH=hidden(tmp_path / "hidden"))
    here = cli_here("inspect", path, "--json")
    assert done.returncode == 0, done.stderr
    assert "names and shapes of the weights were not compared" in done.stderr
    assert here.stderr == ""
    assert json.loads(done.stdout) == json.loads(here.stdout)


def test_inspect_compares_the_weights_with_the_architecture(tmp_path: Path) -> None:
    changed = {key: tensor.numpy() for key, tensor in MODEL.state_dict().items() if key != "layer2.0.conv1.weight"}
    path = tmp_path / "model.safetensors"
    path.write_bytes(dump_arrays(metadata().model_dump(mode="json"), changed))
    done = cli_here("inspect", path)
    assert done.returncode == 1
    assert "does not fit resnet18: missing: layer2.0.conv1.weight" in done.stderr


def test_without_pytorch_a_sentence_names_the_extra(tmp_path: Path) -> None:
    other = random_checkpoint(tmp_path / "model.safetensors", arch="timm/test_resnet")
    old = random_checkpoint(tmp_path / "model.pth", arch="timm/test_resnet")
    commands: list[list[str | Path]] = [
        ["serve", "--checkpoint", other, "--port", "0"],
        ["export", other],
        ["serve", "--checkpoint", old, "--port", "0"],
        ["export", old],
    ]
    for command in commands:
        done = cli(*command, PYTHONPATH=hidden(tmp_path / "hidden"))
        assert done.returncode == 1, command
        assert done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith("error: ")
        assert "the extra torch" in done.stderr
    done = cli("inspect", bare(tmp_path / "bare.safetensors"), PYTHONPATH=hidden(tmp_path / "hidden"))
    assert "bare state_dict" in done.stderr
    assert "--arch resnet18" in done.stderr


def test_reading_imports_no_pytorch(saved: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from resnet_service.models.checkpoint.weights import read_weights; "
        f"read_weights(Path({str(saved)!r})); print({{'torch', 'onnx', 'safetensors'}} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "set()\n"


def test_an_evaluation_is_recorded_and_the_weights_stay(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    save_checkpoint(MODEL, path, metadata(), dtype=torch.float16)
    before = safetensors.torch.load_file(path)
    for top1 in (50, 60):
        record_evaluation(path, RECORD.model_copy(update={"top1": top1}))
    read = read_weights(path)
    assert [one.top1 for one in read.metadata.evaluations] == [60]
    assert same_weights(before, safetensors.torch.load_file(path))
    assert list(tmp_path.iterdir()) == [path]


def test_evaluate_records_in_it(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    shutil.copy(SHIPPED, path)
    done = cli_here("evaluate", path, IMAGES, "--record", "--labels", REPOSITORY / "labels" / "fashion-mnist.json")
    assert done.returncode == 0, done.stderr
    # In place of the record of the same name, which is of 10,000 images.
    assert [one.pictures for one in read_weights(path).metadata.evaluations] == [200]
