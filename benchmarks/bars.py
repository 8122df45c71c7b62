"""The target figures, computed from the results."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from benchmarks.files import Precision
from benchmarks.results import ImageKind, Metric, Ratio, Results, Visit, middle, ratio

Form = Literal["times", "fraction", "percent", "megabytes", "seconds", "points"]

PEERS = ("flask", "litserve", "bentoml", "torchserve")
SAME_MODEL = ("litserve-int8", "bentoml-int8")
BUSY, ALONE = 16, 1
MEGABYTE = 1e6


@dataclass(frozen=True)
class Bar:
    """A target. The form ``fraction`` means that ours is ``1/value`` of the other's, so that more is better."""

    name: str
    form: Form
    target: float
    value: float | None
    against: str = ""
    spread: tuple[float, float] | None = None
    missing: tuple[str, ...] = ()  # servers that the comparison lacks

    @property
    def more_is_better(self) -> bool:
        """Whether the target is a minimum; otherwise it is a maximum."""
        return self.form in ("times", "fraction", "percent")

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; ``None`` if it was not measured."""
        if self.value is None:
            return None
        return self.value >= self.target if self.more_is_better else self.value <= self.target


def evaluate(results: Results) -> list[Bar]:
    """Return all targets, in the order of the report."""
    return [
        *_throughput(results),
        _faster(results, "median latency, 1 connection, INT8", 4.5, "int8", ["flask"], "p50", ALONE),
        *_same_model(results),
        *_shares(results),
        _faster(results, "12 MP JPEG, median, 1 connection, INT8", 3, "int8", ["flask"], "p50", ALONE, "large"),
        *_memory(results),
        *_start(results),
        _file(results),
        _accuracy(results),
    ]


def _throughput(results: Results) -> Iterable[Bar]:
    for precision, target in (("int8", 4.5), ("bf16", 2.7), ("fp32", 1.7)):
        name = f"requests/s, {BUSY} connections, {precision.upper()}"
        yield _more(results, name, target, precision, PEERS)


def _same_model(results: Results) -> Iterable[Bar]:
    name = "the same INT8 model inside other servers"
    yield _more(results, f"{name}: requests/s, {BUSY} connections", 1.15, "int8", SAME_MODEL)
    # The others have a process for each CPU too.
    own = f"{name}, a process per CPU: requests/s, {BUSY} connections"
    yield _more(results, own, 1.15, "int8-processes", SAME_MODEL)
    yield _faster(results, f"{name}: median latency, {ALONE} connection", 1.4, "int8", SAME_MODEL, "p50", ALONE)


def _shares(results: Results) -> Iterable[Bar]:
    shares: tuple[tuple[str, Precision, str, float], ...] = (
        ("int8", "int8", "INT8", 0.9),
        ("int8-processes", "int8", "INT8, a process per CPU", 0.9),
        ("bf16", "bf16", "BF16", 0.93),
        ("fp32", "fp32", "FP32", 0.93),
    )
    for server, precision, title, target in shares:
        found = ratio(results.loads(server, "per_second", BUSY, "photographs"), results.ceiling(precision))
        name = f"share of the no-HTTP ceiling, {BUSY} connections, {title}"
        yield _bar(name, "percent", target, found, "ceiling")


def _more(results: Results, name: str, target: float, ours: str, others: Iterable[str]) -> Bar:
    """Return requests a second as a multiple of the best other server's."""

    def rate(server: str) -> dict[int, float]:
        return results.loads(server, "per_second", BUSY, "photographs")

    best, missing = _best(others, rate, highest=True)
    return _bar(name, "times", target, ratio(rate(ours), rate(best)) if best else None, best, missing)


def _faster(
    results: Results,
    name: str,
    target: float,
    ours: str,
    others: Iterable[str],
    metric: Metric,
    connections: int,
    images: ImageKind = "photographs",
) -> Bar:
    """Return a latency as a fraction of the best other server's."""

    def latency(server: str) -> dict[int, float]:
        return results.loads(server, metric, connections, images)

    best, missing = _best(others, latency, highest=False)
    return _bar(name, "fraction", target, ratio(latency(best), latency(ours)) if best else None, best, missing)


def _memory(results: Results) -> Iterable[Bar]:
    def resident(server: str) -> dict[int, float]:
        return results.visited(server, lambda visit: visit.resident_bytes)

    ours = middle(resident("int8"))
    name = f"resident memory, INT8, after {BUSY} connections"
    yield Bar(name, "megabytes", 200, None if ours is None else ours / MEGABYTE)
    leanest, missing = _best(PEERS, resident, highest=False)
    found = ratio(resident(leanest), resident("int8")) if leanest else None
    yield _bar(f"{name}, against the leanest peer", "fraction", 4, found, leanest, missing)


def _start(results: Results) -> Iterable[Bar]:
    def seconds(visit: Visit) -> float:
        return visit.seconds_to_answer

    name = "process start to first answer, INT8"
    yield Bar(name, "seconds", 0.8, middle(results.visited("int8", seconds)))
    found = ratio(results.visited("torch", seconds), results.visited("int8", seconds))
    yield _bar(f"{name}, against the torch runtime", "fraction", 3, found, "torch")


def _file(results: Results) -> Bar:
    size = results.file_bytes.get("int8")
    return Bar("INT8 file", "megabytes", 12, None if size is None else size / MEGABYTE)


def _accuracy(results: Results) -> Bar:
    measured = {"fp32", "int8"} <= results.top1.keys()
    loss = results.top1["fp32"] - results.top1["int8"] if measured else None
    return Bar("INT8 top-1 lost on Fashion-MNIST's 10,000 test images", "points", 0.3, loss)


def _best(
    servers: Iterable[str], by_round: Callable[[str], dict[int, float]], *, highest: bool
) -> tuple[str, tuple[str, ...]]:
    """Return the server with the best median, or an empty name, and the servers that were not measured."""
    found = {server: middle(by_round(server)) for server in servers}
    medians = {server: value for server, value in found.items() if value is not None}
    missing = tuple(server for server in found if server not in medians)
    if not medians:
        return "", missing
    choose = max if highest else min
    return choose(medians, key=lambda server: medians[server]), missing


def _bar(name: str, form: Form, target: float, found: Ratio | None, against: str, missing: tuple[str, ...] = ()) -> Bar:
    if found is None:
        return Bar(name, form, target, None)
    return Bar(name, form, target, found.median, against, (found.lowest, found.highest), missing)
