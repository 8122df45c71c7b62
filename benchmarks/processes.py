"""Servers as trees of processes: started, frozen while others are measured, weighed, and ended without fail.

Peers start children in sessions of their own, so neither a process group nor a session holds all of a server. What
every child inherits is the environment: each server is started with a mark of its own in it.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from benchmarks.paths import REPOSITORY, environment

_MARK = "BENCHMARK_MARK"
_TERM_SECONDS, _KILL_SECONDS, _PAUSE_SECONDS = 8.0, 10.0, 0.05
_SETTLE_SECONDS, _WATCH_SECONDS, _IDLE_SHARE = 15.0, 0.2, 0.25  # some servers poll, and are never quite idle


class ProcessTree:
    """One program and all that it starts."""

    def __init__(self, command: Sequence[str], variables: Mapping[str, str], log: IO[bytes]) -> None:
        """Start ``command`` in the repository's folder, with only ``variables`` and the bare necessities around it."""
        mark = secrets.token_hex(8)
        self._entry = f"{_MARK}={mark}".encode()
        # A session of its own: Ctrl-C is for the harness, which then ends everything in order.
        self._root = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=environment(**variables, **{_MARK: mark}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def ended(self) -> bool:
        """Whether the program itself has ended, wanted or not."""
        return self._root.poll() is not None

    def members(self) -> list[int]:
        """Return the ids of all living processes of the tree."""
        return [pid for pid in _all_processes() if self._entry in _read(f"/proc/{pid}/environ").split(b"\0")]

    def freeze(self) -> None:
        """Stop every process; a frozen server takes memory but no time."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let every process go on."""
        self._signal(signal.SIGCONT)

    def resident_bytes(self) -> int:
        """Return what the tree holds in memory: proportional set sizes, so that what is shared counts once."""
        return sum(_pss(pid) for pid in self.members())

    def settle(self) -> None:
        """Wait until the tree has little to do: what clients asked for who have left is still worked on."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        before = self.cpu_seconds()
        while time.monotonic() < deadline:
            time.sleep(_WATCH_SECONDS)
            now = self.cpu_seconds()
            if now - before < _IDLE_SHARE * _WATCH_SECONDS:
                return
            before = now

    def stop(self) -> None:
        """End every process: politely, then not."""
        self.thaw()
        self._signal(signal.SIGTERM)  # to all: not every launcher hands it on
        if self._gone_within(_TERM_SECONDS):
            return
        deadline = time.monotonic() + _KILL_SECONDS
        while time.monotonic() < deadline:
            self._signal(signal.SIGKILL)  # again: some might have been born meanwhile
            if self._gone_within(_PAUSE_SECONDS):
                return

    def cpu_seconds(self) -> float:
        """Return the CPU time that the living processes of the tree have taken."""
        return sum(_cpu_ticks(pid) for pid in self.members()) / os.sysconf("SC_CLK_TCK")

    def _gone_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while True:
            self._root.poll()  # reaps it
            if not self.members():
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PAUSE_SECONDS)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _all_processes() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def _pss(pid: int) -> int:
    for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _cpu_ticks(pid: int) -> int:
    """Return user and system time of all threads of a process, fields 14 and 15 of ``/proc/PID/stat``."""
    after_name = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return int(after_name[11]) + int(after_name[12]) if after_name else 0


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:  # it has ended meanwhile, or is not ours to look into
        return b""
