"""The results of a run: one record for each measurement, without averages."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

ImageKind = Literal["photographs", "large"]
Metric = Literal["per_second", "p50", "p95", "p99"]


@dataclass(frozen=True)
class Subject:
    """A server in the comparison."""

    name: str
    title: str
    family: str
    about: str


@dataclass(frozen=True)
class Measurement:
    """One run of the load generator; percentiles in milliseconds."""

    server: str
    images: ImageKind
    connections: int
    round: int
    per_second: float
    p50: float
    p95: float
    p99: float
    requests: int
    errors: int


@dataclass(frozen=True)
class Ceiling:
    """One measurement without HTTP."""

    precision: str
    round: int
    per_second: float


@dataclass(frozen=True)
class Visit:
    """One start with no other server running: time to the first answer, memory after load, and peak memory."""

    server: str
    round: int
    seconds_to_answer: float
    resident_bytes: int
    peak_bytes: int


@dataclass
class Results:
    """All results of a run."""

    date: str
    machine: dict[str, str]
    versions: dict[str, str]
    settings: dict[str, Any]
    subjects: list[Subject] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    ceilings: list[Ceiling] = field(default_factory=list)
    visits: list[Visit] = field(default_factory=list)
    file_bytes: dict[str, int] = field(default_factory=dict)
    top1: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def loads(self, server: str, metric: Metric, connections: int, images: ImageKind) -> dict[int, float]:
        """Return a metric by round, without measurements that had errors."""
        return {
            one.round: float(getattr(one, metric))
            for one in self.measurements
            if (one.server, one.connections, one.images, one.errors) == (server, connections, images, 0)
        }

    def errors(self, server: str) -> int:
        """Return how many requests of a server failed."""
        return sum(one.errors for one in self.measurements if one.server == server)

    def ceiling(self, precision: str) -> dict[int, float]:
        """Return images a second without HTTP, by round."""
        return {one.round: one.per_second for one in self.ceilings if one.precision == precision}

    def visited(self, server: str, value: Callable[[Visit], float]) -> dict[int, float]:
        """Return a value of a server's visits, by round."""
        return {one.round: value(one) for one in self.visits if one.server == server}

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Results":
        """Read the JSON of ``write``."""
        content = json.loads(path.read_text())
        content["subjects"] = [Subject(**one) for one in content["subjects"]]
        content["measurements"] = [Measurement(**one) for one in content["measurements"]]
        content["ceilings"] = [Ceiling(**one) for one in content["ceilings"]]
        content["visits"] = [Visit(**one) for one in content["visits"]]
        return cls(**content)


def middle(by_round: dict[int, float]) -> float | None:
    """Return the median over the rounds, if there are any."""
    return median(by_round.values()) if by_round else None


@dataclass(frozen=True)
class Ratio:
    """The ratio of two measurements, taken round by round: median, lowest and highest."""

    median: float
    lowest: float
    highest: float


def ratio(above: dict[int, float], below: dict[int, float]) -> Ratio | None:
    """Divide round by round: a disturbance of a round slows both down and cancels out."""
    found = [above[number] / below[number] for number in above.keys() & below.keys()]
    return Ratio(median(found), min(found), max(found)) if found else None
