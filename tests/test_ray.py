"""Ray for real: a cluster of several nodes on this machine, and batches on it.

Slow: about a minute to install Ray the first time, and half a minute for each test.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from resnet_service.datasets import open_dataset
from resnet_service.labels import read_label_set
from support.environments import ray_environment, ray_python
from support.servers import REPOSITORY, cli

pytestmark = pytest.mark.slow

MODEL = REPOSITORY / "checkpoints" / "resnet18-fashion-mnist-int8.onnx"
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
PICTURES = 5000
RUN_SECONDS = 180


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


def on_a_cluster(python: Path, ray_folder: Path, *arguments: str | Path) -> dict[str, Any]:
    done = subprocess.run(
        [python, REPOSITORY / "tests" / "support" / "ray_batch.py", *arguments],
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
        env=ray_environment(ray_folder),
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize("kill", [False, True], ids=["undisturbed", "a node is killed"])
def test_a_cluster_answers_as_one_machine_does(
    kill: bool, python: Path, ray_folder: Path, pictures: Path, local_rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    totals = on_a_cluster(python, ray_folder, MODEL, pictures, tmp_path / "out", *(["--kill"] if kill else []))
    assert (totals["written"], totals["refused"], totals["unread"]) == (PICTURES, 1, 0)
    assert bool(totals["killed_at"]) == kill
    found = rows(tmp_path / "out")
    assert [row["row"] for row in found] == list(range(PICTURES))  # nothing lost, nothing twice
    assert found == local_rows
