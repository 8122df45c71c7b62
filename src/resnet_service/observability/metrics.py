"""Prometheus metrics of the service, summed over all of its processes."""

import os
from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import prometheus_client
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from resnet_service.system.memory_limit import memory_limit
from resnet_service.system.shared_state import Column, SharedState

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


_COUNTERS = {
    "requests": ("Requests answered; status 499 if the client disconnected first.", ("route", "method", "status")),
    "failures": ("Failed requests, by error code.", ("reason",)),
    "decoder_failures": ("Broken images, by the type of the decoder's error.", ("type",)),
    "rejected": ("Requests answered 429 because the queue was full.", ()),
    "log_lines_lost": ("Log lines dropped because nothing reads the log, or not written to a full disk.", ()),
    "reloads": (
        "Reloads of the model and of the API keys (what), by outcome: success or failure; one for each process.",
        ("what", "outcome"),
    ),
}
_HISTOGRAMS = {
    "request_duration_seconds": ("Seconds from request head to end of response.", ("route",)),
    "stage_duration_seconds": (
        "Seconds of an image in each stage: receive (head to whole body), queue (body to thread), decode, "
        "preprocess, inference.",
        ("stage",),
    ),
}
_GAUGES = {
    "requests_in_flight": "Requests in progress.",
    "inferences_running": "Inferences in progress.",
    "inferences_waiting": "Occupied queue slots whose request body is arriving or whose work waits for a thread.",
}
_HISTOGRAM_WIDTH = len(BUCKETS) + 2  # the last bucket has no bound; then the sum


class Metrics(Collector):
    """All metrics of ``GET /metrics``: the sums over all processes, each of which counts in a row of its own.

    Labels are bounded: ``route`` is a route's template, ``unmatched``, or ``unparsed`` for a request that was refused
    before its path was read; ``method`` is one of seven or ``other``; ``reason`` is an error code.

    Call everything but ``log_lines_lost`` from one thread, the event loop's: values are changed without a lock. Only
    the log's thread changes the number of lost lines.
    """

    def __init__(self, shared: SharedState | None = None) -> None:
        self._shared = shared or SharedState.local()
        self._numbers = self._shared.metrics.row(self._shared.index)
        self._model: dict[str, str] | None = None
        self._ready: Callable[[], bool] = lambda: False
        self._gauges: dict[int, Callable[[], int]] = {}
        self._columns_of: dict[tuple[str, ...], int] = {}
        self._in_flight, self._running, self._waiting = (self._column(name) for name in _GAUGES)
        self._rejected = self._column("rejected")
        self._log_lines_lost = self._column("log_lines_lost")
        # Created now, so that every stage and every reload has a series from the start.
        self._of_stage = {stage: self._column("stage_duration_seconds", stage) for stage in STAGES}
        for what in RELOADED:
            for succeeded in (True, False):
                self.reloaded(what, succeeded, times=0)
        # What an earlier process of this row had in its hands is lost; what it has counted stays.
        for column in (self._in_flight, self._running, self._waiting):
            self._numbers[column] = 0
        # Bounded as labels are.
        self._answers: dict[tuple[str, str, int], tuple[int, int]] = {}
        self.registry = CollectorRegistry()
        self.registry.register(self)

    @property
    def rows(self) -> list[Row]:
        """The rows of all metrics in the documentation."""
        labels_of = {f"resnet_service_{name}": labels for name, (_, labels) in (_COUNTERS | _HISTOGRAMS).items()}
        labels_of["resnet_service_model"] = ("name", "arch", "version", "runtime", "precision")
        suffixes = {"counter": "_total", "info": "_info"}
        return [
            Row(
                f"{family.name}{suffixes.get(family.type, '')}",
                family.type.replace("info", "gauge"),
                labels_of.get(family.name, ()),
                family.documentation,
            )
            for family in self.collect()
        ]

    def set_gauges(self, *, running: Callable[[], int], waiting: Callable[[], int], ready: Callable[[], bool]) -> None:
        """Set the functions from which ``publish`` reads the gauges of this process."""
        self._gauges = {self._running: running, self._waiting: waiting}
        self._ready = ready

    def publish(self) -> None:
        """Show the gauges of this process to the others."""
        for column, read in self._gauges.items():
            self._numbers[column] = read()

    def set_model(self, *, name: str, arch: str, version: str, runtime: str, precision: str) -> None:
        """Set the labels of the served model."""
        self._model = {"name": name, "arch": arch, "version": version, "runtime": runtime, "precision": precision}

    def begin(self) -> None:
        """Count a request as in progress until ``answered``."""
        self._numbers[self._in_flight] += 1

    def answered(self, route: str, method: str, status: int, seconds: float, reason: str | None) -> None:
        """Count a request that was answered or whose client has disconnected."""
        self._numbers[self._in_flight] -= 1
        requests, durations = self._answer(route, method, status)
        self._numbers[requests] += 1
        self._observe(durations, seconds)
        if reason is not None:
            self._numbers[self._column("failures", reason)] += 1

    def refused(self, status: int, reason: str) -> None:
        """Count a request that was refused before its path was read."""
        self._numbers[self._answer(UNPARSED, OTHER_METHOD, status)[0]] += 1
        self.failed(reason)

    def failed(self, reason: str) -> None:
        """Count a failure that is not, or not yet, one of a request."""
        self._numbers[self._column("failures", reason)] += 1

    def rejected(self) -> None:
        """Count a request that found the queue full."""
        self._numbers[self._rejected] += 1

    def decoder_failed(self, kind: str) -> None:
        """Count a broken image; ``kind`` is the name of the decoder's exception."""
        self._numbers[self._column("decoder_failures", kind if kind in _DECODER_ERRORS else OTHER_ERROR)] += 1

    def log_lines_lost(self, lines: int) -> None:
        """Count lines that the log has lost."""
        self._numbers[self._log_lines_lost] += lines

    def reloaded(self, what: str, succeeded: bool, *, times: int = 1) -> None:
        """Count an attempt to reload one of ``RELOADED``."""
        self._numbers[self._column("reloads", what, "success" if succeeded else "failure")] += times

    def stage(self, stage: str, seconds: float) -> None:
        """Record the seconds of one image in one of ``STAGES``."""
        self._observe(self._of_stage[stage], seconds)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return the current values in the format that an ``Accept`` header asks for, and its media type."""
        self.publish()
        encode, media_type = choose_encoder(accept)
        return encode(self.registry), media_type

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics with the sums of all processes; ``prometheus_client`` calls this."""
        total = self._shared.metrics.sum
        families: dict[str, Metric] = {}
        for name, (text, names) in _COUNTERS.items():
            families[name] = CounterMetricFamily(f"resnet_service_{name}", text, labels=names)
        for name, (text, names) in _HISTOGRAMS.items():
            families[name] = HistogramMetricFamily(f"resnet_service_{name}", text, labels=names)
        for name, text in _GAUGES.items():
            families[name] = GaugeMetricFamily(f"resnet_service_{name}", text, labels=())
        for (name, *labels), column in self._shared.keys:
            family = families[name]
            if isinstance(family, HistogramMetricFamily):
                counts = accumulate(total(column + step) for step in range(len(BUCKETS) + 1))
                bounds = (*map(floatToGoString, BUCKETS), "+Inf")
                buckets = list(zip(bounds, counts, strict=True))
                family.add_metric(labels, buckets, total(column + _HISTOGRAM_WIDTH - 1))
            else:
                family.add_metric(labels, total(column))  # type: ignore[attr-defined]
        yield from families.values()
        yield GaugeMetricFamily(
            "resnet_service_memory_limit_bytes",
            "Memory that the service may use: its container's limit, or else the machine's memory.",
            memory_limit(),
        )
        ready = GaugeMetricFamily("resnet_service_ready", "1 if GET /health/ready answers 200, else 0.", labels=())
        ready.add_metric((), float(self._ready()))
        yield ready
        model = InfoMetricFamily("resnet_service_model", "The served model; the value is 1.", labels=())
        if self._model is not None:
            model.add_metric((), self._model)
        yield model
        restarts = self._shared.supervisor[Column.RESTARTS]
        yield CounterMetricFamily(
            "resnet_service_worker_restarts", "Processes that were replaced because they ended or hung.", restarts
        )
        yield from _process_metrics(self._shared)

    def _column(self, *key: str) -> int:
        column = self._columns_of.get(key)
        if column is None:
            width = _HISTOGRAM_WIDTH if key[0] in _HISTOGRAMS else 1
            column = self._columns_of[key] = self._shared.keys.columns(key, width)
        return column

    def _observe(self, column: int, value: float) -> None:
        self._numbers[column + bisect_left(BUCKETS, value)] += 1
        self._numbers[column + _HISTOGRAM_WIDTH - 1] += value

    def _answer(self, route: str, method: str, status: int) -> tuple[int, int]:
        pair = self._answers.get((route, method, status))
        if pair is None:
            label = method if method in _METHODS else OTHER_METHOD
            pair = self._column("requests", route, label, str(status)), self._column("request_duration_seconds", route)
            if label == method:  # invented methods are not cached: their number is unbounded
                self._answers[route, method, status] = pair
        return pair


