"""The commands that make and inspect model files."""

import json
import warnings
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests.support.models import random_model
from tests.support.servers import cli, cli_here, hidden


def test_inspect_shows_digest_parameters_and_metadata(checkpoint: Path) -> None:
    facts = json.loads(cli_here("inspect", checkpoint, "--json").stdout)
    assert (facts["arch"], facts["num_classes"], facts["input_size"]) == ("resnet18", 10, 64)
    assert facts["parameters"] == 11_181_642
    shown = cli_here("inspect", checkpoint).stdout
    assert facts["sha256"] in shown
    assert "11,181,642" in shown


def test_commands_take_an_architecture_in_any_spelling(tmp_path: Path) -> None:
    """A bare state_dict of an architecture that needs no PyTorch is read without it, however the name is spelt."""
    state = {key: tensor.contiguous() for key, tensor in random_model().state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "bare.safetensors")
    path = hidden(tmp_path / "hidden")
    shown = cli("inspect", tmp_path / "bare.safetensors", "--arch", "ResNet-18", "--json", PYTHONPATH=path)
    assert json.loads(shown.stdout)["arch"] == "resnet18", shown.stderr
    image = "tests/data/fashion-mnist/bag/00018.png"
    answer = cli(
        "classify", "--checkpoint", tmp_path / "bare.safetensors", "--arch", "ResNet-18", image, PYTHONPATH=path
    )
    assert answer.returncode == 0, answer.stderr


@pytest.mark.slow
def test_convert_turns_a_trusted_pickle_into_a_checkpoint(tmp_path: Path) -> None:
    source, target = tmp_path / "script.pt", tmp_path / "model.pth"
    with warnings.catch_warnings(action="ignore"):  # TorchScript is deprecated
        torch.jit.script(random_model()).save(source)  # type: ignore[no-untyped-call]
    refused = cli("convert", source, target)
    assert refused.returncode == 1
    assert "--trust-pickle" in refused.stderr
    flags = ["--arch", "resnet18", "--input-size", "64", "--mean", "0.5", "0.5", "0.5", "--dtype", "float16"]
    done = cli("convert", source, target, "--trust-pickle", *flags)
    assert done.returncode == 0, done.stderr
    facts = json.loads(cli("inspect", target, "--json").stdout)
    assert facts["mean"] == [0.5, 0.5, 0.5]
    assert facts["bytes"] < 23_000_000


def test_pack_still_exports(checkpoint: Path, tmp_path: Path) -> None:
    """The name of ``export`` in 1.0; no help shows it."""
    target = tmp_path / "model.onnx"
    done = cli_here("pack", checkpoint, "--output", target, "--precision", "fp32", "--max-loss", "1")
    assert done.returncode == 0, done.stderr
    assert f"Wrote {target}: FP32, {target.stat().st_size / 1e6:.1f} MB" in done.stderr
    assert "pack" not in cli_here("--help").stdout
    assert (
        cli_here("pack", "--help").stdout.partition("Options")[2]
        == cli_here("export", "--help").stdout.partition("Options")[2]
    )
