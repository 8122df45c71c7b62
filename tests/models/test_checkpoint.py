import resource
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from resnet_service.errors import (
    BareStateDict,
    ClassCountMismatch,
    InvalidMetadata,
    ModelFileNotFound,
    NonFiniteWeights,
    StateDictMismatch,
    UnknownArchitecture,
    UnreadableModel,
)
from resnet_service.export.conversion.options import ConvertOptions
from resnet_service.export.convert import convert
from resnet_service.models.checkpoint.checkpoint import load_checkpoint, save_checkpoint
from resnet_service.models.checkpoint.weights import read_weights, record_evaluation
from resnet_service.models.labels import read_label_set
from resnet_service.models.metadata import IMAGENET_STD, EvaluationRecord, Provenance
from resnet_service.system.files import sha256_of
from tests.support.models import metadata, random_checkpoint, random_model
from tests.support.servers import cli_here

MODEL = random_model()
IMAGE = torch.rand(1, 3, 64, 64)
CLASSIC: dict[str, Any] = {"arch": "resnet18", "num_classes": 10, "input_size": 64}


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def answers_as_before(path: Path, tolerance: float = 0.0, **given: Any) -> bool:
    with torch.inference_mode():
        return torch.allclose(load_checkpoint(path, **given).model(IMAGE), MODEL(IMAGE), rtol=0, atol=tolerance)


def test_a_saved_checkpoint_loads(tmp_path: Path) -> None:
    _, reference = read_label_set(Path("labels/imagenet1k.json"))
    facts = metadata(labels=reference, provenance=Provenance(source="a test"), mean=(0.1, 0.2, 0.3))
    save_checkpoint(MODEL, tmp_path / "new" / "model.pth", facts)
    loaded = load_checkpoint(tmp_path / "new" / "model.pth")
    assert loaded.metadata.model_copy(update={"library_versions": {}}) == facts
    assert loaded.metadata.library_versions["torch"] == torch.__version__
    assert loaded.sha256 == sha256_of((tmp_path / "new" / "model.pth").read_bytes())
    assert not loaded.model.training
    assert answers_as_before(tmp_path / "new" / "model.pth")


def test_the_file_is_one_dict_with_the_classic_keys(checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    assert {"arch", "state_dict", "num_classes", "input_size"} < content.keys()
    assert content["state_dict"].keys() == MODEL.state_dict().keys()


def test_the_four_classic_keys_suffice(tmp_path: Path) -> None:
    path = saved(tmp_path / "classic.pth", {**CLASSIC, "state_dict": MODEL.state_dict()})
    assert answers_as_before(path)
    assert load_checkpoint(path).metadata.std == IMAGENET_STD


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_removed(tmp_path: Path, prefix: str) -> None:
    state = {prefix + key: tensor for key, tensor in MODEL.state_dict().items()}
    assert answers_as_before(saved(tmp_path / "wrapped.pth", {**CLASSIC, "state_dict": state}))


def test_a_real_data_parallel_model_is_saved_clean(tmp_path: Path) -> None:
    save_checkpoint(nn.DataParallel(MODEL), tmp_path / "model.pth", metadata())
    assert answers_as_before(tmp_path / "model.pth")


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.02), (torch.bfloat16, 0.2)])
def test_half_precision_is_widened_and_halves_the_file(tmp_path: Path, dtype: torch.dtype, tolerance: float) -> None:
    save_checkpoint(MODEL, tmp_path / "half.pth", metadata(), dtype=dtype)
    save_checkpoint(MODEL, tmp_path / "full.pth", metadata())
    model = load_checkpoint(tmp_path / "half.pth").model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert answers_as_before(tmp_path / "half.pth", tolerance)
    assert (tmp_path / "half.pth").stat().st_size < 0.52 * (tmp_path / "full.pth").stat().st_size


def test_a_bare_state_dict_loads_with_its_architecture(tmp_path: Path) -> None:
    path = saved(tmp_path / "bare.pth", MODEL.state_dict())
    assert answers_as_before(path, arch="resnet18")
    assert load_checkpoint(path, arch="resnet18").metadata.num_classes == 10


def test_the_error_of_a_bare_state_dict_suggests_an_architecture(tmp_path: Path) -> None:
    path = saved(tmp_path / "bare.pth", MODEL.state_dict())
    with pytest.raises(BareStateDict, match=r"give --arch resnet18.*resnet-service convert .* --arch resnet18"):
        load_checkpoint(path)
    with pytest.raises(BareStateDict, match="--arch NAME"):
        load_checkpoint(saved(path, {"weight": torch.zeros(1)}))


def test_legacy_files_from_before_zip_load(tmp_path: Path) -> None:
    torch.save({**CLASSIC, "state_dict": MODEL.state_dict()}, tmp_path / "old", _use_new_zipfile_serialization=False)
    assert answers_as_before(tmp_path / "old")


