"""What the service counts and measures, for Prometheus; on a registry of its own."""

from collections.abc import Callable
from typing import Any, NamedTuple

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.exposition import choose_encoder

# Counters' times of creation would double the number of series; rates do not need them. A setting of the whole process
# is all that the library has for it.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

STAGES = ("receive", "queue", "decode", "preprocess", "inference")

# Seconds, geometric: from a quarter of a millisecond to half a minute, each 1.5 times the one before it, so that an
# interpolated percentile is wrong by a quarter at most, on fast machines as on slow ones.
BUCKETS = tuple(float(f"{0.00025 * 1.5**step:.3g}") for step in range(30))

# What is not one of these is one label: names of methods are the client's to invent.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER_METHOD = "other"
UNMATCHED = "unmatched"
UNPARSED = "unparsed"


class Row(NamedTuple):
    """One metric as the documentation shows it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


class Metrics:
    """Everything that ``GET /metrics`` shows.

    Labels are bounded: ``route`` is a template of ours (or ``unmatched``, or ``unparsed`` for what was refused before
    there was a path), ``method`` one of seven or ``other``, ``reason`` a code of the error tree.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.rows: list[Row] = []
        self._requests = self._make(
            Counter,
            "requests",
            "Requests answered; status 499 where the client left before.",
            ("route", "method", "status"),
        )
        self._seconds = self._make(
            Histogram, "request_duration_seconds", "From a request's head to the end of its answer.", ("route",)
        )
        self._failures = self._make(
            Counter, "failures", "Requests that failed, by the code of their problem.", ("reason",)
        )
        self._stages = self._make(
            Histogram,
            "stage_duration_seconds",
            "Time of images in each stage: receive (head to whole body), queue (body to thread), decode, preprocess, "
            "inference.",
            ("stage",),
        )
        self._in_flight = self._make(Gauge, "requests_in_flight", "Requests that are being answered now.")
        self._running = self._make(Gauge, "inferences_running", "Inferences that a thread is at.")
        self._waiting = self._make(
            Gauge, "inferences_waiting", "Places taken in the queue; their body is arriving, or they wait for a thread."
        )
        self._rejected = self._make(Counter, "rejected", "Requests answered 429, since all places were taken.")
        self._ready = self._make(Gauge, "ready", "1 where GET /health/ready answers 200.")
        self._model = self._make(
            Info, "model", "Which model is served; the value is 1.", ("name", "arch", "version", "runtime", "precision")
        )
        # Made now, so that a rate over the first failure is no gap.
        self._of_stage = {stage: self._stages.labels(stage) for stage in STAGES}
        # The library looks labels up under a lock; in a dict of our own it takes a tenth of the time. As bounded as the
        # labels are.
        self._answers: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        ProcessCollector(registry=self.registry)
        for family in self.registry.collect():
            if family.name.startswith("process_"):
                name = f"{family.name}_total" if family.type == "counter" else family.name
                self.rows.append(Row(name, family.type, (), family.documentation))

    def _make(self, kind: Any, name: str, says: str, labels: tuple[str, ...] = ()) -> Any:
        full = f"resnet_service_{name}"
        shown = {Counter: f"{full}_total", Info: f"{full}_info"}.get(kind, full)
        self.rows.append(Row(shown, "gauge" if kind is Info else kind.__name__.lower(), labels, says))
        options: dict[str, Any] = {"buckets": BUCKETS} if kind is Histogram else {}
        return kind(full, says, () if kind is Info else labels, registry=self.registry, **options)

    def watch(self, *, running: Callable[[], int], waiting: Callable[[], int], ready: Callable[[], bool]) -> None:
        """Ask these whenever the figures are asked for."""
        self._running.set_function(running)
        self._waiting.set_function(waiting)
        self._ready.set_function(ready)

    def serve(self, *, name: str, arch: str, version: str, runtime: str, precision: str) -> None:
        """Say which model is served from now on."""
        self._model.info({"name": name, "arch": arch, "version": version, "runtime": runtime, "precision": precision})

    def begin(self) -> None:
        """Count a request that is being answered, until ``answered``."""
        self._in_flight.inc()

    def answered(self, route: str, method: str, status: int, seconds: float, reason: str | None) -> None:
        """Count a request that has been answered, or whose client has left."""
        self._in_flight.dec()
        requests, durations = self._answer(route, method, status)
        requests.inc()
        durations.observe(seconds)
        if reason is not None:
            self._failures.labels(reason).inc()

    def refused(self, status: int, reason: str) -> None:
        """Count a request that was refused before there was a path or an application for it."""
        self._answer(UNPARSED, OTHER_METHOD, status)[0].inc()
        self._failures.labels(reason).inc()

    def rejected(self) -> None:
        """Count a request for which there was no place."""
        self._rejected.inc()

    def stage(self, stage: str, seconds: float) -> None:
        """Take the time of one image in one of ``STAGES``."""
        self._of_stage[stage].observe(seconds)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return all figures of now, in the format that an ``Accept`` header asks for, and its media type."""
        encode, media_type = choose_encoder(accept)
        return encode(self.registry), media_type

    def _answer(self, route: str, method: str, status: int) -> tuple[Counter, Histogram]:
        known = self._answers.get((route, method, status))
        if known is None:
            label = method if method in _METHODS else OTHER_METHOD
            known = self._requests.labels(route, label, status), self._seconds.labels(route)
            if label == method:  # others are not remembered: there is no end to them
                self._answers[route, method, status] = known
        return known


def metrics_table() -> str:
    """Return all metrics as a Markdown table, as ``docs/metrics.md`` shows it."""
    lines = ["| metric | kind | labels | what it says |", "|---|---|---|---|"]
    for row in Metrics().rows:
        labels = ", ".join(f"`{label}`" for label in row.labels)
        lines.append(f"| `{row.name}` | {row.kind} | {labels} | {row.help} |")
    return "\n".join(lines)
