"""Ray for real: a cluster of several nodes on this machine, batches on it, and the service on it.

Slow: about a minute to install Ray the first time, two minutes for the batches, and half a minute for the service.
"""

import json
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from resnet_service.datasets import open_dataset
from resnet_service.labels import read_label_set
from support.environments import ray_environment, ray_python
from support.pictures import CAT
from support.servers import REPOSITORY, cli, server_process

pytestmark = pytest.mark.slow

MODEL = REPOSITORY / "checkpoints" / "resnet18-fashion-mnist-int8.onnx"
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
PICTURES = 5000
RUN_SECONDS = 180
CLUSTER_SECONDS = 600


@pytest.fixture(scope="module")
def python() -> Path:
    return ray_python()


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)  # its processes may be writing their last lines


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a Parquet file with Fashion-MNIST's first 5,000 test pictures and a damaged one."""
    labels, _ = read_label_set(REPOSITORY / "labels" / "fashion-mnist.json")
    samples = open_dataset(FASHION_MNIST, labels).samples[: PICTURES - 1]
    data = [*(sample.read() for sample in samples), b"\x89PNG\r\n\x1a\nhello"]
    names = [*(sample.name for sample in samples), "damaged"]
    path = tmp_path_factory.mktemp("pictures") / "in.parquet"
    pq.write_table(pa.table({"path": names, "image": data}), path, row_group_size=500)
    return path


@pytest.fixture(scope="module")
def local_rows(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    target = tmp_path_factory.mktemp("local") / "out"
    done = cli("classify-batch", pictures, target, "--checkpoint", MODEL, "--json", timeout=RUN_SECONDS)
    assert done.returncode == 0, done.stderr
    return rows(target)


def rows(folder: Path) -> list[dict[str, Any]]:
    found = [row for part in folder.glob("part-*.parquet") for row in pq.read_table(part).to_pylist()]
    return sorted(found, key=lambda row: int(row["row"]))


class ClusterRuns(NamedTuple):
    """What ``ray_batch.py`` printed, and the folder it wrote to."""

    answers: dict[str, Any]
    folder: Path


@pytest.fixture(scope="module")
def cluster_runs(python: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> ClusterRuns:
    temporary = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    target = tmp_path_factory.mktemp("cluster")
    command = [python, REPOSITORY / "tests" / "support" / "ray_batch.py", MODEL, pictures, target]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ray_environment(temporary),
        start_new_session=True,
    )
    try:
        printed, said = process.communicate(timeout=CLUSTER_SECONDS)
    finally:
        process.kill()
        process.wait(20)
        shutil.rmtree(temporary, ignore_errors=True)  # its processes may be writing their last lines
    assert process.returncode == 0, said
    answers = next(line for line in reversed(printed.splitlines()) if line.startswith("{"))
    return ClusterRuns(json.loads(answers), target)


@pytest.mark.parametrize("name", ["undisturbed", "killed"])
def test_a_cluster_answers_as_one_machine_does(
    name: str, cluster_runs: ClusterRuns, local_rows: list[dict[str, Any]]
) -> None:
    totals = cluster_runs.answers[name]
    assert (totals["written"], totals["refused"], totals["unread"]) == (PICTURES, 1, 0)
    found = rows(cluster_runs.folder / name)
    assert [row["row"] for row in found] == list(range(PICTURES))  # nothing lost, nothing twice
    assert found == local_rows


def test_the_node_was_killed_in_the_middle(cluster_runs: ClusterRuns) -> None:
    (written,) = cluster_runs.answers["killed_at"]
    assert PICTURES / 4 <= written < PICTURES


def test_a_part_that_ends_each_worker_ends_the_run(cluster_runs: ClusterRuns) -> None:
    said = cluster_runs.answers["deadly"]["error"]
    assert said.startswith("Ray failed: ")
    assert said.endswith(". What was written stays; run again to go on.")
    assert "\n" not in said
    found = [row["row"] for row in rows(cluster_runs.folder / "deadly")]
    assert len(set(found)) == len(found) < PICTURES


SERVE = """
import sys

import ray
from ray import serve

from resnet_service.ray.serving import app

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
serve.run(app)
print("up", flush=True)
for line in sys.stdin:
    replicas = serve.status().applications["default"].deployments["resnet-service"].replica_states
    print(sum(replicas.values()), flush=True)
serve.shutdown()
ray.shutdown()
"""


@contextmanager
def served_by_ray(python: Path, ray_folder: Path, **environment: str) -> Iterator[tuple[str, Callable[[], int]]]:
    """Run the application on Ray Serve; yield its URL and a function that tells how many replicas there are."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [python, "-c", SERVE, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=ray_environment(ray_folder, RESNET_SERVICE_CHECKPOINT=str(MODEL), **environment),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    watchdog = threading.Timer(RUN_SECONDS, process.kill)  # it ends every wait for a line, too
    watchdog.start()
    ask, answers = process.stdin, process.stdout

    def replicas() -> int:
        ask.write("\n")
        ask.flush()
        return int(answers.readline())

    try:
        while (line := answers.readline()) != "up\n":
            assert line, "Ray Serve did not start"
        yield f"http://127.0.0.1:{port}", replicas
    finally:
        with process:
            ask.close()
            process.wait(60)
        watchdog.cancel()


def test_ray_serve_answers_as_the_service_does_and_grows(python: Path, ray_folder: Path) -> None:
    picture = CAT.read_bytes()
    paths = ("/metadata", "/labels", "/health/live", "/health/ready", "/nothing")
    bodies = [(picture, "/predict"), (picture, "/predict?top_k=99"), (b"hello", "/predict"), (b"", "/predict")]
    with server_process("--checkpoint", MODEL, RESNET_SERVICE_QUEUE="3") as own:
        expected = [facts(httpx.get(own.url + path)) for path in paths]
        expected += [facts(httpx.post(own.url + path, content=body)) for body, path in bodies]
    with (
        served_by_ray(python, ray_folder, RESNET_SERVICE_QUEUE="3") as (url, replicas),
        httpx.Client(base_url=url, timeout=60, limits=httpx.Limits(max_connections=40)) as client,
    ):
        found = [facts(client.get(path)) for path in paths]
        found += [facts(client.post(path, content=body)) for body, path in bodies]
        assert found == expected
        assert replicas() == 1

        def ask(_: int) -> httpx.Response:
            return client.post("/predict", content=picture)

        answers: list[httpx.Response] = []
        deadline = time.monotonic() + 90
        with ThreadPoolExecutor(12) as pool:
            while replicas() < 2 and time.monotonic() < deadline:
                answers += pool.map(ask, range(60))
        assert replicas() >= 2, "it did not grow"
    refused = [answer for answer in answers if answer.status_code != 200]
    assert {answer.status_code for answer in refused} == {429}
    assert len(refused) < len(answers)
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    problems = [answer for answer in refused if answer.headers["content-type"] == "application/problem+json"]
    assert problems
    assert {answer.json()["code"] for answer in problems} == {"overloaded"}


def facts(response: httpx.Response) -> tuple[int, str, Any]:
    """Return what of an answer does not vary from call to call."""
    body = response.json()
    body.pop("timing_ms", None)
    return response.status_code, response.headers["content-type"], body