def test_old_files_without_batch_counters_load(tmp_path: Path) -> None:
    state = {key: value for key, value in MODEL.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert answers_as_before(saved(tmp_path / "old.pth", {**CLASSIC, "state_dict": state}))


def changed(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    state = {**MODEL.state_dict(), **{key.replace("__", "."): value for key, value in changes.items()}}
    return {key: value for key, value in state.items() if value is not None}


def quantized() -> torch.Tensor:
    with warnings.catch_warnings(action="ignore"):  # they are deprecated
        return torch.quantize_per_tensor(torch.ones(10), 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ({**CLASSIC, "state_dict": changed(conv1__weight=None)}, StateDictMismatch, r"missing: conv1\.weight"),
        ({**CLASSIC, "state_dict": changed(extra=torch.ones(1))}, StateDictMismatch, "unexpected: extra"),
        (
            {**CLASSIC, "state_dict": changed(conv1__weight=torch.ones(64, 1, 7, 7))},
            StateDictMismatch,
            r"conv1\.weight \[64, 1, 7, 7\] instead of \[64, 3, 7, 7\]",
        ),
        ({**CLASSIC, "arch": "resnet34", "state_dict": changed()}, StateDictMismatch, "and .* more"),
        ({**CLASSIC, "num_classes": 12, "state_dict": changed()}, ClassCountMismatch, r"12.*fc\.\w+.* 10 rows"),
        ({**CLASSIC, "state_dict": changed(fc__bias=torch.full((10,), torch.nan))}, NonFiniteWeights, r"fc\.bias"),
        (
            {**CLASSIC, "state_dict": changed(bn1__running_var=torch.full((64,), torch.inf))},
            NonFiniteWeights,
            r"bn1\.running_var",
        ),
        ({**CLASSIC, "arch": "resnet19", "state_dict": changed()}, UnknownArchitecture, "resnet18"),
        ({**CLASSIC, "arch": "googlenet", "state_dict": changed()}, UnknownArchitecture, "googlenet"),
        ({**CLASSIC, "arch": "timm/resnet19", "state_dict": changed()}, UnknownArchitecture, "timm"),
        ({**CLASSIC, "epoch": 3, "state_dict": changed()}, InvalidMetadata, "epoch.*resnet-service convert"),
        ({**CLASSIC, "input_size": -1, "state_dict": changed()}, InvalidMetadata, "input_size"),
        ({"arch": "resnet18", "state_dict": changed()}, InvalidMetadata, "num_classes"),
        ({**CLASSIC, "state_dict": {}}, UnreadableModel, "no weights"),
        ({**CLASSIC, "state_dict": [1, 2]}, UnreadableModel, "no weights"),
        ({**CLASSIC, "state_dict": {"fc.weight": "text"}}, UnreadableModel, r"fc\.weight"),
        ({**CLASSIC, "state_dict": {3: torch.ones(1)}}, UnreadableModel, "3"),
        ({**CLASSIC, "state_dict": changed(fc__bias=torch.ones(10).to_sparse())}, StateDictMismatch, "sparse"),
        ({**CLASSIC, "state_dict": changed(fc__bias=torch.ones(10, dtype=torch.cfloat))}, StateDictMismatch, "complex"),
        (
            {**CLASSIC, "state_dict": changed(fc__bias=quantized())},
            StateDictMismatch,
            "quantized",
        ),
        ({**CLASSIC, "state_dict": changed(fc__bias=torch.ones(10, dtype=torch.uint16))}, StateDictMismatch, "rare"),
        ({}, UnreadableModel, "no weights"),
        ([1, 2], UnreadableModel, "a list"),
        (torch.ones(3), UnreadableModel, "a Tensor"),
        ("text", UnreadableModel, "a str"),
    ],
)
def test_each_failure_has_its_class_and_its_message(
    tmp_path: Path, content: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        load_checkpoint(saved(tmp_path / "model.pth", content))
    assert "model.pth" in str(caught.value) or error is UnknownArchitecture
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_the_command_that_fetches_one(tmp_path: Path) -> None:
    with pytest.raises(ModelFileNotFound, match="resnet-service pull"):
        load_checkpoint(tmp_path / "nothing.pth")


def test_given_metadata_must_agree_with_the_file(checkpoint: Path) -> None:
    load_checkpoint(checkpoint, arch="resnet18", mean=(0.485, 0.456, 0.406))
    with pytest.raises(InvalidMetadata, match="arch='resnet18', but 'resnet34' was given"):
        load_checkpoint(checkpoint, arch="resnet34")


def test_a_checkpoint_that_would_not_load_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ClassCountMismatch):
        save_checkpoint(MODEL, tmp_path / "model.pth", metadata(num_classes=11))
    assert list(tmp_path.iterdir()) == []


@contextmanager
def small_files() -> Iterator[None]:
    """Limit the files of this process to a megabyte. Python ignores the signal, so a longer write fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
def test_a_full_disk_leaves_the_old_file_whole(tmp_path: Path, checkpoint: Path, name: str) -> None:
    """test_faults.py does the same to another process."""
    path = tmp_path / name
    path.write_bytes(checkpoint.read_bytes())
    with small_files():
        done = cli_here("convert", checkpoint, path)
    assert done.returncode == 1
    assert done.stderr == f"error: {path} cannot be written: File too large.\n"
    assert path.read_bytes() == checkpoint.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_a_training_checkpoint_is_converted(tmp_path: Path, key: str) -> None:
    optimizer = torch.optim.SGD(MODEL.parameters(), 0.1)
    content = {"epoch": 3, "arch": "resnet18", key: MODEL.state_dict(), "optimizer": optimizer.state_dict()}
    convert(saved(tmp_path / "training.pth", content), tmp_path / "model.pth", ConvertOptions(input_size=64))
    assert answers_as_before(tmp_path / "model.pth")


def test_a_bare_state_dict_is_converted_with_labels(tmp_path: Path) -> None:
    labels = tmp_path / "digits.json"
    labels.write_text(LABELS)
    bare = saved(tmp_path / "bare.pth", MODEL.state_dict())
    convert(bare, tmp_path / "model.pth", ConvertOptions(arch="resnet18", label_file=labels))
    loaded = load_checkpoint(tmp_path / "model.pth")
    assert loaded.metadata.labels == read_label_set(labels)[1]
    options = ConvertOptions(arch="resnet18", label_file=Path("labels/imagenet1k.json"))
    with pytest.raises(ClassCountMismatch, match="1000 classes"):
        convert(bare, tmp_path / "other.pth", options)
    assert not (tmp_path / "other.pth").exists()


LABELS = (
    '{"name": "digits", "classes": ['
    + ", ".join(f'{{"index": {digit}, "name": "digit {digit}"}}' for digit in range(10))
    + "]}"
)


@pytest.mark.parametrize("zipped", [True, False])
def test_an_evaluation_is_recorded_and_all_else_stays(tmp_path: Path, zipped: bool) -> None:
    state = {key: one.half() if one.is_floating_point() else one for key, one in MODEL.state_dict().items()}
    content = {**CLASSIC, "mean": (0.1, 0.2, 0.3), "state_dict": state}
    torch.save(content, tmp_path / "model.pth", _use_new_zipfile_serialization=zipped)
    for dataset, top1 in (("a", 50), ("b", 70), ("a", 60)):
        record = EvaluationRecord(
            dataset=dataset, sha256="0" * 64, pictures=3, top1=top1, top5=100, calibration_error=0.1
        )
        record_evaluation(tmp_path / "model.pth", record)
    found = load_checkpoint(tmp_path / "model.pth").metadata
    assert sorted((one.dataset, one.top1) for one in found.evaluations) == [("a", 60), ("b", 70)]
    read = torch.load(tmp_path / "model.pth", weights_only=True)  # PyTorch reads the file, too
    assert len(read.pop("evaluations")) == 2
    assert {**read, "state_dict": None} == {**content, "state_dict": None}
    assert all(torch.equal(read["state_dict"][key], tensor) for key, tensor in state.items())
    assert {tensor.dtype for tensor in read["state_dict"].values()} == {torch.float16, torch.int64}
    assert list(tmp_path.iterdir()) == [tmp_path / "model.pth"]


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_are_those_that_pytorch_reads(tmp_path: Path, zipped: bool) -> None:
    """Parameters, views that share a storage, attributes of tensors, and types other than float32."""
    state = MODEL.state_dict()
    both = torch.cat([state["bn1.weight"], state["bn1.bias"]])
    state |= {"bn1.weight": both[:64], "bn1.bias": both[64:], "conv1.weight": nn.Parameter(state["conv1.weight"])}
    state |= {"fc.bias": state["fc.bias"].double(), "bn1.num_batches_tracked": torch.tensor(3, dtype=torch.int32)}
    state["fc.weight"] = state["fc.weight"].T.contiguous().T
    state["bn1.running_var"].note = "an attribute"
    path = tmp_path / "model.pth"
    torch.save({**CLASSIC, "state_dict": state}, path, _use_new_zipfile_serialization=zipped)
    assert answers_as_before(path)
    expected = torch.load(path, weights_only=True)["state_dict"]
    found = read_weights(path).state
    assert list(found) == list(expected)
    others = {key: array.dtype.str for key, array in found.items() if array.dtype not in ("f4", "i8")}
    assert others == {"bn1.num_batches_tracked": "<i4"}
    for key, tensor in expected.items():
        assert np.array_equal(found[key], tensor.detach().numpy().astype(found[key].dtype)), key


@pytest.mark.parametrize("arch", ["mobilenet_v3_small", "squeezenet1_1", "timm/tf_efficientnet_lite0"])
def test_other_architectures_round_trip(tmp_path: Path, arch: str) -> None:
    path = random_checkpoint(tmp_path / "model.pth", arch=arch)
    assert load_checkpoint(path).metadata.arch == arch
