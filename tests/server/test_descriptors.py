"""File descriptors, which connections need: enough at the start, and used up later; each with a real process."""

import os
import resource
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import httpx

from tests.support.servers import REPOSITORY, START_SECONDS, server_process
from tests.support.waiting import until
from tests.support.wire import connected, head, read_answer


def cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_more_connections_than_the_system_allows_are_one_sentence_at_the_start() -> None:
    serve = 'ulimit -n 600 && exec "$0" -m resnet_service serve --port 0'
    done = subprocess.run(
        ["sh", "-c", serve, sys.executable], capture_output=True, text=True, timeout=START_SECONDS, cwd=REPOSITORY
    )
    assert done.returncode == 1
    assert "512 connections need 640 file descriptors, and a process may open 600." in done.stderr
    assert "Traceback" not in done.stderr


def test_a_soft_limit_below_is_raised() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (600, hard))
    try:
        with server_process() as server:
            assert resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE) == (640, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_descriptors_it_neither_spins_nor_floods_the_log_and_recovers() -> None:
    with server_process() as server, ExitStack() as open_:
        process = server.process.pid
        limits = resource.prlimit(process, resource.RLIMIT_NOFILE)
        used = len(os.listdir(f"/proc/{process}/fd"))
        resource.prlimit(process, resource.RLIMIT_NOFILE, (used + 5, limits[1]))
        connections = [open_.enter_context(connected(server.url)) for _ in range(20)]
        until(lambda: "Connections cannot be accepted: Too many open files" in server.log)
        begun = cpu_seconds(process)
        time.sleep(1)
        assert cpu_seconds(process) - begun < 0.2
        assert server.log.count("cannot be accepted") == 1
        # Those that are open are served; the others wait, and are served when there are descriptors.
        resource.prlimit(process, resource.RLIMIT_NOFILE, limits)
        for connection in connections:
            connection.sendall(head("GET", "/health/live"))
            assert read_answer(connection).startswith(b"HTTP/1.1 200 ")
        metrics = httpx.get(f"{server.url}/metrics", timeout=20).text
        assert 'resnet_service_failures_total{reason="out_of_resources"} ' in metrics
