"""The number of CPUs that this process may use; in a container, often fewer than the host has."""

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available_cpus(cgroup: Path = _CGROUP) -> int:
    """Return the smaller of CPU affinity and the cgroup's CPU quota (rounded up), at least 1.

    Reads ``cpu.max`` of cgroup v2, or ``cpu.cfs_quota_us`` and ``cpu.cfs_period_us`` of v1, as a container sees them.
    """
    allowed = len(os.sched_getaffinity(0))
    quota = _quota(cgroup)
    return max(1, allowed if quota is None else min(allowed, math.ceil(quota)))


def _quota(cgroup: Path) -> float | None:
    try:
        limit, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if limit in ("max", "-1"):
        return None
    return int(limit) / int(period)
