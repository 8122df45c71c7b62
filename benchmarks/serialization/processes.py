"""Fresh processes that load files, with a limit on every wait."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from benchmarks.paths import REPOSITORY, environment

_LIMIT_SECONDS = 120.0


class Setup(NamedTuple):
    """What all loaders of a run share: number of classes, of threads, and a file of crops, uint8 [N, S, S, 3]."""

    classes: int
    threads: int
    crops: Path


class Loaded(NamedTuple):
    """A file that was loaded: seconds from the request to the first answer, times of further answers, and memory."""

    seconds: float
    logits: NDArray[np.float32]
    milliseconds: list[float]
    peak_bytes: int


class Failed(NamedTuple):
    """A file that was not loaded: the error's class, or ``ended`` if the process ended, crashed or took too long."""

    error: str
    message: str


class LoadingProcess:
    """A process with one loader; a new one is started for the next file if it ends."""

    def __init__(self, loader: str, setup: Setup, *, python: Path = Path(sys.executable), block: tuple[str, ...] = ()):
        """Remember what to start; nothing is started before the first file."""
        blocked = ["--block", *block] if block else []
        shared = [str(setup.classes), str(setup.threads), str(setup.crops)]
        self._command = [str(python), "-m", "benchmarks.serialization.child", loader, *shared, *blocked]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        """Return this."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the process."""
        self._end()

    def load(self, path: Path, *, runs: int = 0) -> Loaded | Failed:
        """Load a file; the time counts from the start of the process if this is its first file."""
        begin = time.perf_counter()
        if self._process is None:
            # The package may not be installed for another interpreter.
            variables = environment(PYTHONPATH=str(REPOSITORY / "src"), PYTHONWARNINGS="ignore")
            self._process = subprocess.Popen(
                self._command,
                cwd=REPOSITORY,
                env=variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        process = self._process
        timer = threading.Timer(_LIMIT_SECONDS, process.kill)
        timer.start()
        try:
            first = _exchange(process, json.dumps({"path": str(path), "runs": runs}))
            seconds = time.perf_counter() - begin
            answer = _read(process) if first == {"answered": True} else first
        finally:
            timer.cancel()
        if answer is None:
            self._end()
            return Failed("ended", "The process ended, or took too long.")
        if "error" in answer:
            return Failed(answer["error"], answer["message"])
        logits = np.asarray(answer["logits"], np.float32)
        return Loaded(seconds, logits, answer["milliseconds"], answer["peak_bytes"])

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate(timeout=_LIMIT_SECONDS)


def _exchange(process: subprocess.Popen[str], line: str) -> dict[str, Any] | None:
    assert process.stdin is not None  # noqa: S101 - it was started with a pipe
    try:
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
    except BrokenPipeError:
        return None
    return _read(process)


def _read(process: subprocess.Popen[str]) -> dict[str, Any] | None:
    """Return the next answer; ``None`` if the process has ended."""
    assert process.stdout is not None  # noqa: S101
    line = process.stdout.readline()
    try:
        answer: dict[str, Any] = json.loads(line)
    except ValueError:  # nothing, or the beginning of a line
        return None
    return answer
