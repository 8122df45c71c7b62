"""A memory limit as a container has it."""

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tests.support.waiting import until

_ROOT = Path("/sys/fs/cgroup")
# The names of limit and peak: of version 1, and of version 2.
_VERSIONS = (
    (_ROOT / "memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
    (_ROOT, "memory.max", "memory.peak"),
)


class Limited(NamedTuple):
    """An interpreter whose processes share the limit, and their control group, if this machine lets us make one."""

    python: Path
    group: Path | None

    def peak(self, pid: int) -> int:
        """Return the most bytes that were in use at once: by the group, or else by the process ``pid``."""
        for _, _, peak in _VERSIONS:
            if self.group is not None and (self.group / peak).exists():
                return int((self.group / peak).read_text())
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        assert found is not None
        return int(found[1]) * 1024


@contextmanager
def memory_limit(size: int, folder: Path) -> Iterator[Limited]:
    """Limit the memory of processes to ``size`` bytes; without control groups, only their peak is told."""
    group = _made(size, f"resnet-service-test-{folder.name}-{time.monotonic_ns()}")
    script = folder / "python"
    entry = "" if group is None else f"echo $$ > {group}/cgroup.procs\n"
    script.write_text(f'#!/bin/sh\n{entry}exec {sys.executable} "$@"\n')
    script.chmod(0o755)
    try:
        yield Limited(script, group)
    finally:
        if group is not None:
            until(lambda: _removed(group))


def _removed(group: Path) -> bool:
    with suppress(OSError):  # the kernel has not yet let the last process go
        group.rmdir()
    return not group.exists()


def _made(size: int, name: str) -> Path | None:
    for root, limit, _ in _VERSIONS:
        group = root / name
        try:
            group.mkdir()
        except OSError:  # not mounted, or not ours to write
            continue
        try:
            (group / limit).write_text(str(size))
        except OSError:
            group.rmdir()
            continue
        with suppress(OSError):  # version 2
            (group / "memory.swap.max").write_text("0")
        return group
    return None
