"""Faults of the machine or its operator: full disks, killed processes, replaced files."""

import fcntl
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import torch

from resnet_service.models.checkpoint.checkpoint import load_checkpoint
from resnet_service.models.discovery import unbundled_models
from tests.support.images import CAT
from tests.support.models import random_model
from tests.support.publisher import Publisher
from tests.support.servers import REPOSITORY, ServerProcess, file_server, server_process
from tests.support.waiting import until

EXPORTED = REPOSITORY / "checkpoints" / "resnet18-fashion-mnist-int8.onnx"
IMAGE = CAT.read_bytes()

# Run before a command: its write to the disk never ends, so that it can be killed at that moment.
STALLED_DISK = """
import os, time
def fsync(descriptor):
    print("writing", flush=True)
    time.sleep(600)
os.fsync = fsync
"""
EXPORT = "from resnet_service.cli.app import main\nmain()\n"
# `pull` accepts only files with torchvision's digests; this calls its function with a file of the test.
PULL = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from torchvision.models import Weights
from torchvision.transforms._presets import ImageClassification
import functools
from resnet_service.export.sources.base import PullRequest
from resnet_service.export.sources.torchvision import fetch_weights
weights = Weights(
    url="https://elsewhere.example/models/" + sys.argv[2],
    transforms=functools.partial(ImageClassification, crop_size=224, resize_size=232),
    meta={"_metrics": {"ImageNet-1K": {"acc@1": 67.668}}},
)
said = lambda sentence: print(sentence, flush=True)
fetch_weights(weights, PullRequest("mobilenet_v3_small", Path(sys.argv[3]), sys.argv[1], on_message=said))
"""


def started(program: str, *arguments: str | Path, **options: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        **options,
    )


def kill_while_writing(process: "subprocess.Popen[str]") -> None:
    """Wait until it reports that it writes, and kill it as the kernel does when memory is short."""
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            if line == "writing\n":
                process.kill()
                break
        else:
            raise AssertionError(process.stderr and process.stderr.read())
    assert process.returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    return Publisher(tmp_path_factory.mktemp("mirror"))


@pytest.mark.slow
def test_a_pull_that_is_killed_leaves_nothing_that_would_be_served(publisher: Publisher, tmp_path: Path) -> None:
    with file_server(publisher.folder) as url:
        arguments = (url, publisher.file.name, tmp_path)
        for _ in range(2):
            kill_while_writing(started(STALLED_DISK + PULL, *arguments))
            assert unbundled_models(tmp_path) == []
        with started(PULL, *arguments) as process:
            assert process.wait(120) == 0
    (model,) = unbundled_models(tmp_path)
    load_checkpoint(model)
    assert os.listdir(tmp_path) == [model.name], "what the killed ones left is gone as well"


def test_a_pull_that_is_killed_while_it_fetches_leaves_nothing(publisher: Publisher, tmp_path: Path) -> None:
    """The server takes the request and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        silent.settimeout(60)
        with started(PULL, url, publisher.file.name, tmp_path) as process, silent.accept()[0]:
            process.kill()
            process.wait(20)
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_an_export_that_is_killed_leaves_the_old_model_whole(checkpoint: Path, tmp_path: Path) -> None:
    """30 s."""
    source = Path(shutil.copy(checkpoint, tmp_path / "model.pth"))
    target = tmp_path / "model.onnx"
    target.write_bytes(b"the old one")
    kill_while_writing(started(STALLED_DISK + EXPORT, "export", source))
    assert target.read_bytes() == b"the old one"
    with started(EXPORT, "export", source) as process:
        assert process.wait(240) == 0
    assert sorted(os.listdir(tmp_path)) == ["model.onnx", "model.pth"]
    with server_process("--checkpoint", target) as server:
        assert httpx.post(f"{server.url}/predict", content=IMAGE).status_code == 200


def limited_disk() -> None:
    """Limit files to a megabyte; Python ignores the signal, and the write fails as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))


@pytest.mark.slow
@pytest.mark.parametrize("command", ["convert", "export"])
def test_a_full_disk_is_one_line_and_no_half_file(command: str, checkpoint: Path, tmp_path: Path) -> None:
    if command == "convert":
        torch.save(random_model().state_dict(), tmp_path / "bare.pth")
        arguments = ["convert", "bare.pth", "model.pth", "--arch", "resnet18"]
        target = "model.pth"
    else:
        shutil.copy(checkpoint, tmp_path / "bare.pth")
        arguments = ["export", "bare.pth", "--output", "model.onnx"]
        target = "model.onnx"
    done = subprocess.run(
        [sys.executable, "-m", "resnet_service", *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        cwd=tmp_path,
        preexec_fn=limited_disk,
    )
    said = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert said == f"error: {target} cannot be written: File too large."
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == ["bare.pth"]


def version(server: ServerProcess) -> str:
    named: str = httpx.get(f"{server.url}/metadata").json()["model"]["version"]
    return named


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path: Path) -> None:
    """Write other bytes into the same file, as `cp` does."""
    with path.open("r+b") as file:
        file.write(os.urandom(path.stat().st_size))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def make_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


OTHER_DAMAGE = [overwrite, empty, make_a_folder]


@pytest.mark.parametrize(
    "damage", [truncate, Path.unlink, *(pytest.param(damage, marks=pytest.mark.slow) for damage in OTHER_DAMAGE)]
)
def test_it_serves_on_whatever_happens_to_the_model_file(damage: Callable[[Path], None], tmp_path: Path) -> None:
    path = Path(shutil.copy(EXPORTED, tmp_path / "model.onnx"))
    with server_process("--checkpoint", path) as server:
        before = httpx.post(f"{server.url}/predict", content=IMAGE).json()["predictions"]
        first = version(server)
        damage(path)
        assert httpx.post(f"{server.url}/predict", content=IMAGE).json()["predictions"] == before
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "Reload failed; the old model keeps serving: " in server.log, seconds=60)
        assert httpx.post(f"{server.url}/predict", content=IMAGE).json()["predictions"] == before
        assert version(server) == first
        assert httpx.get(f"{server.url}/health/ready").status_code == 200
        if path.is_dir():
            path.rmdir()
        shutil.copy(EXPORTED, path)
        server.process.send_signal(signal.SIGHUP)
        until(lambda: server.log.count("Serving ") == 2, seconds=60)
        server.stop()
        assert "Traceback" not in server.log


# In the fast suite, test_logs.py has a reader that does not read.
@pytest.mark.parametrize("reader", ["gone", pytest.param("asleep", marks=pytest.mark.slow)])
def test_it_continues_when_its_log_is_unread(reader: str, tmp_path: Path) -> None:
    """Each reload of a missing file logs a line; a pipe of 4 KB holds only a few."""
    path = Path(shutil.copy(EXPORTED, tmp_path / f"{'m' * 200}.onnx"))
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    process = subprocess.Popen(
        [sys.executable, "-m", "resnet_service", "serve", "--port", "0", "--checkpoint", str(path)],
        stdout=writing,
        stderr=writing,
        cwd=REPOSITORY,
    )
    os.close(writing)
    try:
        said = b""
        while b"Ready on " not in said or not said.endswith(b"\n"):
            got = os.read(reading, 4096)
            assert got, said
            said += got
        url = b"/".join(said.split(b"Ready on ")[1].split(b"/")[:3]).decode()
        if reader == "gone":
            os.close(reading)
        path.unlink()
        with httpx.Client(base_url=url, timeout=5) as client:
            for _ in range(100):
                process.send_signal(signal.SIGHUP)
                assert client.post("/predict", content=IMAGE).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait(20)
        if reader == "asleep":
            os.close(reading)
