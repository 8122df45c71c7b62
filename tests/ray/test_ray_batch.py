"""Ray for real: a cluster of several nodes on this machine, and batches on it.

Slow: about a minute to install Ray the first time, and two minutes for the batches.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from resnet_service.evaluation.datasets import open_dataset
from resnet_service.models.labels import read_label_set
from tests.support.environments import ray_environment, ray_python
from tests.support.servers import REPOSITORY, cli

pytestmark = pytest.mark.slow

MODEL = REPOSITORY / "checkpoints" / "resnet18-fashion-mnist-int8.onnx"
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
IMAGES = 5000
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
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a Parquet file with Fashion-MNIST's first 5,000 test images and a damaged one."""
    labels, _ = read_label_set(REPOSITORY / "labels" / "fashion-mnist.json")
    samples = open_dataset(FASHION_MNIST, labels).samples[: IMAGES - 1]
    data = [*(sample.read() for sample in samples), b"\x89PNG\r\n\x1a\nhello"]
    names = [*(sample.name for sample in samples), "damaged"]
    path = tmp_path_factory.mktemp("images") / "in.parquet"
    pq.write_table(pa.table({"path": names, "image": data}), path, row_group_size=500)
    return path


@pytest.fixture(scope="module")
def local_rows(images: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    target = tmp_path_factory.mktemp("local") / "out"
    done = cli("classify-batch", images, target, "--checkpoint", MODEL, "--json", timeout=RUN_SECONDS)
    assert done.returncode == 0, done.stderr
    return rows(target)


def rows(folder: Path) -> list[dict[str, Any]]:
    found = [row for shard in folder.glob("part-*.parquet") for row in pq.read_table(shard).to_pylist()]
    return sorted(found, key=lambda row: int(row["row"]))


class ClusterRuns(NamedTuple):
    """What ``ray_batch.py`` printed, and the folder it wrote to."""

    answers: dict[str, Any]
    folder: Path


@pytest.fixture(scope="module")
def cluster_runs(python: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> ClusterRuns:
    temporary = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    target = tmp_path_factory.mktemp("cluster")
    command = [python, REPOSITORY / "tests" / "support" / "ray_batch.py", MODEL, images, target]
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
    assert (totals["written"], totals["refused"], totals["unread"]) == (IMAGES, 1, 0)
    found = rows(cluster_runs.folder / name)
    assert [row["row"] for row in found] == list(range(IMAGES))  # nothing lost, nothing twice
    assert found == local_rows


def test_the_node_was_killed_in_the_middle(cluster_runs: ClusterRuns) -> None:
    (written,) = cluster_runs.answers["killed_at"]
    assert IMAGES / 4 <= written < IMAGES


def test_a_shard_that_ends_each_worker_ends_the_run(cluster_runs: ClusterRuns) -> None:
    said = cluster_runs.answers["deadly"]["error"]
    assert said.startswith("Ray failed: ")
    assert said.endswith(". Written results stay; run again to continue.")
    assert "\n" not in said
    found = [row["row"] for row in rows(cluster_runs.folder / "deadly")]
    assert len(set(found)) == len(found) < IMAGES
