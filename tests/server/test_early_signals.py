"""Signals that come while the real process starts."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.servers import REPOSITORY, START_SECONDS
from tests.support.waiting import until

EXPORTED = REPOSITORY / "checkpoints" / "resnet18-fashion-mnist-int8.onnx"
# Seconds from the moment at which it handles signals; the last ones are about when it is ready.
OFFSETS = (0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 1.0, 1.3)


@contextmanager
def starting(count: str) -> Iterator["subprocess.Popen[str]"]:
    """Yield a service that has begun to start, as soon as it handles signals."""
    flags = ("--port", "0", "--checkpoint", str(EXPORTED), "--workers", "2", "--processes", count)
    with subprocess.Popen(
        [sys.executable, "-m", "resnet_service", "serve", *flags], stderr=subprocess.PIPE, text=True, cwd=REPOSITORY
    ) as process:
        try:
            until(lambda: handles(process.pid, signal.SIGTERM), START_SECONDS)
            yield process
        finally:
            process.kill()


def handles(pid: int, number: int) -> bool:
    found = re.search(r"SigCgt:\s+(\w+)", Path(f"/proc/{pid}/status").read_text())
    return found is not None and bool(int(found[1], 16) >> (number - 1) & 1)


@pytest.mark.slow
@pytest.mark.parametrize("count", ["1", "2"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_a_start_with_the_code_of_a_drain_and_no_traceback(number: int, code: int, count: str) -> None:
    for offset in OFFSETS:
        with starting(count) as process:
            time.sleep(offset)
            process.send_signal(number)
            _, said = process.communicate(timeout=20)
            assert (process.returncode, "Traceback" in said, "rror" in said) == (code, False, False), (offset, said)


def test_it_handles_signals_before_it_imports_what_it_serves_with() -> None:
    with starting("1") as process:
        os.kill(process.pid, signal.SIGSTOP)
        assert "pydantic" not in Path(f"/proc/{process.pid}/maps").read_text()
        os.kill(process.pid, signal.SIGCONT)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.slow
@pytest.mark.parametrize("count", ["1", "2"])
def test_a_reload_signal_does_not_end_a_start(count: str) -> None:
    with starting(count) as process, ThreadPoolExecutor(1) as pool:
        assert process.stderr is not None
        said = pool.submit(process.stderr.readline)
        while not said.done():
            process.send_signal(signal.SIGHUP)
            time.sleep(0.05)
        assert "Serving " in said.result()
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=20)
        assert process.returncode == 0
        assert "Traceback" not in rest
