import os
from pathlib import Path

import pytest

from resnet_service.system.memory_limit import memory_limit

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
@pytest.mark.parametrize(
    ("text", "limit"),
    [("1610612736\n", min(MACHINE, 1610612736)), ("max\n", MACHINE), ("9223372036854771712\n", MACHINE)],
)
def test_the_smaller_of_cgroup_and_machine(tmp_path: Path, name: str, text: str, limit: int) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert memory_limit(tmp_path) == limit


def test_without_a_cgroup_it_is_the_machines(tmp_path: Path) -> None:
    assert memory_limit(tmp_path) == MACHINE
