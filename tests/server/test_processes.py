"""A service of several processes: the real ones, under one supervisor."""

import errno
import fcntl
import gc
import json
import os
import re
import selectors
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import httpx
import onnx
import pytest

from resnet_service.errors import ServiceError
from resnet_service.server.supervisor import Supervisor, Worker, process_count
from resnet_service.server.worker import READY, SIGNALS
from resnet_service.settings import Settings
from resnet_service.system.cpus import available_cpus
from resnet_service.system.shared_state import Column
from tests.support.faults import STUCK
from tests.support.images import CAT, encoded, noise
from tests.support.processes import children, running
from tests.support.servers import REPOSITORY, ServerProcess, cli, server_process
from tests.support.waiting import until
from tests.support.wire import connected, head, read_answer

EXPORTED = REPOSITORY / "checkpoints" / "resnet18-fashion-mnist-int8.onnx"
IMAGE = CAT.read_bytes()


def workers_of(server: ServerProcess) -> list[int]:
    return children(server.process.pid)


@contextmanager
def processes(
    count: int = 2, *arguments: str | Path, python: str | Path = sys.executable, **environment: str
) -> Iterator[ServerProcess]:
    flags = ("--checkpoint", EXPORTED, "--processes", str(count), "--workers", str(count))
    with server_process(*flags, *arguments, python=python, **environment) as server:
        yield server


def python_under(script: str, folder: Path) -> Path:
    """Write a shell script that runs Python in other namespaces."""
    python = folder / "python"
    python.write_text(script.format(python=sys.executable))
    python.chmod(0o755)
    return python


def figure(server: ServerProcess, series: str) -> float:
    text = httpx.get(f"{server.url}/metrics").raise_for_status().text
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


ANSWERED = 'resnet_service_requests_total{method="POST",route="/predict",status="200"}'
RESTARTS = "resnet_service_worker_restarts_total"
IN_FLIGHT = "resnet_service_requests_in_flight"


