"""The log: its contents, what it must not contain, and that a slow reader blocks nothing."""

import contextlib
import errno
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from resnet_service.observability.logs import BackgroundWriter, count_lost_lines, formatter, printable, writing
from resnet_service.observability.request_context import RequestContext, current
from resnet_service.system.shared_memory import SharedTable
from tests.support.images import encoded, noise
from tests.support.servers import REPOSITORY, ServerProcess, server_process
from tests.support.waiting import until
from tests.support.wire import connected, read_to_end

MODEL = REPOSITORY / "checkpoints" / "resnet18-fashion-mnist-int8.onnx"
IMAGE = encoded(noise(40, 30), "JPEG")
HOSTILE = "/x\nINFO forged\r\x1b[2J\u202e\u2028" + "y" * 5000


def record(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("resnet_service", logging.INFO, __file__, 1, message, arguments, None)
    made.__dict__ |= extra
    return made


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_untrusted_text_stays_one_escaped_bounded_line(log_format: str) -> None:
    made = formatter("json" if log_format == "json" else "console")
    for line in (made.format(record("about %s", HOSTILE)), made.format(record("request", path=HOSTILE))):
        assert line.isprintable()
        assert len(line) < 2500
        assert "forged" in line


def test_escapes_are_readable() -> None:
    assert printable("a\nb\x1b\u202eé") == r"a\nb\x1b\u202eé"
    assert printable("abc", 2) == "ab…"


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_cannot_forge_a_line_and_shows_no_values(log_format: str) -> None:
    image = b"the image's own bytes"

    def fail() -> None:
        assert image
        raise RuntimeError("one\n2026-01-01 [info] forged\x1b[2J")

    try:
        fail()
    except RuntimeError:
        made = record("It failed.")
        made.exc_info = sys.exc_info()
    first, *others = formatter("json" if log_format == "json" else "console").format(made).splitlines()
    assert "RuntimeError" in "".join([first, *others])
    assert "forged" in "".join([first, *others])
    assert all(line.startswith("    ") and line.isprintable() for line in others)
    assert "own bytes" not in "".join([first, *others])
    assert (log_format == "json") == (not others)


def test_lines_carry_the_request_of_their_context_and_only_what_is_listed() -> None:
    token = current.set(RequestContext("mine"))
    try:
        line = json.loads(formatter("json").format(record("It happened.", status=200, authorization="Bearer secret")))
    finally:
        current.reset(token)
    assert line.keys() == {"event", "level", "logger", "timestamp", "request_id", "status"}
    assert (line["event"], line["level"], line["request_id"]) == ("It happened.", "info", "mine")


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing_end = os.pipe()
    yield reading, writing_end
    for end in (reading, writing_end):
        os.close(end)


def test_a_stopped_reader_blocks_nothing_and_dropped_lines_are_counted(pipe: tuple[int, int]) -> None:
    reading, writing_end = pipe
    writer = BackgroundWriter(writing_end, capacity=100)
    writer.setFormatter(logging.Formatter("%(message)s"))
    begun = time.monotonic()
    for number in range(1000):
        writer.handle(record("%04d %s", number, "x" * 1000))
    assert time.monotonic() - begun < 2
    os.set_blocking(reading, False)
    received = b""
    end = time.monotonic() + 10
    while b"were dropped" not in received and time.monotonic() < end:
        try:
            received += os.read(reading, 65536)
        except BlockingIOError:
            time.sleep(0.01)
    writer.close()
    told = re.search(rb"(\d+) log lines were dropped", received)
    assert told is not None
    whole = re.findall(rb"^\d{4} x{1000}$", received, re.MULTILINE)
    assert 800 < int(told[1]) < 1000
    assert len(whole) <= 1000 - int(told[1])


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list whose only item is the number of bytes that the disk still holds; the log is `os.write`'s user."""
    space = [1 << 20]
    really_write = os.write

    def write(descriptor: int, data: bytes) -> int:
        if space[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = really_write(descriptor, data[: space[0]])
        space[0] -= written
        return written

    monkeypatch.setattr(os, "write", write)
    return space


def test_lines_lost_to_a_full_disk_are_counted_and_reported_once_and_tear_no_other(
    tmp_path: Path, full_disk: list[int]
) -> None:
    path = tmp_path / "log"
    counted: list[int] = []
    with path.open("wb") as file, writing("json", "info", file.fileno()):
        (writer,) = (handler for handler in logging.getLogger().handlers if isinstance(handler, BackgroundWriter))
        count_lost_lines(counted.append)
        log = logging.getLogger("resnet_service.test")
        log.info("before")
        writer.flush()
        full_disk[0] = 30
        for _ in range(2):
            log.info("lost")
            writer.flush()
        full_disk[0] = 1 << 20
        log.info("after")
        writer.flush()
        log.info("later")
    assert sum(counted) == writer.lost == 2
    events = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            events.append(json.loads(line)["event"])
    assert events == ["before", "after", "2 log lines were dropped here.", "later"]


def test_the_log_thread_survives_what_fails_in_it(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing_end = pipe
    writer = BackgroundWriter(writing_end, capacity=1)
    writer.setFormatter(logging.Formatter("%(message)s"))

    def fail(*arguments: object) -> int:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", fail)
        writer.handle(record("lost"))
        writer.flush()
        # Here the number of lost lines cannot even be formatted.
        patched.setattr(writer, "format", fail)
        writer.flush()
    writer.handle(record("written"))
    writer.close()
    os.set_blocking(reading, False)
    assert os.read(reading, 65536) == b"written\n1 log lines were dropped here.\n"


def test_the_end_waits_for_what_is_written_and_not_for_a_reader_that_has_stopped(pipe: tuple[int, int]) -> None:
    reading, writing_end = pipe
    log = logging.getLogger("resnet_service.test")
    with writing("console", "info", writing_end):
        log.info("the last words")
    os.set_blocking(reading, False)
    assert b"the last words" in os.read(reading, 65536)
    with writing("json", "info", writing_end):
        (writer,) = (handler for handler in logging.getLogger().handlers if isinstance(handler, BackgroundWriter))
        for _ in range(200):
            log.info("x" * 1000)
        begun = time.monotonic()
    for _ in range(3):  # as the end of the process does
        writer.flush()
        writer.close()
    assert time.monotonic() - begun < 5


def test_a_closed_reader_is_no_error() -> None:
    reading, writing_end = os.pipe()
    os.close(reading)
    with writing("json", "info", writing_end):
        logging.getLogger("resnet_service.test").info("no reader")
    os.close(writing_end)


def test_others_debug_lines_are_left_out(pipe: tuple[int, int]) -> None:
    """Pillow's debug lines contain image metadata."""
    reading, writing_end = pipe
    with writing("json", "debug", writing_end):
        logging.getLogger("PIL.TiffImagePlugin").debug("tag 315: somebody's name")
        logging.getLogger("resnet_service").debug("ours")
    assert b"somebody" not in (written := os.read(reading, 65536))
    assert b"ours" in written


def lines(server: ServerProcess) -> list[dict[str, object]]:
    return [json.loads(line) for line in server.log.splitlines()]


def test_the_real_process_writes_one_line_of_json_a_request() -> None:
    tagged = Image.Exif()
    tagged[315] = "somebody's name"
    secrets = {"Authorization": "Bearer s3cret", "X-API-Key": "s3cret", "Cookie": "s3cret", "User-Agent": "s3cret"}
    with server_process("--checkpoint", MODEL, "--log-format", "json", "--log-level", "debug") as server:
        with httpx.Client(base_url=server.url, headers=secrets, timeout=30) as client:
            client.post("/predict?top_k=1&key=s3cret", content=IMAGE, headers={"X-Request-ID": "mine"})
            client.post(
                "/predict", content=encoded(noise(9, 9), "TIFF", exif=tagged), headers={"X-Forwarded-For": "192.0.2.1"}
            )
            client.post("/predict", content=b"somebody's bytes")
            client.get("/no%0aINFO%20forged%1b%5b2J?key=s3cret")
        with connected(server.url) as connection:
            connection.sendall(b"s3cret nonsense\r\n\r\n")
            read_to_end(connection)
        server.stop()
        said = lines(server)
    requests = [line for line in said if line["event"] == "request"]
    assert [(line.get("route"), line["status"], line.get("code")) for line in requests] == [
        ("/predict", 200, None),
        ("/predict", 200, None),
        ("/predict", 415, "not_an_image"),
        ("unmatched", 404, "not_found"),
        (None, 400, "malformed_request"),
    ]
    first = requests[0]
    assert (first["request_id"], first["method"], first["received"]) == ("mine", "POST", len(IMAGE))
    assert all(line["client"] == "127.0.0.1" for line in requests)
    assert isinstance(first["ms"], float)
    assert isinstance(first["sent"], int)
    assert first["sent"] > 100
    assert all(re.fullmatch("[0-9a-f]{32}", str(line["request_id"])) for line in requests[1:])
    assert requests[3]["path"] == r"/no\nINFO forged\x1b[2J"
    assert all(secret not in server.log for secret in ("s3cret", "somebody"))


def test_the_real_process_believes_the_proxies_that_are_named() -> None:
    with server_process("--checkpoint", MODEL, "--log-format", "json", "--trusted-proxies", "loopback") as server:
        httpx.get(f"{server.url}/labels", headers={"X-Forwarded-For": "192.0.2.1, 127.0.0.2"}).raise_for_status()
        server.stop()
        (line,) = (line for line in lines(server) if line["event"] == "request")
    assert line["client"] == "192.0.2.1"


def test_probes_are_not_in_the_log_and_start_and_end_are_readable() -> None:
    with server_process("--checkpoint", MODEL, "--log-format", "console") as server:
        for path in ("/health/live", "/health/ready", "/metrics"):
            assert httpx.get(f"{server.url}{path}").status_code == 200
        assert httpx.get(f"{server.url}/labels").status_code == 200
        server.stop()
    assert [line.split("] ", 1)[1].split(" ")[0] for line in server.log.splitlines()] == ["Serving", "Ready", "request"]
    assert "health" not in server.log
    assert "\x1b" not in server.log  # no colours where there is no terminal
    assert "route=/labels" in server.log


def test_a_second_signal_still_says_so() -> None:
    with server_process("--checkpoint", MODEL, "--drain-delay", "30") as server:
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 128 + signal.SIGTERM
        server.stop()
    assert "A second signal" in server.log


def test_a_log_on_a_full_disk_is_counted_and_stops_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "resnet_service", "serve", "--port", str(port), "--checkpoint", str(MODEL)]
    with open("/dev/full", "wb") as full:
        process = subprocess.Popen(command, stderr=full, cwd=REPOSITORY)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:

            def lost() -> float:
                try:
                    metrics = client.get("/metrics").text
                except httpx.TransportError:  # it does not listen yet
                    return 0
                (counted,) = re.findall(r"^resnet_service_log_lines_lost_total (\S+)$", metrics, re.MULTILINE)
                return float(counted)

            until(lambda: lost() == 2, 60)  # the first lines: what is served, and where
            assert client.post("/predict", content=IMAGE).status_code == 200
            until(lambda: lost() == 3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait(20)


def test_an_unread_log_does_not_stop_the_service(tmp_path: Path) -> None:
    """A pipe holds 64 KB; if the event loop wrote the log, the next line would block the service."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "resnet_service", "serve", "--port", str(port), "--checkpoint", str(MODEL)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, cwd=REPOSITORY)
    assert process.stderr is not None
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            end = time.monotonic() + 60
            while True:
                assert time.monotonic() < end
                try:
                    client.get("/health/ready").raise_for_status()
                    break
                except httpx.TransportError:
                    time.sleep(0.05)
            for _ in range(500):
                assert client.get(f"/{'x' * 200}").status_code == 404
            assert client.post("/predict", content=IMAGE).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stderr.read().count(b"\n") < 500, "the pipe was never full"
    finally:
        process.kill()
        process.wait(20)
        process.stderr.close()


WRITE_LONG_LINES = """
import logging, os, sys
from resnet_service.observability.logs import share_log, writing
from resnet_service.system.shared_memory import SharedTable
with writing("json", "info", 1):
    share_log(SharedTable(1, 1, int(sys.argv[1])).lock)
    for _ in range(100):
        logging.getLogger("resnet_service").info(sys.argv[2] * 1000, exc_info=ValueError(sys.argv[2] * 1500))
"""


def test_processes_do_not_tear_each_others_lines() -> None:
    table = SharedTable(1, 1)
    reading, written = os.pipe()
    commands = [[sys.executable, "-c", WRITE_LONG_LINES, str(table.descriptor), letter] for letter in ("é", "ü")]
    writers = [subprocess.Popen(command, stdout=written, pass_fds=(table.descriptor,)) for command in commands]
    os.close(written)
    with open(reading) as lines:
        events = [json.loads(line) for line in lines]
    assert [writer.wait(20) for writer in writers] == [0, 0]
    assert len(events) == 200
