"""The measurements: each server alone for start and memory, then all in turns for throughput and latency."""

import json
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from benchmarks.bars import BUSY
from benchmarks.catalogue import Server
from benchmarks.files import PRECISIONS, Files, Precision
from benchmarks.paths import REPOSITORY, environment
from benchmarks.processes import ProcessTree
from benchmarks.results import Ceiling, ImageKind, Measurement, Results, Visit
from benchmarks.running import RunningServer, running

_T = TypeVar("_T")

_SAMPLE_SECONDS = 0.25
_START_SECONDS = 4  # on average, for the estimate
_CEILING_MARGIN_SECONDS = 180


class Plan(NamedTuple):
    """The amount of measurements; each of ``rounds`` loads every server at every number of connections."""

    rounds: int = 4
    seconds: int = 4
    warm_up_seconds: int = 1
    connections: tuple[int, ...] = (1, 4, 16, 64)
    starts: int = 4
    start_load_seconds: int = 2
    first_load_seconds: int = 3
    large_seconds: int = 3

    def minutes(self, servers: int) -> float:
        """Return an estimate of the run's length."""
        visit = len(self.connections) * (self.seconds + self.warm_up_seconds + 1)
        visit += self.large_seconds + self.warm_up_seconds + 1 if self.large_seconds else 0
        ceilings = len(PRECISIONS) * (self.seconds + 3)
        start = _START_SECONDS + self.start_load_seconds
        rounds = self.rounds * (servers * visit + ceilings)
        return (rounds + servers * (self.starts * start + _START_SECONDS + self.first_load_seconds)) / 60


class Harness:
    """Measures servers and records the results."""

    def __init__(self, groups: Sequence[Sequence[Server]], files: Files, plan: Plan, results: Results) -> None:
        """Take servers in groups; the servers of a group run at the same time and are loaded in turns."""
        self._groups = groups
        self._files = files
        self._plan = plan
        self._results = results

    def run(self, on_message: Callable[[str], None]) -> None:
        """Measure everything. A server that fails is listed among the failures; the others continue."""
        with tempfile.TemporaryDirectory(prefix="benchmarks-", ignore_cleanup_errors=True) as folder:
            for group in self._groups:
                self._each_alone(group, Path(folder), on_message)
                self._all_in_turns(group, Path(folder), on_message)

    def _each_alone(self, group: Sequence[Server], folder: Path, on_message: Callable[[str], None]) -> None:
        for number in range(self._plan.starts):
            on_message(f"start and memory, {number + 1} of {self._plan.starts}")
            for server in _shuffled(group, f"start {number}"):
                if server.name not in self._results.failures:
                    self._recording_failure(server.name, partial(self._visit, server, number, folder), on_message)

    def _visit(self, server: Server, number: int, folder: Path) -> None:
        with running(server, self._files, folder) as up:
            with _peak_memory(up.tree) as peak:
                up.load(self._files.photographs(), connections=BUSY, seconds=self._plan.start_load_seconds)
                resident = up.tree.resident_bytes()
            visit = Visit(server.name, number, up.seconds_to_answer, resident, max(peak[0], resident))
        self._results.visits.append(visit)

    def _all_in_turns(self, group: Sequence[Server], folder: Path, on_message: Callable[[str], None]) -> None:
        with ExitStack() as stack:
            started: dict[str, RunningServer] = {}
            for server in group:
                on_message(f"starting {server.title}")
                self._recording_failure(server.name, partial(self._start, server, folder, stack, started), on_message)
            for number in range(self._plan.rounds):
                self._round(number, list(started.values()), on_message)

    def _start(self, server: Server, folder: Path, stack: ExitStack, started: dict[str, RunningServer]) -> None:
        """Start a server until the end of its group, load it once, and freeze it."""
        up = stack.enter_context(running(server, self._files, folder))
        try:
            up.load(self._files.photographs(), connections=BUSY, seconds=self._plan.first_load_seconds)
        finally:
            up.tree.freeze()
        started[server.name] = up

    def _round(self, number: int, started: Sequence[RunningServer], on_message: Callable[[str], None]) -> None:
        for connections in self._plan.connections:
            on_message(f"round {number + 1} of {self._plan.rounds}, {connections} connections")
            for up in _shuffled(started, f"{number} {connections}"):
                self._measure(up, number, "photographs", connections, on_message)
            if connections == BUSY:
                self._ceilings(number, {up.server.name for up in started}, on_message)
        if self._plan.large_seconds:
            on_message(f"round {number + 1} of {self._plan.rounds}, 12 MP")
            for up in _shuffled(started, f"{number} large"):
                self._measure(up, number, "large", 1, on_message)

    def _measure(
        self, up: RunningServer, number: int, kind: ImageKind, connections: int, on_message: Callable[[str], None]
    ) -> None:
        images = self._files.photographs() if kind == "photographs" else self._files.large()
        seconds = self._plan.seconds if kind == "photographs" else self._plan.large_seconds

        def load() -> None:
            up.load(images, connections=connections, seconds=self._plan.warm_up_seconds)
            found = up.load(images, connections=connections, seconds=seconds)
            self._results.measurements.append(Measurement(up.server.name, kind, connections, number, *found))

        up.tree.thaw()
        self._recording_failure(up.server.name, load, on_message)
        up.tree.freeze()

    def _ceilings(self, number: int, measured: Set[str], on_message: Callable[[str], None]) -> None:
        for precision in PRECISIONS:
            if precision in measured:
                self._recording_failure(f"ceiling {precision}", partial(self._ceiling, precision, number), on_message)

    def _ceiling(self, precision: Precision, number: int) -> None:
        model, seconds = str(self._files.exported[precision]), self._plan.seconds
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.ceiling", model, "--seconds", str(seconds)],
            cwd=REPOSITORY,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=seconds + _CEILING_MARGIN_SECONDS,
            check=True,
        )
        self._results.ceilings.append(Ceiling(precision, number, json.loads(done.stdout)["per_second"]))

    def _recording_failure(self, name: str, step: Callable[[], None], on_message: Callable[[str], None]) -> None:
        try:
            step()
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            self._results.failures.setdefault(name, str(error).splitlines()[0])
            on_message(f"{name} failed: {error}")


def _shuffled(servers: Sequence[_T], seed: str) -> list[_T]:
    """Return the servers in a random order that depends only on ``seed``, so that none is always first."""
    return random.Random(seed).sample(servers, len(servers))  # noqa: S311 - not for security


@contextmanager
def _peak_memory(tree: ProcessTree) -> Iterator[list[int]]:
    """Sample the memory of a tree while the block runs; the list's only element is the peak."""
    peak, over = [0], threading.Event()

    def sample() -> None:
        while not over.wait(_SAMPLE_SECONDS):
            peak[0] = max(peak[0], tree.resident_bytes())

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield peak
    finally:
        over.set()
        sampler.join()
