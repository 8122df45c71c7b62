"""The resources of a process, read from /proc."""

import os
import time
from pathlib import Path
from typing import NamedTuple

import httpx

_MEGABYTE = 2**20


class Holdings(NamedTuple):
    """Resident memory in megabytes, open file descriptors, threads."""

    megabytes: float
    descriptors: int
    threads: int


def holdings(process: int) -> Holdings:
    folder = Path(f"/proc/{process}")
    pages = int((folder / "statm").read_text().split()[1])
    return Holdings(
        pages * os.sysconf("SC_PAGE_SIZE") / _MEGABYTE,
        len(os.listdir(folder / "fd")),
        len(os.listdir(folder / "task")),
    )


def idle_holdings(url: str, process: int) -> Holdings:
    """Return the resources after a first connection, with which libuv opens a descriptor of its own."""
    httpx.get(f"{url}/health/live").raise_for_status()
    time.sleep(0.5)  # until the server has closed the connection
    return holdings(process)


def cpu_seconds(process: int) -> float:
    """Return the CPU time of a process since its start; in steps of a hundredth, mostly."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children(process: int) -> list[int]:
    """Return the children that run, not those that have ended and wait to be reaped."""
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(child) for child in found if running(int(child))]


def running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
