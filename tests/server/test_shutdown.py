"""Shutdown and reload of the real process under load."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.support.images import CAT, encoded
from tests.support.models import random_checkpoint
from tests.support.servers import REPOSITORY, ServerProcess, server_process
from tests.support.waiting import until
from tests.support.wire import connected, head, read_answer, read_to_end

EXPORTED = REPOSITORY / "checkpoints" / "resnet18-fashion-mnist-int8.onnx"
IMAGE = CAT.read_bytes()
REQUEST = head(Content_Length=len(IMAGE)) + IMAGE


def alive(server: ServerProcess) -> bool:
    return server.process.poll() is None


@pytest.mark.parametrize("delay", ["0", "0.5"])
def test_every_accepted_request_is_answered(delay: str) -> None:
    """The image has few bytes and many pixels, so that all requests are sent long before most are answered."""
    expensive = encoded(Image.new("RGB", (1500, 1500)), "PNG")
    request = head(Content_Length=len(expensive)) + expensive
    with server_process("--checkpoint", EXPORTED, "--queue", "200", "--drain-delay", delay) as server:
        with ExitStack() as open_:
            connections = [open_.enter_context(connected(server.url)) for _ in range(300)]
            for connection in connections[:200]:
                connection.sendall(head("GET", "/health/live"))
                assert read_answer(connection).startswith(b"HTTP/1.1 200 ")
            for connection in connections:
                connection.sendall(request)
            assert read_answer(connections[0]).startswith(b"HTTP/1.1 200 ")
            server.process.send_signal(signal.SIGTERM)
            answers = [read_to_end(connection) for connection in connections[1:]]
        assert [answer[:13] for answer in answers] == [b"HTTP/1.1 200 "] * 299
        assert all(b"connection: close" in answer for answer in answers[-100:])
        assert server.process.wait(20) == 0
        server.stop()
        assert "Traceback" not in server.log


def test_a_request_that_is_on_its_way_when_draining_begins_is_answered() -> None:
    with server_process("--checkpoint", EXPORTED) as server:
        with connected(server.url) as idle, connected(server.url) as fresh:
            idle.sendall(head("GET", "/health/live"))
            assert read_answer(idle).startswith(b"HTTP/1.1 200 ")
            server.process.send_signal(signal.SIGTERM)
            until(lambda: not listens(server.url))
            for connection in (idle, fresh):
                connection.sendall(REQUEST)
            for connection in (idle, fresh):
                answer = read_to_end(connection)
                assert answer.startswith(b"HTTP/1.1 200 ")
                assert b"connection: close" in answer
        assert server.process.wait(20) == 0


def listens(url: str) -> bool:
    try:
        with connected(url):
            return True
    except ConnectionRefusedError:
        return False


def test_it_is_unready_at_once_and_answers_until_the_delay_is_over() -> None:
    with server_process("--checkpoint", EXPORTED, "--drain-delay", "3") as server:
        assert httpx.get(f"{server.url}/health/ready").status_code == 200
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        until(lambda: httpx.get(f"{server.url}/health/ready").status_code == 503, seconds=0.5)
        time.sleep(1.5)
        assert httpx.get(f"{server.url}/health/live").status_code == 200
        answer = httpx.post(f"{server.url}/predict", content=IMAGE)
        assert answer.status_code == 200
        assert answer.headers["connection"] == "close"
        assert server.process.wait(20) == 0
        assert time.monotonic() - begun > 3


@pytest.mark.parametrize(
    ("delay", "ending"),
    [
        ("0", signal.SIGTERM),
        ("60", signal.SIGINT),
        pytest.param("0", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("60", signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_a_second_signal_ends_it_at_once(delay: str, ending: signal.Signals) -> None:
    with server_process("--checkpoint", EXPORTED, "--drain-delay", delay) as server, connected(server.url) as slow:
        slow.sendall(REQUEST[:-1])
        httpx.get(f"{server.url}/health/live")
        server.process.send_signal(signal.SIGTERM)
        time.sleep(1)
        assert alive(server), "it waits for the request"
        server.process.send_signal(ending)
        assert server.process.wait(2) == 128 + ending


def replace(checkpoint: Path, data: bytes) -> None:
    """Replace a file atomically, as deployments should."""
    new = checkpoint.with_suffix(".new")
    new.write_bytes(data)
    os.replace(new, checkpoint)


@pytest.mark.slow
def test_a_reload_under_load_fails_no_request(checkpoint: Path, tmp_path: Path) -> None:
    served = tmp_path / "model.pth"
    replace(served, checkpoint.read_bytes())
    other = random_checkpoint(tmp_path / "other.pth", num_classes=7).read_bytes()
    done = threading.Event()

    def ask(url: str) -> list[tuple[int, str]]:
        seen = []
        with httpx.Client(base_url=url, timeout=30) as client:
            while not done.is_set():
                answer = client.post("/predict", content=IMAGE)
                seen.append((answer.status_code, answer.json().get("model", {}).get("version")))
        return seen

    with ThreadPoolExecutor(4) as clients, server_process("--checkpoint", served) as server:

        def version() -> str:
            named: str = httpx.get(f"{server.url}/metadata").json()["model"]["version"]
            return named

        try:
            asked = [clients.submit(ask, server.url) for _ in range(4)]
            first = version()
            replace(served, other)
            server.process.send_signal(signal.SIGHUP)
            until(lambda: version() != first, seconds=60)
            second = version()
            replace(served, other[:1000])
            server.process.send_signal(signal.SIGHUP)
            until(lambda: "Reload failed; the old model keeps serving: " in server.log, seconds=60)
            assert version() == second
            assert httpx.get(f"{server.url}/health/ready").status_code == 200
        finally:
            done.set()
        seen = [one for future in asked for one in future.result(30)]
        assert {status for status, _ in seen} == {200}
        assert {named for _, named in seen} == {first, second}
        server.stop()
        assert "Traceback" not in server.log
        (said,) = [line for line in server.log.splitlines() if "keeps serving" in line]
        assert str(served) in said


@pytest.mark.slow
def test_a_model_that_answers_nan_is_not_reloaded(checkpoint: Path, tmp_path: Path) -> None:
    """It loads, and only the warm-up shows the error."""
    from resnet_service.models.checkpoint.checkpoint import save_checkpoint
    from tests.support.models import metadata, random_model

    served = tmp_path / "model.pth"
    replace(served, checkpoint.read_bytes())
    with server_process("--checkpoint", served) as server:
        model = random_model()
        model.bn1.weight.data.fill_(3e38)  # type: ignore[union-attr, operator]
        model.bn1.running_var.fill_(0)  # type: ignore[union-attr, operator]
        save_checkpoint(model, served, metadata())
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "Reload failed; the old model keeps serving: " in server.log, seconds=60)
        assert httpx.post(f"{server.url}/predict", content=IMAGE).status_code == 200
