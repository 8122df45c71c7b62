"""The health check of containers: fast, small, and correct for services that are ready, unready, silent or gone."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from resnet_service.api.app import create_app
from resnet_service.inference.fake import FakeClassifier
from resnet_service.server.healthcheck import main, probe
from resnet_service.settings import Settings
from tests.support.servers import served


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """Answer one connection with these bytes; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)

        def answer_one() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=answer_one, daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        thread.join(20)


def test_a_ready_service_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(Settings(), FakeClassifier())
    with served(app) as client:
        port = client.base_url.port
        assert port is not None
        probe("127.0.0.1", port)
        monkeypatch.setenv("RESNET_SERVICE_HOST", "0.0.0.0")  # noqa: S104 - as in the image
        monkeypatch.setenv("RESNET_SERVICE_PORT", str(port))
        main()
        app.state.service.health.draining = True
        with pytest.raises(OSError, match="503"):
            probe("127.0.0.1", port)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 503 Service Unavailable\r\n\r\n", b"", b"200 OK\r\n\r\n", b"HTTP/1.1 404 200\r\n"]
)
def test_anything_but_200_is_not_ready(answer: bytes) -> None:
    with answering(answer) as port, pytest.raises(OSError, match="not ready"):
        probe("127.0.0.1", port)


def test_who_does_not_answer_in_time_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnet_service.server.healthcheck.TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(TimeoutError):
        probe("127.0.0.1", listener.getsockname()[1])


def test_the_command_says_why_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    done = subprocess.run(
        [sys.executable, "-m", "resnet_service.server.healthcheck"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={"RESNET_SERVICE_PORT": port, "PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"127.0.0.1, port {port}: [Errno 111] Connection refused"]


def test_it_imports_neither_the_service_nor_an_http_library() -> None:
    script = "import sys, resnet_service.server.healthcheck; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=True)
    loaded = set(done.stdout.split())
    assert {name for name in loaded if name.startswith("resnet_service")} == {
        *("resnet_service", "resnet_service.moved_paths", "resnet_service.server"),
        "resnet_service.server.healthcheck",
    }
    assert not loaded & {"http.client", "urllib.request", "ssl", "asyncio"}