def test_one_process_serves_up_to_four_cpus() -> None:
    assert process_count(Settings(workers=64)) == -(-available_cpus() // 4)
    assert process_count(Settings(processes=3, workers=2)) == 2


@pytest.mark.slow
def test_connections_spread_and_counts_are_exact_before_and_after_a_death() -> None:
    with processes(4) as server, ExitStack() as stack:
        sockets = [stack.enter_context(connected(server.url)) for _ in range(16)]
        for each in sockets:
            each.sendall(head(Content_Length=len(IMAGE)) + IMAGE)
            assert read_answer(each).startswith(b"HTTP/1.1 200 ")
        until(lambda: server.log.count('"route": "/predict"') == 16)
        lines = [json.loads(line) for line in server.log.splitlines()]
        counts = Counter(line["process_index"] for line in lines if line.get("route") == "/predict")
        assert sum(counts.values()) == 16
        assert max(counts.values()) <= 1.5 * 16 / 4, counts
        assert figure(server, ANSWERED) == 16
        # Each process now has two requests in its hands.
        halves = [stack.enter_context(connected(server.url)) for _ in range(8)]
        for each in halves:
            each.sendall(head(Content_Length=len(IMAGE)) + IMAGE[:1000])
        until(lambda: figure(server, IN_FLIGHT) == 8 + 1)  # and the scrape itself
        os.kill(workers_of(server)[0], signal.SIGKILL)
        until(lambda: "is replaced" in server.log)
        until(lambda: len(workers_of(server)) == 4)
        until(lambda: figure(server, IN_FLIGHT) < 9)
        in_flight = figure(server, IN_FLIGHT) - 1
        answered = 0
        for each in halves:
            with suppress(OSError):  # it was in the hands of the dead process
                each.sendall(IMAGE[1000:])
                answered += read_answer(each).startswith(b"HTTP/1.1 200 ")
        assert 0 < answered < 8
        assert answered == in_flight
        assert figure(server, ANSWERED) == 16 + answered
        assert figure(server, RESTARTS) == 1
        assert figure(server, IN_FLIGHT) == 1


@pytest.mark.slow
def test_bytes_that_a_dead_process_held_are_free_again() -> None:
    body = bytes(900_000)
    limits = ("--max-body-bytes", "1000000", "--max-batch-bytes", "1000000", "--max-receiving-bytes", "1200000")
    with processes(2, *limits) as server, connected(server.url) as holding:
        holding.sendall(head(Content_Length=len(body)) + body[:-1])

        def status() -> int:
            return httpx.post(f"{server.url}/predict", content=body, timeout=30).status_code

        until(lambda: status() == 429)
        for victim in workers_of(server):
            os.kill(victim, signal.SIGKILL)
            until(partial(lambda pid: not running(pid), victim))
        until(lambda: status() == 415, 30)  # it is no image, and was read


# Lets a signal hang the event loop of any process that has this module in its path.
HANGING = """
import signal, time
signal.signal(signal.SIGUSR1, lambda number, frame: time.sleep(60))
def spin(number, frame):
    while True:
        pass
signal.signal(signal.SIGUSR2, spin)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGUSR1, signal.SIGUSR2])
def test_a_process_that_hangs_is_ended_within_two_seconds_and_keeps_no_connection_out(
    number: int, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HANGING)
    ended_after, slowest = [], []
    with processes(PYTHONPATH=str(tmp_path)) as server:
        for serving in (3, 4, 5):
            victim = workers_of(server)[0]
            begun, before = time.monotonic(), seconds_waited(victim)
            os.kill(victim, number)
            answers, waited = [], 0.0
            with ExitStack() as stack:
                while running(victim):
                    asked = time.monotonic()
                    assert asked < begun + 20
                    with suppress(OSError):  # it has just ended
                        waited = seconds_waited(victim) - before
                    # It stays open, so that the other process soon has more connections than the one that hangs.
                    each = stack.enter_context(connected(server.url))
                    each.sendall(head("GET", "/health/ready"))
                    assert read_answer(each).startswith(b"HTTP/1.1 200 ")
                    answers.append(time.monotonic() - asked)
                    time.sleep(0.02)
            # On a busy machine, a process that computes has the time that it waits for a CPU in addition.
            ended_after.append(time.monotonic() - begun - waited)
            slowest.append(max(answers))
            until(partial(lambda count: server.log.count("Serving ") == count, serving), 15)
        assert figure(server, RESTARTS) == 3
        assert server.stop() == 0
    print(f"signal {number}: ended after {ended_after} s, the slowest new connections took {slowest} s")
    assert statistics.median(ended_after) < 2, ended_after
    assert statistics.median(slowest) < 0.3, slowest


def seconds_waited(pid: int) -> float:
    """Return for how long a process's first thread has waited for a CPU."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


@contextmanager
def starved(pid: int) -> Iterator[None]:
    """Leave a process next to nothing of one CPU, as its group's quota or its neighbours may."""
    cpu = {min(os.sched_getaffinity(0))}
    threads = [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()]
    for thread in threads:
        os.sched_setaffinity(thread, cpu)
        os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
    burn = f"import os; os.sched_setaffinity(0, {cpu}); exec('while True: pass')"
    burners = [subprocess.Popen([sys.executable, "-c", burn]) for _ in range(3)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait(10)


@pytest.mark.slow
def test_a_process_that_only_waits_for_a_cpu_is_left_alone() -> None:
    with processes() as server, ExitStack() as stack:
        victim = workers_of(server)[0]
        sockets = [stack.enter_context(connected(server.url)) for _ in range(8)]
        with starved(victim):
            for each in sockets:
                each.sendall(head(Content_Length=len(IMAGE)) + IMAGE)
            time.sleep(8)
        for each in sockets:
            assert read_answer(each).startswith(b"HTTP/1.1 200 ")
        assert running(victim), server.log
        assert figure(server, RESTARTS) == 0


@pytest.mark.slow
def test_a_reload_fails_no_request_and_reaches_every_process(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("old-key-0123456789\nnew-key-0123456789\n")
    codes: Counter[int] = Counter()
    ended = threading.Event()

    def headers(key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}-key-0123456789"}

    def statuses(key: str) -> set[int]:
        asked = [httpx.get(f"{server.url}/metadata", headers=headers(key)) for _ in range(8)]
        return {answer.status_code for answer in asked}

    def ask() -> None:
        while not ended.is_set():
            answer = httpx.post(f"{server.url}/predict", content=IMAGE, headers=headers("new"))
            codes[answer.status_code] += 1

    with processes(2, "--api-keys-file", keys) as server:
        assert (statuses("new"), statuses("old")) == ({200}, {200})
        thread = threading.Thread(target=ask)
        thread.start()
        keys.write_text("new-key-0123456789\n")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: server.log.count("Serving ") == 4, 20)
        ended.set()
        thread.join(10)
        assert set(codes) == {200}
        assert (statuses("new"), statuses("old")) == ({200}, {401})
        # A process that is started later has the new keys, too.
        for victim in workers_of(server):
            os.kill(victim, signal.SIGKILL)
        until(lambda: server.log.count("Serving ") == 6, 20)
        assert (statuses("new"), statuses("old")) == ({200}, {401})


@pytest.mark.slow
def test_models_reload_one_after_the_other_until_one_fails_and_without_any_the_service_ends(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(EXPORTED.read_bytes())
    with processes(2, "--checkpoint", model) as server:
        os.replace(shutil.copy(CAT, tmp_path / "broken"), model)
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "The reload ends here" in server.log)
        time.sleep(1)
        assert server.log.count("Reload failed") == 1
        assert httpx.post(f"{server.url}/predict", content=IMAGE).status_code == 200
        for victim in workers_of(server):
            os.kill(victim, signal.SIGKILL)
        assert server.process.wait(60) == 1
        server.stop()
        assert "Traceback" not in server.log
        assert server.log.splitlines()[-1].startswith("error: No process stays alive; the last one: ")


@pytest.mark.slow
def test_after_a_replacement_with_another_file_all_serve_that_file(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(EXPORTED.read_bytes())
    other = onnx.load(model)
    other.producer_version += " or later"
    onnx.save(other, tmp_path / "other.onnx")

    def versions() -> set[str]:
        return {httpx.get(f"{server.url}/metadata").json()["model"]["version"] for _ in range(8)}

    with processes(2, "--checkpoint", model) as server:
        (before,) = versions()
        os.replace(tmp_path / "other.onnx", model)
        os.kill(workers_of(server)[0], signal.SIGKILL)
        until(lambda: len(versions()) == 1 and before not in versions(), 30)
        assert "the file has changed; all reload" in server.log


def opens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def test_the_port_is_closed_until_a_process_can_serve(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ("--port", str(port), "--checkpoint", EXPORTED, "--processes", "2", "--workers", "2")
    command = [sys.executable, "-m", "resnet_service", "serve", *map(str, flags)]
    with log.open("wb") as writing, subprocess.Popen(command, stderr=writing) as process:
        try:
            until(lambda: opens(port), 60)
            until(lambda: "Serving " in log.read_text(), 0.5)  # its thread writes it soon
        finally:
            process.terminate()


def test_a_start_that_fails_is_one_sentence(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    one, two = (
        cli("serve", "--port", "0", "--checkpoint", broken, "--workers", "2", "--processes", count) for count in "12"
    )
    assert (two.returncode, two.stderr) == (one.returncode, one.stderr)
    assert "Traceback" not in two.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_drains_all_even_if_the_whole_group_gets_it(number: int, code: int) -> None:
    with processes() as server:
        everyone = [server.process.pid, *workers_of(server)]
        with connected(server.url) as waiting:
            waiting.sendall(head(Content_Length=len(IMAGE)) + IMAGE[:1000])
            time.sleep(0.3)
            for pid in everyone:
                os.kill(pid, number)
            time.sleep(2.5)  # longer than a silent process may live
            waiting.sendall(IMAGE[1000:])
            assert read_answer(waiting).startswith(b"HTTP/1.1 200 ")
        assert server.process.wait(20) == code
        assert not any(map(running, everyone[1:]))


@pytest.mark.slow
def test_a_killed_process_is_replaced_within_two_seconds() -> None:
    seconds = []
    with processes() as server:
        for serving in (3, 4, 5):
            os.kill(workers_of(server)[0], signal.SIGKILL)
            begun = time.monotonic()
            until(partial(lambda count: server.log.count("Serving ") == count, serving), 10)
            seconds.append(time.monotonic() - begun)
            assert httpx.get(f"{server.url}/health/ready").status_code == 200
    assert statistics.median(seconds) < 2, seconds


@pytest.mark.slow
def test_a_second_signal_ends_all_at_once() -> None:
    with processes() as server, connected(server.url) as waiting:
        workers = workers_of(server)
        waiting.sendall(head(Content_Length=len(IMAGE)) + IMAGE[:1000])
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert server.process.poll() is None  # a request is in progress
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(2) == 128 + signal.SIGTERM
        until(lambda: not any(map(running, workers)), 2)


# A signal makes a process that has this module in its path 300 MB larger.
GROWING = """
import signal
held = []
signal.signal(signal.SIGUSR1, lambda number, frame: held.append(b"x" * 300_000_000))
"""


@pytest.mark.slow
def test_a_process_that_grows_is_replaced_without_losing_a_request(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(GROWING)
    codes: Counter[int] = Counter()
    limit = ("--max-process-bytes", "400000000")
    with processes(2, *limit, PYTHONPATH=str(tmp_path)) as server, ExitStack() as stack:
        first = set(workers_of(server))
        for pid in first:
            os.kill(pid, signal.SIGUSR1)
        halves = [stack.enter_context(connected(server.url)) for _ in range(4)]
        for each in halves:
            each.sendall(head(Content_Length=len(IMAGE)) + IMAGE[:1000])
        until(lambda: server.log.count("Serving ") > 2, 20)
        for each in halves:
            each.sendall(IMAGE[1000:])
            codes[int(read_answer(each)[9:12] or 0)] += 1
        ended = time.monotonic() + 30
        while first & set(workers_of(server)) and time.monotonic() < ended:
            codes[httpx.post(f"{server.url}/predict", content=IMAGE).status_code] += 1
        assert not first & set(workers_of(server))
        assert set(codes) == {200}
        assert figure(server, ANSWERED) == codes[200]
        assert server.stop() == 0


@pytest.mark.slow
def test_a_process_that_is_too_large_from_the_start_is_not_replaced_again_and_again() -> None:
    with processes(2, "--max-process-bytes", "1") as server:
        first = set(workers_of(server))
        until(lambda: server.log.count("it is not replaced for that") == 2)
        time.sleep(2)  # the start of another takes about as long
        assert set(workers_of(server)) == first
        assert server.log.count("Serving ") == 2


def test_without_their_supervisor_the_processes_end() -> None:
    with processes() as server:
        workers = workers_of(server)
        server.process.kill()
        until(lambda: not any(map(running, workers)), 10)


# Leaves a process no place in which it could write a file, and says so if there is one.
READ_ONLY = """#!/bin/sh
exec unshare --mount --propagation private sh -c '
    while read -r _ _ _ _ target _; do mount -o remount,bind,ro "$target" 2>/dev/null; done < /proc/self/mountinfo
    for folder in /tmp /dev/shm /run /var/tmp "$PWD"; do
        [ -d "$folder" ] && touch "$folder/written" 2>/dev/null && echo "$folder can be written to" >&2
    done
    exec "$@"
' _ {python} "$@"
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare")
def test_it_needs_no_place_to_write(tmp_path: Path) -> None:
    with processes(python=python_under(READ_ONLY, tmp_path)) as server, ExitStack() as stack:
        assert "can be written to" not in server.log
        for each in [stack.enter_context(connected(server.url)) for _ in range(4)]:
            each.sendall(head(Content_Length=len(IMAGE)) + IMAGE)
            assert read_answer(each).startswith(b"HTTP/1.1 200 ")
        until(lambda: server.log.count('"route": "/predict"') == 4)
        lines = [json.loads(line) for line in server.log.splitlines()]
        assert len({line["process_index"] for line in lines if line.get("route") == "/predict"}) == 2
        assert figure(server, ANSWERED) == 4
        server.process.send_signal(signal.SIGHUP)
        until(lambda: server.log.count("Serving ") == 4, 20)
        os.kill(workers_of(server)[0], signal.SIGKILL)
        until(lambda: server.log.count("Serving ") == 5, 20)
        assert figure(server, ANSWERED) == 4
        assert server.stop() == 0


# Ends the service of a container: there, the supervisor is the first process, and gets what others leave.
FIRST_PROCESS = """#!/bin/sh
exec unshare --pid --fork --mount-proc --kill-child {python} "$@"
"""


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare")
def test_as_the_first_process_of_a_container_it_ends_with_0(tmp_path: Path) -> None:
    with processes(python=python_under(FIRST_PROCESS, tmp_path)) as server:
        [supervisor] = workers_of(server)  # of unshare
        os.kill(supervisor, signal.SIGTERM)
        assert server.process.wait(20) == 0
        server.stop()
        assert "Traceback" not in server.log


@pytest.mark.slow
def test_a_process_whose_thread_does_not_come_back_ends_as_a_single_one_does(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(STUCK)
    with processes(PYTHONPATH=str(tmp_path)) as server:
        with suppress(httpx.ReadTimeout):
            httpx.post(f"{server.url}/predict", content=encoded(noise(8, 8), "PNG"), timeout=0.5)
        assert server.stop() == 0
        assert "Threads have not come back" in server.log
        assert "does not respond" not in server.log


def test_any_number_of_keys_reaches_the_processes() -> None:
    keys = [f"key-{number:016}" for number in range(5000)]
    with processes(RESNET_SERVICE_API_KEYS=",".join(keys)) as server:
        headers = {"Authorization": f"Bearer {keys[-1]}"}
        assert httpx.get(f"{server.url}/metadata", headers=headers).status_code == 200


def test_processes_whose_supervisor_ends_while_they_start_end_without_a_traceback() -> None:
    flags = ("--port", "0", "--checkpoint", str(EXPORTED), "--processes", "2", "--workers", "2")
    command = [sys.executable, "-m", "resnet_service", "serve", *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        until(lambda: len(children.read_text().split()) == 2, 20)
        process.kill()
        _, said = process.communicate(timeout=30)  # until the last of them has ended
        assert "Traceback" not in said


@pytest.mark.slow
def test_a_hanging_process_is_ended_even_if_it_holds_a_lock() -> None:
    with processes(3) as server:
        folder = Path(f"/proc/{server.process.pid}/fd")
        tables = [int(entry.name) for entry in folder.iterdir() if "memfd:resnet-service " in str(entry.readlink())]
        dies, hangs, _ = workers_of(server)
        with (folder / str(min(tables))).open() as processes_table:  # the first that it creates
            fcntl.flock(processes_table, fcntl.LOCK_EX)  # in the place of the one that hangs
            os.kill(hangs, signal.SIGSTOP)
            os.kill(dies, signal.SIGKILL)
            until(lambda: not running(hangs), 10)
        until(lambda: server.log.count("Serving ") == 5, 20)


@pytest.mark.slow
def test_a_process_that_waits_for_a_stopped_one_survives() -> None:
    with processes(2) as server, connected(server.url) as client:
        folder = Path(f"/proc/{server.process.pid}/fd")
        tables = {
            os.stat(entry).st_ino: entry
            for entry in folder.iterdir()
            if "memfd:resnet-service " in str(entry.readlink())
        }

        def waiting() -> list[int]:
            waiters = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" in line]
            return [worker for worker in workers_of(server) if any(str(worker) in line for line in waiters)]

        with tables[sorted(tables)[2]].open() as bodies:  # created after those of processes and metrics
            fcntl.flock(bodies, fcntl.LOCK_EX)  # in the place of the stopped process
            client.sendall(head(Content_Length=len(IMAGE)) + IMAGE)
            until(lambda: bool(waiting()))
            (waits,) = waiting()
            (stopped,) = set(workers_of(server)) - {waits}
            time.sleep(0.3)
            os.kill(stopped, signal.SIGSTOP)
            until(lambda: not running(stopped) or not running(waits), 10)
            assert running(waits)
        assert read_answer(client).startswith(b"HTTP/1.1 200 ")


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    """A supervisor of one process that has not started it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Supervisor(listener, Settings(), 1)


@contextmanager
def ended(supervisor: Supervisor, message: bytes) -> Iterator[Worker]:
    """Yield a process that has said ``message`` and ended; somebody else still has its end of the control socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    with theirs, subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        theirs.send(message)
        each = Worker(supervisor._free.popleft(), process, ours, 0)
        supervisor._workers.append(each)
        supervisor._selector.register(ours, selectors.EVENT_READ, each)
        yield each


def test_a_process_that_has_ended_is_neither_ready_nor_reaped_by_its_kill(supervisor: Supervisor) -> None:
    with ended(supervisor, READY) as each:
        supervisor.kill()
        supervisor._on_signal(signal.SIGTERM)
        supervisor._tick(time.monotonic(), 0.1)
        assert supervisor._workers == []
        assert not each.ready
        assert each.process.returncode == 0


def test_a_process_that_becomes_ready_after_the_signal_to_end_is_not(supervisor: Supervisor) -> None:
    with ended(supervisor, READY) as each:
        supervisor._on_signal(signal.SIGTERM)
        supervisor._on_message(each)
        assert not each.ready
        supervisor._tick(time.monotonic(), 0.1)


@pytest.mark.parametrize("started", [False, True])
def test_a_start_that_the_system_does_not_allow_is_tried_again_later(
    supervisor: Supervisor, started: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(subprocess, "Popen", refuse)
    supervisor._shared.supervisor[Column.STARTED] = started
    gc.collect()  # closes what earlier tests have left
    before = os.listdir("/proc/self/fd")
    if started:
        for _ in range(3):
            supervisor._tick(time.monotonic(), 0.1)
        assert [supervisor._next_start > time.monotonic(), len(supervisor._free)] == [True, 2]
        assert caplog.text.count("A process could not be started: Resource temporarily unavailable") == 2
    else:
        with pytest.raises(ServiceError, match=r"^A process could not be started: Resource temporarily unavailable\.$"):
            supervisor._tick(time.monotonic(), 0.1)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_after_its_end_signals_are_written_nowhere() -> None:
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            supervisor = Supervisor(listener, Settings(), 0)
            supervisor._signals.append(signal.SIGTERM)
            with pytest.raises(SystemExit) as raised:
                supervisor.run()
        assert raised.value.code == 0
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
