"""Servers as trees of processes: start, freeze, measure memory, stop.

Some servers start children in new sessions, so neither a process group nor a session contains them all. But every child
inherits the environment, so each server is started with a unique variable in it.
"""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from benchmarks.paths import REPOSITORY, environment

_MARK = "BENCHMARK_MARK"
_START_SECONDS = 60.0
_TERM_SECONDS, _KILL_SECONDS, _PAUSE_SECONDS = 8.0, 10.0, 0.05
_SETTLE_SECONDS, _WATCH_SECONDS, _IDLE_SHARE = 15.0, 0.2, 0.25  # some servers poll and are never idle


class ProcessTree:
    """A program and all processes that it starts."""

    def __init__(self, command: Sequence[str], variables: Mapping[str, str], log: IO[bytes]) -> None:
        """Start ``command`` in the repository's folder, with ``variables`` and those of ``environment`` only."""
        mark = secrets.token_hex(8)
        self._entry = f"{_MARK}={mark}".encode()
        # In a new session, so that Ctrl-C reaches only the harness, which then stops everything in order.
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
        """Whether the program itself has ended."""
        return self._root.poll() is not None

    def members(self) -> list[int]:
        """Return the IDs of all processes of the tree."""
        return [pid for pid in _all_processes() if self._entry in _read(f"/proc/{pid}/environ").split(b"\0")]

    def freeze(self) -> None:
        """Stop every process; a frozen server takes memory but no CPU time."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue every process."""
        self._signal(signal.SIGCONT)

    def resident_bytes(self) -> int:
        """Return the memory of the tree, as proportional set sizes, so that shared memory counts once."""
        return sum(_pss(pid) for pid in self.members())

    def settle(self) -> None:
        """Wait until the tree is nearly idle; a server may still process requests of disconnected clients."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        before = self.cpu_seconds()
        while time.monotonic() < deadline:
            time.sleep(_WATCH_SECONDS)
            now = self.cpu_seconds()
            if now - before < _IDLE_SHARE * _WATCH_SECONDS:
                return
            before = now

    def stop(self) -> None:
        """End every process: SIGTERM first, then SIGKILL."""
        self.thaw()
        self._signal(signal.SIGTERM)  # to all, since not every launcher forwards it
        if self._gone_within(_TERM_SECONDS):
            return
        deadline = time.monotonic() + _KILL_SECONDS
        while time.monotonic() < deadline:
            self._signal(signal.SIGKILL)  # repeated, for processes that were started meanwhile
            if self._gone_within(_PAUSE_SECONDS):
                return

    def cpu_seconds(self) -> float:
        """Return the CPU time that the living processes of the tree have taken."""
        return sum(_cpu_ticks(pid) for pid in self.members()) / os.sysconf("SC_CLK_TCK")

    def _gone_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while True:
            self._root.poll()  # reaps the program
            if not self.members():
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PAUSE_SECONDS)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def await_port(port: int, tree: ProcessTree) -> None:
    """Wait until a server listens on the port.

    Raises:
        RuntimeError: It has ended, or does not listen in time.

    """
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and not tree.ended:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(_PAUSE_SECONDS)
    raise RuntimeError(f"no server listens on port {port}")


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
    except OSError:  # the process has ended, or may not be read
        return b""