def _process_metrics(shared: SharedState) -> Iterator[Metric]:
    """Yield the metrics of ``prometheus_client.ProcessCollector``, summed over the processes of the service."""
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    cpu, virtual, resident, open_fds, max_fds = 0.0, 0.0, 0.0, 0.0, 0.0
    with shared.processes.lock:  # a process's CPU time is counted either as its own or as a dead one's
        cpu += shared.processes.sum(Column.DEAD_CPU)
        for pid in shared.pids():
            folder = Path(f"/proc/{pid}")
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                cpu += (int(fields[11]) + int(fields[12])) / ticks
                virtual += int(fields[20])
                resident += int(fields[21]) * page
                open_fds += len(os.listdir(folder / "fd"))
                limit = next(line for line in (folder / "limits").read_text().splitlines() if "open files" in line)
                max_fds += float(limit.split()[3].replace("unlimited", "inf"))
            except OSError:  # it has ended
                continue
    yield GaugeMetricFamily("process_virtual_memory_bytes", "Virtual memory size in bytes.", virtual)
    yield GaugeMetricFamily("process_resident_memory_bytes", "Resident memory size in bytes.", resident)
    begun = shared.supervisor[Column.BEGUN]
    yield GaugeMetricFamily("process_start_time_seconds", "Start time of the service since unix epoch.", begun)
    yield CounterMetricFamily("process_cpu_seconds", "Total user and system CPU time spent in seconds.", cpu)
    yield GaugeMetricFamily("process_open_fds", "Number of open file descriptors.", open_fds)
    yield GaugeMetricFamily("process_max_fds", "Maximum number of open file descriptors.", max_fds)


def metrics_table() -> str:
    """Return the Markdown table of all metrics in ``docs/metrics.md``."""
    lines = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for row in Metrics().rows:
        labels = ", ".join(f"`{label}`" for label in row.labels)
        lines.append(f"| `{row.name}` | {row.kind} | {labels} | {row.help} |")
    return "\n".join(lines)
