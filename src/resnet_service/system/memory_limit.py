"""The memory that this process may use; in a container, often less than the host has."""

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def memory_limit(cgroup: Path = _CGROUP) -> int:
    """Return the smaller of the machine's memory and the cgroup's limit, in bytes.

    Reads ``memory.max`` of cgroup v2, or ``memory/memory.limit_in_bytes`` of v1, as a container sees them. Beyond the
    result, the kernel ends processes.
    """
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            return min(machine, int((cgroup / name).read_text()))
        except (OSError, ValueError):  # there is no such file, or it says "max"
            continue
    return machine
