"""Native libraries, stuck threads and closed descriptors neither silence the real process nor keep it from ending."""

import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.support.faults import STUCK
from tests.support.images import CAT, encoded, noise
from tests.support.servers import REPOSITORY
from tests.support.waiting import until

EXPORTED = REPOSITORY / "checkpoints" / "resnet18-fashion-mnist-int8.onnx"
IMAGE = CAT.read_bytes()

# Every image makes the process write 600 kB to descriptor 2, as libtiff would, with the interpreter lock held.
CHATTY = """
import ctypes
from resnet_service.inference.classifier import Classifier
libc = ctypes.PyDLL(None)
classify = Classifier.classify
def chatty(self, data, top_k=None):
    for number in range(5000):
        libc.dprintf(2, b"native library: %s\\n", b"x" * 100)
    return classify(self, data, top_k)
Classifier.classify = chatty
"""
RUN = "\nfrom resnet_service.__main__ import main\nmain()\n"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready").status_code == 200
    except httpx.TransportError:
        return False


def child_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0])


@contextmanager
def serving(
    *command: str, stderr: int | None, options: tuple[str, ...] = ()
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Serve with ``command``, which ``serve`` and its options follow; yield URL and process, which is killed."""
    port = free_port()
    arguments = ["serve", "--port", str(port), "--checkpoint", str(EXPORTED), "--log-format", "json", *options]
    process = subprocess.Popen([*command, *arguments], stderr=stderr, cwd=REPOSITORY)
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: ready(url) or process.poll() is not None, seconds=60)
        yield url, process
    finally:
        process.kill()
        process.wait(10)


def unknown_tags() -> bytes:
    """Return a TIFF about each of whose 4,000 unknown fields libtiff writes two lines."""
    tiff = encoded(noise(8, 8).convert("L"), "TIFF", compression="tiff_lzw")
    directory = int.from_bytes(tiff[4:8], "little")
    count = int.from_bytes(tiff[directory : directory + 2], "little")
    own = tiff[directory + 2 : directory + 2 + 12 * count]
    unknown = b"".join(
        (50_000 + number).to_bytes(2, "little") + bytes(2) + (1).to_bytes(4, "little") + bytes(4)
        for number in range(4000)
    )
    start = len(tiff) + len(tiff) % 2
    table = (count + 4000).to_bytes(2, "little") + own + unknown + bytes(4)
    return tiff[:4] + start.to_bytes(4, "little") + tiff[8:].ljust(start - 8, b"\0") + table


@pytest.mark.parametrize("script", ["", CHATTY], ids=["libtiff", "another library"])
def test_messages_of_native_libraries_do_not_tear_the_log(script: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    images = 10 if not script else 5
    with (
        log.open("wb") as file,
        serving(sys.executable, "-c", script + RUN, stderr=file.fileno()) as (url, process),
    ):
        for _ in range(images):
            assert httpx.post(f"{url}/predict", content=unknown_tags(), timeout=30).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    lines = log.read_text().splitlines()
    assert all(json.loads(line) for line in lines)
    assert sum("On stderr: " in line for line in lines) == (20 if script else 0)
    assert log.stat().st_size < 50_000


def test_it_answers_and_ends_when_nobody_reads_what_native_libraries_write() -> None:
    reading, writing = os.pipe()
    with serving(sys.executable, "-c", CHATTY + RUN, stderr=writing) as (url, process):
        os.close(writing)
        os.set_blocking(reading, False)
        for _ in range(5):
            assert httpx.post(f"{url}/predict", content=IMAGE, timeout=10).status_code == 200
        assert ready(url)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    os.close(reading)


@pytest.mark.parametrize(("number", "said"), [(signal.SIGSEGV, "Segmentation fault"), (signal.SIGABRT, "Aborted")])
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_crash_says_where_on_the_real_stderr(
    number: signal.Signals, said: str, processes: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    options = ("--processes", processes)
    with (
        log.open("wb") as file,
        serving(sys.executable, "-m", "resnet_service", stderr=file.fileno(), options=options) as (_, process),
    ):
        crashed = process.pid if processes == "1" else child_of(process.pid)
        os.kill(crashed, number)
        until(lambda: "most recent call first" in log.read_text())
        if processes == "1":
            assert process.wait(10) == -number
    assert f"Fatal Python error: {said}" in log.read_text()


def test_a_crash_ends_the_process_when_nobody_reads_stderr() -> None:
    reading, writing = os.pipe()
    with serving(sys.executable, "-m", "resnet_service", stderr=writing) as (_, process):
        os.set_blocking(writing, False)
        with suppress(BlockingIOError):
            while os.write(writing, b"x" * 4096):
                pass
        os.set_blocking(writing, True)  # it is the server's descriptor, too
        process.send_signal(signal.SIGSEGV)
        assert process.wait(10) == -signal.SIGSEGV
    os.close(writing)
    os.close(reading)


@pytest.mark.slow
@pytest.mark.parametrize(("ending", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_threads_that_do_not_come_back_make_it_unready_and_do_not_keep_it(
    ending: signal.Signals, code: int, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with (
        log.open("wb") as file,
        serving(sys.executable, "-c", STUCK + RUN, stderr=file.fileno(), options=("--deadline", "1")) as (url, process),
    ):
        assert httpx.post(f"{url}/predict", content=encoded(noise(9, 9), "PNG"), timeout=10).status_code == 504
        until(lambda: not ready(url))
        assert "has not come back" in httpx.get(f"{url}/health/ready").json()["detail"]
        begun = time.monotonic()
        process.send_signal(ending)
        assert process.wait(20) == code
        assert time.monotonic() - begun < 15
    said = log.read_text()
    assert "An inference thread has not come back" in said
    assert "exiting without them" in said


CLOSED = [closed for size in (1, 2, 3) for closed in itertools.combinations(("<", ">", "2>"), size)]


@pytest.mark.slow
@pytest.mark.parametrize("closed", CLOSED, ids="".join)
def test_it_serves_with_closed_descriptors(closed: tuple[str, ...], tmp_path: Path) -> None:
    redirects = [
        f"{sign}&-" if sign in closed else f"{sign}{tmp_path / name}"
        for sign, name in zip(("<", ">", "2>"), ("in", "out", "log"), strict=True)
    ]
    (tmp_path / "in").touch()
    shell = f'exec "{sys.executable}" -m resnet_service "$@" {" ".join(redirects)}'
    with serving("sh", "-c", shell, "sh", stderr=None) as (url, process):
        assert process.poll() is None, "it started"
        for number in range(3):
            assert "socket" not in os.readlink(f"/proc/{process.pid}/fd/{number}")
        assert httpx.post(f"{url}/predict", content=IMAGE).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    shown = [name for sign, name in (("2>", "log"), (">", "out")) if sign not in closed]
    if shown:
        assert re.search(r'"status": ?200', (tmp_path / shown[0]).read_text())
