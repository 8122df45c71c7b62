"""Checkpoints of either format are served by OpenVINO, without an export and without PyTorch."""

import json
from pathlib import Path

import httpx
import numpy as np
import pytest

from resnet_service.errors import ModelError, UnreadableModel, UnsuitableRuntime, install_hint
from resnet_service.export.export import export
from resnet_service.models.checkpoint.weights import needs_pytorch, read_weights
from resnet_service.models.exported import read_exported
from resnet_service.runtimes.registry import open_runtime
from tests.support.images import CAT, noise
from tests.support.models import random_checkpoint
from tests.support.servers import PYTORCH, REPOSITORY, cli, hidden, server_process

IMAGES = REPOSITORY / "tests" / "data" / "fashion-mnist"
LABELS = REPOSITORY / "labels" / "fashion-mnist.json"
PIXELS = np.stack([np.asarray(noise(64, 64, seed)) for seed in range(4)])


NAMES = ["model.safetensors", "model.pth"]


@pytest.fixture(
    scope="module",
    params=[("resnet18", "model.safetensors"), ("resnet18", "model.pth"), ("timm/tf_efficientnet_lite0", "model.pth")],
    ids=str,
)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    arch, name = request.param
    return random_checkpoint(tmp_path_factory.mktemp("saved") / name, arch=arch)


def test_openvino_serves_it_and_gives_pytorchs_answers(saved: Path) -> None:
    served, reference = open_runtime(saved), open_runtime(saved, "torch")
    assert (served.name, reference.name) == ("openvino", "torch")
    assert (served.sha256, served.metadata, served.precision) == (reference.sha256, reference.metadata, "fp32")
    np.testing.assert_allclose(served.logits(PIXELS), reference.logits(PIXELS), rtol=0, atol=1e-3)


def test_it_gives_what_its_export_gives(saved: Path, tmp_path: Path) -> None:
    export(saved, tmp_path / "model.onnx")
    served, exported = open_runtime(saved), open_runtime(tmp_path / "model.onnx")
    np.testing.assert_array_equal(served.logits(PIXELS), exported.logits(PIXELS))
    assert served.outputs == exported.outputs
    assert served.class_weights is not None
    assert exported.class_weights is not None
    np.testing.assert_array_equal(served.class_weights, exported.class_weights)
    for ours, theirs in zip(served.features(PIXELS[0]), exported.features(PIXELS[0]), strict=True):
        assert ours is not None
        assert theirs is not None
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_pytorch_serves_the_architectures_that_have_no_graph(name: str, tmp_path: Path) -> None:
    path = random_checkpoint(tmp_path / name, arch="timm/test_resnet")
    assert needs_pytorch(path)
    assert open_runtime(path).name == "torch"
    with pytest.raises(UnsuitableRuntime, match=r"checkpoints of resnet18, .*; export it first"):
        open_runtime(path, "openvino")


def test_a_damaged_file_is_refused_before_a_runtime_is_chosen(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / saved.name
    path.write_bytes(saved.read_bytes()[:-1])
    for check in (needs_pytorch, open_runtime, read_weights):
        with pytest.raises(ModelError, match=r"is not a complete (safetensors file|PyTorch checkpoint)"):
            check(path)


def test_the_choice_reads_no_weights(tmp_path: Path) -> None:
    """With a bit of the weights flipped, PyTorch's file still says what it needs, and does not load."""
    path = random_checkpoint(tmp_path / "model.pth")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert not needs_pytorch(path)
    with pytest.raises(UnreadableModel, match="damaged"):
        read_weights(path)


def test_without_pytorch_a_process_serves_it(saved: Path, tmp_path: Path) -> None:
    with server_process("--checkpoint", saved, PYTHONPATH=hidden(tmp_path / "hidden")) as server:
        answer = httpx.post(f"{server.url}/predict", files={"file": CAT.read_bytes()}, timeout=30).json()
        served = httpx.get(f"{server.url}/metadata", timeout=30).json()
    assert answer["model"]["version"] == read_weights(saved).sha256[:12]
    assert (served["runtime"], served["precision"]) == ("openvino", "fp32")


@pytest.mark.parametrize("name", NAMES)
def test_without_pytorch_it_is_evaluated_and_the_result_recorded(name: str, tmp_path: Path) -> None:
    path = random_checkpoint(tmp_path / name)
    done = cli(
        "evaluate", path, IMAGES, "--labels", LABELS, "--record", "--json", PYTHONPATH=hidden(tmp_path / "hidden")
    )
    assert done.returncode == 0, done.stderr
    (record,) = read_weights(path).metadata.evaluations
    assert record.pictures == 200
    assert record.top1 == pytest.approx(json.loads(done.stdout)["top1"], abs=0.01)


@pytest.mark.parametrize(
    ("precision", "name"),
    [("fp32", "model.pth"), ("bf16", "model.safetensors"), pytest.param("int8", "model.pth", marks=pytest.mark.slow)],
)
def test_without_pytorch_it_is_exported(precision: str, name: str, tmp_path: Path) -> None:
    path = random_checkpoint(tmp_path / name)
    calibration: list[str | Path] = (
        [] if precision == "fp32" else ["--calibration", IMAGES, "--labels", LABELS, "--max-loss", "100"]
    )
    done = cli(
        "export", path, "--precision", precision, *calibration, timeout=300, PYTHONPATH=hidden(tmp_path / "hidden")
    )
    assert done.returncode == 0, done.stderr
    (written,) = tmp_path.glob("*.onnx")
    exported = read_exported(written)
    assert exported.metadata.packing is not None
    assert exported.metadata.packing.checkpoint_sha256 == read_weights(path).sha256
    assert exported.metadata.packing.agreement.pictures == {"fp32": 4, "bf16": 200, "int8": 100}[precision]
    tolerance = {"fp32": 1e-3, "bf16": 0.2, "int8": 1.0}[precision]
    found, expected = open_runtime(written).logits(PIXELS), open_runtime(path).logits(PIXELS)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def test_an_export_needs_no_package_of_another_precision(tmp_path: Path) -> None:
    path = random_checkpoint(tmp_path / "model.safetensors")
    path_without = hidden(tmp_path / "hidden", (*PYTORCH, "nncf", "onnxruntime"))
    assert cli("export", path, PYTHONPATH=path_without).returncode == 0
    done = cli(
        "export", path, "--precision", "int8", "--calibration", IMAGES, "--labels", LABELS, PYTHONPATH=path_without
    )
    assert done.returncode == 1
    assert install_hint("quantize") in done.stderr
