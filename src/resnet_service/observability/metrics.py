"""Prometheus metrics of the service, in a registry of their own."""

from collections.abc import Callable
from typing import Any, NamedTuple

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.exposition import choose_encoder

from resnet_service.system.memory_limit import memory_limit

# Creation times of counters would double the number of series, and rates do not need them. The library can only turn
# them off for the whole process.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

RELOADED = ("model", "api_keys")
STAGES = ("receive", "queue", "decode", "preprocess", "inference")

# Seconds, from 0.25 ms to 32 s, each 1.5 times the one before it: an interpolated percentile is off by a quarter at
# most, on fast and slow machines alike.
BUCKETS = tuple(float(f"{0.00025 * 1.5**step:.3g}") for step in range(30))

# Clients can invent method names, so all others share one label.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER_METHOD = "other"
# What Pillow's decoders raise on broken files; all others share one label.
_DECODER_ERRORS = frozenset(
    {"UnidentifiedImageError", "OSError", "SyntaxError", "ValueError", "RuntimeError", "error", "IndexError"}
    | {"KeyError", "TypeError", "EOFError", "OverflowError", "ZeroDivisionError", "AttributeError"}
)
OTHER_ERROR = "other"
UNMATCHED = "unmatched"
UNPARSED = "unparsed"


class Row(NamedTuple):
    """A metric's row in the documentation."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


class Metrics:
    """All metrics of ``GET /metrics``.

    Labels are bounded: ``route`` is a route's template, ``unmatched``, or ``unparsed`` for a request that was refused
    before its path was read; ``method`` is one of seven or ``other``; ``reason`` is an error code.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.rows: list[Row] = []
        self._requests = self._make(
            Counter,
            "requests",
            "Requests answered; status 499 if the client disconnected first.",
            ("route", "method", "status"),
        )
        self._seconds = self._make(
            Histogram, "request_duration_seconds", "Seconds from request head to end of response.", ("route",)
        )
        self._failures = self._make(Counter, "failures", "Failed requests, by error code.", ("reason",))
        self._stages = self._make(
            Histogram,
            "stage_duration_seconds",
            "Seconds of an image in each stage: receive (head to whole body), queue (body to thread), decode, "
            "preprocess, inference.",
            ("stage",),
        )
        self._decoder_failures = self._make(
            Counter, "decoder_failures", "Broken images, by the type of the decoder's error.", ("type",)
        )
        self._in_flight = self._make(Gauge, "requests_in_flight", "Requests in progress.")
        self._running = self._make(Gauge, "inferences_running", "Inferences in progress.")
        self._waiting = self._make(
            Gauge,
            "inferences_waiting",
            "Occupied queue slots whose request body is arriving or whose work waits for a thread.",
        )
        self._rejected = self._make(Counter, "rejected", "Requests answered 429 because the queue was full.")
        self._log_lines_lost = self._make(
            Counter, "log_lines_lost", "Log lines dropped because nothing reads the log, or not written to a full disk."
        )
        self._reloads = self._make(
            Counter,
            "reloads",
            "Reloads of the model and of the API keys (what), by outcome: success or failure.",
            ("what", "outcome"),
        )
        self._memory_limit = self._make(
            Gauge,
            "memory_limit_bytes",
            "Memory that the service may use: its container's limit, or else the machine's memory.",
        )
        self._ready = self._make(Gauge, "ready", "1 if GET /health/ready answers 200, else 0.")
        self._model = self._make(
            Info, "model", "The served model; the value is 1.", ("name", "arch", "version", "runtime", "precision")
        )
        # Created now, so that every stage and every reload has a series from the start.
        for what in RELOADED:
            for succeeded in (True, False):
                self.reloaded(what, succeeded, times=0)
        self._memory_limit.set(memory_limit())
        self._of_stage = {stage: self._stages.labels(stage) for stage in STAGES}
        # The library looks labels up under a lock; this dict takes a tenth of the time. It is bounded as labels are.
        self._answers: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        ProcessCollector(registry=self.registry)
        for family in self.registry.collect():
            if family.name.startswith("process_"):
                name = f"{family.name}_total" if family.type == "counter" else family.name
                self.rows.append(Row(name, family.type, (), family.documentation))

    def _make(self, kind: Any, name: str, description: str, labels: tuple[str, ...] = ()) -> Any:
        full = f"resnet_service_{name}"
        shown = {Counter: f"{full}_total", Info: f"{full}_info"}.get(kind, full)
        self.rows.append(Row(shown, "gauge" if kind is Info else kind.__name__.lower(), labels, description))
        options: dict[str, Any] = {"buckets": BUCKETS} if kind is Histogram else {}
        return kind(full, description, () if kind is Info else labels, registry=self.registry, **options)

    def watch(self, *, running: Callable[[], int], waiting: Callable[[], int], ready: Callable[[], bool]) -> None:
        """Read these gauges from the given functions at each scrape."""
        self._running.set_function(running)
        self._waiting.set_function(waiting)
        self._ready.set_function(ready)

    def serve(self, *, name: str, arch: str, version: str, runtime: str, precision: str) -> None:
        """Set the labels of the served model."""
        self._model.info({"name": name, "arch": arch, "version": version, "runtime": runtime, "precision": precision})

    def begin(self) -> None:
        """Count a request as in progress until ``answered``."""
        self._in_flight.inc()

    def answered(self, route: str, method: str, status: int, seconds: float, reason: str | None) -> None:
        """Count a request that was answered or whose client has disconnected."""
        self._in_flight.dec()
        requests, durations = self._answer(route, method, status)
        requests.inc()
        durations.observe(seconds)
        if reason is not None:
            self._failures.labels(reason).inc()

    def refused(self, status: int, reason: str) -> None:
        """Count a request that was refused before its path was read."""
        self._answer(UNPARSED, OTHER_METHOD, status)[0].inc()
        self._failures.labels(reason).inc()

    def rejected(self) -> None:
        """Count a request that found the queue full."""
        self._rejected.inc()

    def decoder_failed(self, kind: str) -> None:
        """Count a broken image; ``kind`` is the name of the decoder's exception."""
        self._decoder_failures.labels(kind if kind in _DECODER_ERRORS else OTHER_ERROR).inc()

    def log_lines_lost(self, lines: int) -> None:
        """Count lines that the log has lost."""
        self._log_lines_lost.inc(lines)

    def reloaded(self, what: str, succeeded: bool, *, times: int = 1) -> None:
        """Count an attempt to reload one of ``RELOADED``."""
        self._reloads.labels(what, "success" if succeeded else "failure").inc(times)

    def stage(self, stage: str, seconds: float) -> None:
        """Record the seconds of one image in one of ``STAGES``."""
        self._of_stage[stage].observe(seconds)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return the current values in the format that an ``Accept`` header asks for, and its media type."""
        encode, media_type = choose_encoder(accept)
        return encode(self.registry), media_type

    def _answer(self, route: str, method: str, status: int) -> tuple[Counter, Histogram]:
        pair = self._answers.get((route, method, status))
        if pair is None:
            label = method if method in _METHODS else OTHER_METHOD
            pair = self._requests.labels(route, label, status), self._seconds.labels(route)
            if label == method:  # invented methods are not cached: their number is unbounded
                self._answers[route, method, status] = pair
        return pair


def metrics_table() -> str:
    """Return the Markdown table of all metrics in ``docs/metrics.md``."""
    lines = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for row in Metrics().rows:
        labels = ", ".join(f"`{label}`" for label in row.labels)
        lines.append(f"| `{row.name}` | {row.kind} | {labels} | {row.help} |")
    return "\n".join(lines)
