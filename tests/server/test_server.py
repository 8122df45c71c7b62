"""The real process: start, answers, errors, end."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from resnet_service.models.checkpoint.checkpoint import save_checkpoint
from resnet_service.system.files import sha256_of
from tests.support.images import CAT
from tests.support.models import metadata, random_model
from tests.support.servers import REPOSITORY, START_SECONDS, ServerProcess, cli, server_process

EXPORTED = REPOSITORY / "checkpoints" / "resnet18-fashion-mnist-int8.onnx"


@pytest.fixture(scope="module")
def server(checkpoint: Path) -> Iterator[ServerProcess]:
    """Start the service with PyTorch, which most other tests of a real process do not use."""
    with server_process("--checkpoint", checkpoint) as server:
        yield server


def test_form_and_raw_body_get_the_same_answer(server: ServerProcess) -> None:
    form = httpx.post(f"{server.url}/predict", files={"file": CAT.read_bytes()}).json()
    raw = httpx.post(f"{server.url}/predict", content=CAT.read_bytes()).json()
    assert form["predictions"] == raw["predictions"]
    assert len(form["predictions"]) == 5
    assert sum(ranked["score"] for ranked in form["predictions"]) <= 1
    assert form["image"] == {"format": "JPEG", "width": 451, "height": 300}


def test_metadata_and_version_are_those_of_the_file(server: ServerProcess, checkpoint: Path) -> None:
    body = httpx.get(f"{server.url}/metadata").json()
    assert body["model"] == {
        "name": checkpoint.stem,
        "arch": "resnet18",
        "version": sha256_of(checkpoint.read_bytes())[:12],
    }
    assert body["runtime"] == "openvino"
    assert body["metadata"]["input_size"] == 64


def test_the_start_line_names_architecture_and_source(server: ServerProcess) -> None:
    assert "resnet18 from an unknown source; openvino runtime in FP32, workers: " in server.log
    assert "; 10 classes: " in server.log


def test_many_clients_at_once_each_get_their_own_answer(server: ServerProcess) -> None:
    codes: list[int] = []

    def ask() -> None:
        answers = (httpx.post(f"{server.url}/predict", content=CAT.read_bytes(), timeout=60) for _ in range(5))
        codes.extend(answer.status_code for answer in answers)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert codes == [200] * 40


@contextmanager
def sigint(disposition: signal.Handlers) -> Iterator[None]:
    """Let processes that start inside the block inherit this disposition of SIGINT, however the tests were started."""
    before = signal.signal(signal.SIGINT, disposition)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("inherited", [signal.SIG_DFL, signal.SIG_IGN], ids=["foreground", "background"])
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_gracefully(ending: signal.Signals, inherited: signal.Handlers) -> None:
    """A script's shell starts `resnet-service serve &` with SIGINT ignored; the server obeys SIGINT there too."""
    with ExitStack() as stack:
        with sigint(inherited):
            server = stack.enter_context(server_process("--checkpoint", EXPORTED))
        server.process.send_signal(ending)
        assert server.process.wait(20) == (0 if ending == signal.SIGTERM else 130)
        server.stop()
        assert "Traceback" not in server.log


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """Check that a command failed as expected, and return its message."""
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_a_taken_port_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = one_line(cli("serve", "--checkpoint", EXPORTED, "--port", str(port)))
    assert f"port {port}: Address already in use" in said


def test_of_two_starts_at_once_one_says_so_before_it_loads() -> None:
    """Until one of them listens, both can bind the port; and the loser would notice after it has loaded its model."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "resnet_service", "serve", "--checkpoint", str(EXPORTED), "--port", str(port)]
    starts = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY) for _ in range(2)]
    try:
        end = time.monotonic() + START_SECONDS
        while all(start.poll() is None for start in starts):
            assert time.monotonic() < end, "both run"
            time.sleep(0.01)
        loser, winner = sorted(starts, key=lambda start: start.poll() is None)
        said = loser.communicate(timeout=20)[1]
        assert (loser.returncode, said.count("\n")) == (1, 1), said
        assert f"port {port}: Address already in use" in said
        assert winner.stderr is not None
        assert "Serving" in winner.stderr.readline()
        winner.send_signal(signal.SIGTERM)
        assert winner.wait(20) == 0
    finally:
        for start in starts:
            start.kill()
            start.communicate(timeout=20)


def test_a_wrong_path_is_one_line(tmp_path: Path) -> None:
    assert f"no model file {tmp_path}/none.pth" in one_line(cli("serve", "--checkpoint", tmp_path / "none.pth"))


def test_a_bad_setting_is_one_line() -> None:
    assert "workers" in one_line(cli("serve", RESNET_SERVICE_WORKERS="-1"))


@pytest.mark.slow
def test_a_model_that_answers_nan_is_never_served(tmp_path: Path) -> None:
    """Its weights are finite; only running it shows the error: a variance of zero times a huge scale."""
    model = random_model()
    model.bn1.weight.data.fill_(3e38)  # type: ignore[union-attr, operator]
    model.bn1.running_var.fill_(0)  # type: ignore[union-attr, operator]
    save_checkpoint(model, tmp_path / "nan.pth", metadata())
    assert "not one finite number" in one_line(
        cli("serve", "--checkpoint", tmp_path / "nan.pth", "--port", "0", "--runtime", "torch")
    )


@pytest.mark.slow
def test_a_bare_state_dict_is_served_with_its_architecture(tmp_path: Path) -> None:
    import torch

    torch.save(random_model().state_dict(), tmp_path / "bare.pth")
    assert "--arch resnet18" in one_line(cli("serve", "--checkpoint", tmp_path / "bare.pth", "--port", "0"))
    with server_process("--checkpoint", tmp_path / "bare.pth", RESNET_SERVICE_ARCH="resnet18") as server:
        assert httpx.post(f"{server.url}/predict", content=CAT.read_bytes()).status_code == 200


@pytest.mark.slow
def test_nothing_is_fetched_while_serving(imagenet_checkpoint: Path, tmp_path: Path) -> None:
    """With all outgoing connections blocked, start and answers are the same."""
    (tmp_path / "sitecustomize.py").write_text(
        "import socket\n"
        "real = socket.socket.connect\n"
        "def connect(self, address):\n"
        "    if self.family != socket.AF_UNIX: raise OSError('no network here')\n"
        "    return real(self, address)\n"
        "socket.socket.connect = connect\n"
    )
    probe = [sys.executable, "-c", "import socket; socket.create_connection(('127.0.0.1', 9))"]
    closed = {**os.environ, "PYTHONPATH": str(tmp_path)}
    refused = subprocess.run(probe, env=closed, capture_output=True, text=True, timeout=START_SECONDS, check=False)
    assert "no network here" in refused.stderr
    with server_process("--checkpoint", imagenet_checkpoint, PYTHONPATH=str(tmp_path)) as server:
        assert httpx.post(f"{server.url}/predict", content=CAT.read_bytes()).status_code == 200
