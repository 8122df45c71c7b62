"""The command line as a whole: help, version, start-up, errors of every command."""

import subprocess
import sys
import time
from pathlib import Path

import resnet_service
from tests.support.servers import cli


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


def test_a_missing_model_is_reported_before_pytorch_is_imported(tmp_path: Path) -> None:
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
