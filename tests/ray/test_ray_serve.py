"""The service on Ray Serve: a real cluster on 127.0.0.1, started as the documentation says.

Slow: a minute to install Ray the first time, then about a minute for all.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.environments import ray_environment, ray_python
from tests.support.images import CAT
from tests.support.servers import REPOSITORY, server_process

pytestmark = pytest.mark.slow

MODEL = REPOSITORY / "checkpoints" / "resnet18-fashion-mnist-int8.onnx"
KEY = "a-key-that-is-long-enough-for-the-service"
# One worker and three waiting: a replica has four slots, and Ray passes it up to eight requests.
SETTINGS = {"RESNET_SERVICE_CHECKPOINT": str(MODEL), "RESNET_SERVICE_QUEUE": "3", "RESNET_SERVICE_API_KEYS": KEY}
SLOTS = 4
START_SECONDS = 240
WAIT_SECONDS = 120
STOP_SECONDS = 60


class Cluster:
    """Ray with the service on it."""

    def __init__(self, python: Path, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._folder = folder
        self._log = (folder / "log").open("w+")
        self._process = subprocess.Popen(
            [python, REPOSITORY / "tests" / "support" / "ray_serve.py", "2", str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            # Otherwise Ray would write a token into the home directory.
            env=ray_environment(folder, RAY_AUTH_TOKEN=secrets.token_hex(32), **SETTINGS),
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._ask, self._answers = self._process.stdin, self._process.stdout

    def wait(self) -> None:
        """Wait until the service is ready."""
        if self._line(START_SECONDS) != "up":
            self._log.seek(0)
            pytest.fail(f"Ray Serve did not start:\n{self._log.read()[-4000:]}")

    def _line(self, seconds: float) -> str:
        watchdog = threading.Timer(seconds, self._process.kill)  # which ends the wait for a line
        watchdog.start()
        try:
            return self._answers.readline().strip()
        finally:
            watchdog.cancel()

    def replicas(self) -> int:
        """Return how many replicas run."""
        self._ask.write("\n")
        self._ask.flush()
        return int(self._line(WAIT_SECONDS))

    def processes(self) -> list[int]:
        """Return all processes that were started for Ray."""
        trace = f"RAY_TMPDIR={self._folder}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if trace in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
            except OSError:  # it has ended meanwhile
                continue
        return found

    def stop(self) -> int:
        """Stop Ray; return the number of remaining processes, which are killed."""
        self._ask.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_SECONDS)
        deadline = time.monotonic() + STOP_SECONDS
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        for process in left:
            os.kill(process, signal.SIGKILL)
        self._answers.close()
        self._log.close()
        return len(left)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    python = ray_python()
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # sockets' names must be short
    cluster = Cluster(python, folder)
    try:
        cluster.wait()
        yield cluster
    finally:
        left = cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
    assert left == 0, "processes of Ray's were left"


@pytest.fixture(scope="module")
def client(cluster: Cluster) -> Iterator[httpx.Client]:
    limits = httpx.Limits(max_connections=100)
    with httpx.Client(base_url=cluster.url, timeout=WAIT_SECONDS, limits=limits, headers={"X-API-Key": KEY}) as client:
        yield client


def facts(response: httpx.Response) -> tuple[int, str, Any]:
    """Return the parts of an answer that are the same in each call."""
    body = response.json()
    for varying in ("timing_ms", "serving_since"):
        body.pop(varying, None)
    return response.status_code, response.headers["content-type"], body


def ask_everything(client: httpx.Client) -> list[tuple[int, str, Any]]:
    image = CAT.read_bytes()
    paths = ("/metadata", "/labels", "/health/live", "/health/ready", "/nothing")
    bodies = [(image, "/predict"), (image, "/predict?top_k=99"), (b"hello", "/predict"), (b"", "/predict")]
    found = [facts(client.get(path)) for path in paths]
    found += [facts(client.post(path, content=body)) for body, path in bodies]
    found.append(facts(client.post("/predict", files={"file": image})))
    # Without its key.
    return [*found, facts(client.post("/predict", content=image, headers={"X-API-Key": "another"}))]


def test_its_processes_are_known_by_what_they_were_started_with(cluster: Cluster) -> None:
    """Otherwise the test that none remains would prove nothing."""
    names = {Path(f"/proc/{process}/comm").read_text().strip() for process in cluster.processes()}
    assert {"raylet", "gcs_server"} <= names


def test_it_answers_as_the_service_does(client: httpx.Client) -> None:
    with (
        server_process(**SETTINGS, RESNET_SERVICE_WORKERS="1") as server,
        httpx.Client(base_url=server.url, timeout=WAIT_SECONDS, headers={"X-API-Key": KEY}) as own,
    ):
        expected = ask_everything(own)
    assert [status for status, _, _ in expected] == [200, 200, 200, 200, 404, 200, 422, 415, 400, 200, 401]
    assert ask_everything(client) == expected


def test_metrics_and_headers_are_there(client: httpx.Client) -> None:
    assert client.post("/predict", content=CAT.read_bytes()).status_code == 200
    metrics = client.get("/metrics")
    assert metrics.status_code == 200
    assert "resnet_service_requests_total{" in metrics.text
    answer = client.get("/metadata", headers={"X-Request-ID": "asked-by-a-test"})
    assert answer.headers.get_list("x-request-id") == ["asked-by-a-test"]
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
    assert answer.headers.get_list("cross-origin-resource-policy") == ["same-origin"]


def many(client: httpx.Client, at_once: int, finished: Callable[[list[httpx.Response]], bool]) -> list[httpx.Response]:
    """Send concurrent requests until there are enough answers or the time is over."""
    image = CAT.read_bytes()
    answers: list[httpx.Response] = []
    deadline = time.monotonic() + WAIT_SECONDS
    with ThreadPoolExecutor(at_once) as pool:
        while not finished(answers) and time.monotonic() < deadline:
            answers += pool.map(lambda _: client.post("/predict", content=image), range(2 * at_once))
    return answers


def is_problem(answer: httpx.Response) -> bool:
    return answer.headers["content-type"] == "application/problem+json"


def test_what_finds_no_slot_is_a_problem_with_429(client: httpx.Client) -> None:
    answers = many(client, 2 * SLOTS, lambda answers: any(a.status_code == 429 and is_problem(a) for a in answers))
    assert {answer.status_code for answer in answers} == {200, 429}
    refused = [answer for answer in answers if answer.status_code == 429]
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    problems = [answer.json() for answer in refused if is_problem(answer)]
    assert problems
    assert {problem["code"] for problem in problems} == {"overloaded"}


def test_it_grows_and_what_ray_itself_refuses_is_429_too(client: httpx.Client, cluster: Cluster) -> None:
    by_ray: list[httpx.Response] = []

    def finished(answers: list[httpx.Response]) -> bool:
        by_ray[:] = [answer for answer in answers if answer.status_code == 429 and not is_problem(answer)]
        return bool(by_ray) and cluster.replicas() >= 2

    answers = many(client, 8 * SLOTS, finished)
    assert {answer.status_code for answer in answers} == {200, 429}
    assert cluster.replicas() >= 2, "it did not grow"
    assert by_ray
    assert all(answer.headers["retry-after"] == "1" for answer in by_ray)
