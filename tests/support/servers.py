"""Servers for tests: the real process, and an app in a thread; both on 127.0.0.1 on a free port, every wait bounded."""

import functools
import http.server
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from fastapi import FastAPI
from typer.testing import CliRunner

from resnet_service.cli.app import app as command_line
from resnet_service.server.server import Server

REPOSITORY = Path(__file__).parents[2]
START_SECONDS = 60
STOP_SECONDS = 20


def cli(*arguments: str | Path, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        [sys.executable, "-m", "resnet_service", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=REPOSITORY,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


def cli_here(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in this process, which has already imported PyTorch: a new process takes seconds."""
    result = CliRunner().invoke(
        command_line, [*map(str, arguments)], env={"COLUMNS": "200", **environment}, catch_exceptions=False
    )
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)


PYTORCH = ("torch", "torchvision", "timm", "onnxscript")  # the extra `torch`, but for what `quantize` has too


def hidden(folder: Path, packages: Iterable[str] = PYTORCH) -> str:
    """Return a ``PYTHONPATH`` with which ``packages`` seem not to be installed; it is ``folder``, which is written."""
    folder.mkdir(exist_ok=True)
    for name in packages:
        (folder / f"{name}.py").write_text(f'raise ModuleNotFoundError("No module named {name}", name="{name}")')
    return str(folder)


class ServerProcess:
    """`resnet-service serve` as a child process, ready for requests."""

    url: str

    def __init__(
        self, *arguments: str | Path, cwd: Path = REPOSITORY, python: str | Path = sys.executable, **environment: str
    ) -> None:
        self._log: list[str] = []
        self.process = subprocess.Popen(
            [str(python), "-m", "resnet_service", "serve", "--port", "0", *map(str, arguments)],
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env={**os.environ, **environment},
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._url: str | None = None
        self._started = threading.Event()
        self._reader.start()
        self._started.wait(START_SECONDS)
        if self._url is None:
            self.process.kill()
            raise AssertionError(f"the server did not start:\n{self.log}")
        self.url = self._url

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self._log.append(line)
                if found := re.search(r"Ready on (http://\S+)/", line):
                    self._url = found[1]
                    self._started.set()
        self._started.set()

    @property
    def log(self) -> str:
        return "".join(self._log)

    def stop(self) -> int:
        """Stop it as an orchestrator does, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_SECONDS)
            raise
        self._reader.join(STOP_SECONDS)
        return code


@contextmanager
def server_process(
    *arguments: str | Path, python: str | Path = sys.executable, **environment: str
) -> Iterator[ServerProcess]:
    server = ServerProcess(*arguments, cwd=REPOSITORY, python=python, **environment)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def served(app: FastAPI) -> Iterator[httpx.Client]:
    """Serve ``app`` over a real socket from a thread of this process; yield a client for it."""
    server = Server(app, app.state.settings, port=0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + START_SECONDS
    while not server.started:
        assert thread.is_alive(), "the app did not start"
        assert time.monotonic() < deadline, "the app did not start in time"
        threading.Event().wait(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(STOP_SECONDS)
        assert not thread.is_alive()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


class _BreaksOff(_Quiet):
    """Announces a whole file and sends half of it."""

    def copyfile(self, source: object, outputfile: object) -> None:
        data = source.read()  # type: ignore[attr-defined]
        outputfile.write(data[: len(data) // 2])  # type: ignore[attr-defined]


@contextmanager
def file_server(folder: Path, *, breaks_off: bool = False) -> Iterator[str]:
    """Serve a folder's files; yield its URL."""
    handler = functools.partial(_BreaksOff if breaks_off else _Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join(STOP_SECONDS)
