"""Running servers: started on a free port, checked and loaded."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import client, load
from benchmarks.catalogue import Server
from benchmarks.files import Files
from benchmarks.processes import ProcessTree, free_port

_START_SECONDS = 120.0


class WrongAnswer(RuntimeError):
    """A server's answer is not that of the network, so its speed does not count."""


class RunningServer:
    """A server whose first answer was correct."""

    def __init__(self, server: Server, tree: ProcessTree, port: int, seconds_to_answer: float) -> None:
        self.server = server
        self.tree = tree
        self.seconds_to_answer = seconds_to_answer
        self._port = port

    def load(self, images: Sequence[Path], *, connections: int, seconds: int) -> load.Load:
        """Let wrk post ``images``, then wait until the server has finished the remaining requests.

        wrk disconnects when its time is over. A slow server still has a queue of requests then, of more than a second
        after 64 connections, which would slow the next measurement down.
        """
        url = f"http://127.0.0.1:{self._port}{self.server.path}"
        found = load.run(url, self.server.form_field, images, connections=connections, seconds=seconds)
        self.tree.settle()
        return found


@contextmanager
def running(server: Server, files: Files, folder: Path) -> Iterator[RunningServer]:
    """Start ``server``, check its first answer, and stop it after the block.

    Its log, temporary files and home folder are in ``folder``.

    Raises:
        RuntimeError: It did not answer, or not correctly; the message has the end of its log.

    """
    port = free_port()
    path = folder / f"{server.name}.log"
    sent = client.upload(files.checked_image.read_bytes(), server.form_field)
    command = [part.replace("{port}", str(port)) for part in server.command]
    folders = {"HOME": str(folder), "TMPDIR": str(folder)}
    with path.open("ab") as log:
        started = time.perf_counter()
        tree = ProcessTree(command, {**server.variables, **folders, "PORT": str(port)}, log)
        try:
            body = _answered(tree, port, server.path, sent, path)
            seconds = time.perf_counter() - started
            _check(body, server, files)
            yield RunningServer(server, tree, port, seconds)
        finally:
            tree.stop()


def _answered(tree: ProcessTree, port: int, path: str, sent: client.Upload, log: Path) -> bytes:
    try:
        return client.first_answer(port, path, sent, ended=lambda: tree.ended, within=_START_SECONDS)
    except RuntimeError as error:
        raise RuntimeError(f"{error}\n{log.read_text(errors='replace')[-2000:]}") from error


def _check(body: bytes, server: Server, files: Files) -> None:
    expected = json.loads(files.answers.read_text())[server.reference]
    try:
        found = client.classes(body)
    except ValueError as error:
        raise WrongAnswer(str(error)) from error
    if len(found) != len(expected) or found[0] != expected[0]:
        raise WrongAnswer(f"{server.name} answers {found} instead of {expected}")
