"""The model in the repository, served if no other was pulled: its accuracy and its files."""

import gzip
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from resnet_service.errors import UnreadableModel
from resnet_service.models.checkpoint.checkpoint import load_checkpoint
from resnet_service.models.checkpoint.weights import read_weights
from resnet_service.models.exported import read_exported
from resnet_service.models.labels import read_label_set
from resnet_service.runtimes.registry import open_runtime
from resnet_service.system.files import sha256_of
from tests.support.servers import REPOSITORY, ServerProcess, cli, server_process
from tests.support.waiting import until

CHECKPOINT = REPOSITORY / "checkpoints" / "resnet18-fashion-mnist.safetensors"
LABELS = REPOSITORY / "labels" / "fashion-mnist.json"
EXPORTED = REPOSITORY / "checkpoints" / "resnet18-fashion-mnist-int8.onnx"
CARD = CHECKPOINT.with_suffix(".md")
CHINESE = json.loads((REPOSITORY / "labels" / "fashion-mnist.zh.json").read_bytes())["names"]
SAMPLE = REPOSITORY / "tests" / "data" / "fashion-mnist"


@pytest.fixture(
    scope="module",
    params=[pytest.param(CHECKPOINT, marks=pytest.mark.slow, id="checkpoint"), pytest.param(EXPORTED, id="exported")],
)
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    with server_process("--checkpoint", request.param) as server:
        yield server


def test_at_least_93_percent_of_the_sample_are_right(server: ServerProcess) -> None:
    labels, _ = read_label_set(REPOSITORY / "labels" / "fashion-mnist.json")
    right = []
    with httpx.Client(base_url=server.url) as client:
        for label in labels.classes:
            for path in sorted((SAMPLE / str(label.id)).glob("*.png")):
                answer = client.post("/predict?top_k=1", content=path.read_bytes()).json()
                right.append(answer["predictions"][0]["label"] == label.name)
    assert len(right) == 200
    assert np.mean(right) >= 0.93


def test_metadata_shows_the_recorded_accuracy(server: ServerProcess) -> None:
    metadata = httpx.get(f"{server.url}/metadata").json()["metadata"]
    (record,) = metadata["evaluations"]
    assert record["dataset"] == "fashion-mnist"
    assert record["pictures"] == 10_000
    assert record["top1"] >= 94.0
    assert metadata["input_size"] == 64


def test_metadata_and_log_say_which_ten_classes_it_knows(server: ServerProcess) -> None:
    summary = httpx.get(f"{server.url}/metadata").json()["class_summary"]
    names = "T-shirt/top, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, ankle boot"
    assert summary == {"en": f"10 classes: {names}", "zh": f"10 个类别：{'、'.join(CHINESE)}"}
    assert len(CHINESE) == 10
    until(lambda: server.log.count("\n") > 0)
    assert summary["en"] in server.log.splitlines()[0]


def test_the_model_card_matches_the_files() -> None:
    (record,) = load_checkpoint(CHECKPOINT).metadata.evaluations
    (exported,) = read_exported(EXPORTED).metadata.evaluations
    assert f"| {record.top1:.2f} % | {exported.top1:.2f} % |" in CARD.read_text()


def test_int8_loses_at_most_a_third_of_a_point() -> None:
    """Both figures are from all 10,000 test images."""
    (record,) = load_checkpoint(CHECKPOINT).metadata.evaluations
    metadata = read_exported(EXPORTED).metadata
    assert metadata.evaluations[0].sha256 == record.sha256
    assert record.top1 - metadata.evaluations[0].top1 <= 0.3


def test_the_shipped_exported_model_comes_from_the_shipped_checkpoint() -> None:
    """It names the file that held these weights up to version 1.1; those of its last layer are these, rounded."""
    packing = read_exported(EXPORTED).metadata.packing
    assert packing is not None
    assert packing.checkpoint_sha256 in CARD.read_text()
    assert sha256_of(CHECKPOINT.read_bytes()) in CARD.read_text()
    rounded, weights = open_runtime(EXPORTED).class_weights, read_weights(CHECKPOINT).state["fc.weight"]
    assert rounded is not None
    steps = np.abs(weights).max(axis=1, keepdims=True) / 127
    assert np.all(np.abs(rounded - weights) <= 0.51 * steps)
    assert (packing.precision, packing.agreement.pictures) == ("int8", 1000)
    assert packing.agreement.top1_agreement >= 97


def test_a_flipped_bit_in_the_checkpoint_is_noticed(tmp_path: Path) -> None:
    data = bytearray(CHECKPOINT.read_bytes())
    data[-1] ^= 1
    (tmp_path / "flipped.safetensors").write_bytes(data)
    with pytest.raises(UnreadableModel, match="damaged"):
        read_weights(tmp_path / "flipped.safetensors")


def test_the_files_are_small() -> None:
    assert CHECKPOINT.stat().st_size <= 23_000_000
    assert EXPORTED.stat().st_size <= 12_000_000


@pytest.mark.slow
@pytest.mark.parametrize("model", [CHECKPOINT, EXPORTED], ids=["checkpoint", "exported"])
def test_it_is_served_if_no_model_is_pulled_or_named(tmp_path: Path, model: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "labels").mkdir()
    for path in (model, REPOSITORY / "labels" / "fashion-mnist.json"):
        os.link(path, tmp_path / path.relative_to(REPOSITORY))
    image = SAMPLE / "sandal" / "00008.png"
    done = subprocess.run(
        [sys.executable, "-m", "resnet_service", "classify", image, "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=tmp_path,
    )
    assert json.loads(done.stdout)["predictions"][0]["label"] == "sandal"


@pytest.mark.slow
def test_evaluate_over_the_sample_agrees(tmp_path: Path) -> None:
    done = cli("evaluate", CHECKPOINT, SAMPLE, "--json", "--plot", tmp_path)
    found = json.loads(done.stdout)
    assert found["top1"] >= 93
    assert found["per_class"].keys() == {label.name for label in read_label_set(LABELS)[0].classes}
    assert np.sum(found["confusion"]) == 200


@pytest.mark.slow
def test_the_training_script_trains_is_resumed_and_saves(tmp_path: Path) -> None:
    """With one batch of noise per epoch; the model card shows real results."""
    rng = np.random.default_rng(0)
    for name, content in (("images-idx3", rng.integers(0, 256, (256, 28, 28))), ("labels-idx1", np.arange(256) % 10)):
        header = bytes([0, 0, 8, content.ndim]) + b"".join(side.to_bytes(4, "big") for side in content.shape)
        (tmp_path / f"train-{name}-ubyte.gz").write_bytes(gzip.compress(header + content.astype(np.uint8).tobytes()))
    command = [sys.executable, "examples/fashion_mnist/train.py", "--data", str(tmp_path), "--output"]
    command.append(str(tmp_path / "model.safetensors"))
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    assert first.stdout is not None
    limit = threading.Timer(300, first.kill)  # which ends its output
    limit.start()
    try:
        with first.stdout as lines:
            assert any("epoch  3" in line for line in lines), "it ended, or took too long"
    finally:
        limit.cancel()
        first.kill()
        first.wait(20)
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True, cwd=REPOSITORY)
    epochs = [int(found) for found in re.findall(r"epoch +(\d+) +\d+px", done.stdout)]
    assert epochs[0] in (3, 4)
    assert epochs[-1] == 30
    loaded = load_checkpoint(tmp_path / "model.safetensors")
    assert loaded.metadata.labels == read_label_set(LABELS)[1]
    assert loaded.metadata.num_classes == 10
