import os
from pathlib import Path

import pytest

from resnet_service.system.cpus import available_cpus

ALLOWED = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [
        ("max 100000", ALLOWED),
        ("50000 100000", 1),
        ("100000 100000", 1),
        ("10000000 100000", ALLOWED),
        ("odd", ALLOWED),
    ],
)
def test_cgroup_v2(tmp_path: Path, quota: str, cpus: int) -> None:
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert available_cpus(tmp_path) == cpus


@pytest.mark.parametrize(("quota", "cpus"), [("-1", ALLOWED), ("100000", 1)])
def test_cgroup_v1(tmp_path: Path, quota: str, cpus: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert available_cpus(tmp_path) == cpus


def test_without_a_cgroup_affinity_counts(tmp_path: Path) -> None:
    assert available_cpus(tmp_path) == ALLOWED
