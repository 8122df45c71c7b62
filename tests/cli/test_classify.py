"""The command classify."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.images import CAT
from tests.support.servers import cli


def test_classify_prints_a_table(exported: Path) -> None:
    done = cli("classify", CAT, "--checkpoint", exported, "--top-k", "3")
    assert done.returncode == 0, done.stderr
    assert str(CAT) in done.stdout
    assert done.stdout.count("class ") == 3
    assert "%" in done.stdout


def test_classify_prints_one_json_line_per_image(exported: Path) -> None:
    done = cli("classify", CAT, CAT, "--checkpoint", exported, "--json")
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["predictions"] == second["predictions"]
    assert first["path"] == str(CAT)
    assert len(first["predictions"]) == 5


def test_a_bad_image_does_not_stop_the_others(exported: Path, tmp_path: Path) -> None:
    odd = tmp_path / "[red]odd.jpg"
    odd.write_bytes(b"hello")
    done = cli("classify", tmp_path / "none.jpg", odd, CAT, "--checkpoint", exported, "--json")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1
    of_missing, of_odd = done.stderr.splitlines()
    assert of_missing == f"error: {tmp_path}/none.jpg: The file cannot be read: No such file or directory."
    assert of_odd.startswith(f"error: {odd}: These bytes are not an image")


def test_ctrl_c_ends_the_command_and_not_one_image(exported: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "image.jpg"
    os.mkfifo(pipe)
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "resnet_service",
        "classify",
        pipe,
        CAT,
        "--checkpoint",
        exported,
        "--json",
    ]
    # A script's background job inherits an ignored SIGINT, and so would this child.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    )
    with process, pipe.open("wb"):  # opens when the command opens its end to read
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stdout is not None
        assert process.stdout.read() == ""


def test_without_a_model_the_error_names_the_command_that_fetches_one(tmp_path: Path) -> None:
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
