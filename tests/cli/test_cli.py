import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import resnet_service
from tests.support.images import CAT
from tests.support.models import random_model
from tests.support.servers import cli, cli_here


def test_help_is_instant_and_loads_nothing_heavy() -> None:
    script = (
        "import sys; from resnet_service.cli.app import app; "
        "app(['--help'], standalone_mode=False); print(*sys.modules)"
    )
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert time.monotonic() - begin < 5
    loaded = set(done.stdout.split())
    assert "typer" in loaded
    assert not loaded & {"torch", "torchvision", "timm", "fastapi", "uvicorn"}
    for command in ("serve", "classify", "inspect", "pull", "convert"):
        assert command in done.stdout


def test_version() -> None:
    assert cli("--version").stdout.strip() == resnet_service.__version__


def test_classify_prints_a_table(exported: Path) -> None:
    done = cli("classify", CAT, "--checkpoint", exported, "--top-k", "3")
    assert done.returncode == 0, done.stderr
    assert str(CAT) in done.stdout
    assert done.stdout.count("class ") == 3
    assert "%" in done.stdout


def test_classify_prints_json_a_line_for_each_image(exported: Path) -> None:
    done = cli("classify", CAT, CAT, "--checkpoint", exported, "--json")
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["predictions"] == second["predictions"]
    assert first["path"] == str(CAT)
    assert len(first["predictions"]) == 5


def test_a_bad_image_does_not_cost_the_others(exported: Path, tmp_path: Path) -> None:
    odd = tmp_path / "[red]odd.jpg"
    odd.write_bytes(b"hello")
    done = cli("classify", tmp_path / "none.jpg", odd, CAT, "--checkpoint", exported, "--json")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1
    of_missing, of_odd = done.stderr.splitlines()
    assert of_missing == f"error: {tmp_path}/none.jpg: The file cannot be read: No such file or directory."
    assert of_odd.startswith(f"error: {odd}: These bytes are not an image")


def test_inspect_shows_all_that_a_file_says(checkpoint: Path) -> None:
    facts = json.loads(cli_here("inspect", checkpoint, "--json").stdout)
    assert (facts["arch"], facts["num_classes"], facts["input_size"]) == ("resnet18", 10, 64)
    assert facts["parameters"] == 11_181_642
    shown = cli_here("inspect", checkpoint).stdout
    assert facts["sha256"] in shown
    assert "11,181,642" in shown


def test_a_missing_model_is_said_before_pytorch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    script = (
        "import sys; from resnet_service.cli.app import app\n"
        "for line in sys.stdin: print(app(line.split(), standalone_mode=False))\n"
        "print(*sys.modules)"
    )
    commands = (
        "serve --port 0 --checkpoint none.pth",
        "classify --checkpoint none.pth x.png",
        "evaluate none.pth images",
        "inspect none.pth",
        "export none.pth",
        "convert none.pth model.pth",
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input="\n".join(commands),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=tmp_path,
    )
    *codes, loaded = done.stdout.splitlines()
    assert codes == ["1"] * len(commands)
    expected = "error: There is no model file none.pth; `resnet-service pull` fetches one."
    assert done.stderr.splitlines() == [expected] * len(commands)
    assert not set(loaded.split()) & {"torch", "onnx", "nncf"}


@pytest.mark.slow
def test_convert_makes_a_checkpoint_that_serve_takes(tmp_path: Path) -> None:
    torch.save(random_model(), tmp_path / "whole.pth")
    refused = cli("convert", tmp_path / "whole.pth", tmp_path / "model.pth", "--arch", "resnet18")
    assert refused.returncode == 1
    assert "--trust-pickle" in refused.stderr
    flags = ["--arch", "resnet18", "--input-size", "64", "--mean", "0.5", "0.5", "0.5", "--dtype", "float16"]
    done = cli("convert", tmp_path / "whole.pth", tmp_path / "model.pth", "--trust-pickle", *flags)
    assert done.returncode == 0, done.stderr
    facts = json.loads(cli("inspect", tmp_path / "model.pth", "--json").stdout)
    assert facts["mean"] == [0.5, 0.5, 0.5]
    assert facts["bytes"] < 23_000_000


def test_without_a_model_the_way_to_one_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "resnet_service", "classify", CAT],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "resnet-service pull" in done.stderr
