"""Results as a page of Markdown; every figure on it comes from ``results.json``."""

from collections.abc import Iterable, Mapping, Sequence

from benchmarks import bars
from benchmarks.bars import ALONE, BUSY, MEGABYTE, Bar
from benchmarks.files import PRECISIONS
from benchmarks.results import ImageKind, Metric, Results, Subject, middle

_NOTHING = "-"
IDLE_PERCENT = 5  # of the processor, used by others, is what a quiet machine needs for itself
_REACHED = {True: "yes", False: "**no**", None: "not measured"}


def page(results: Results) -> str:
    """Return the whole page."""
    parts = [_head(results), *_about_bars(results), *_about_load(results), *_about_alone(results), *_about_end(results)]
    return "\n\n".join(parts) + "\n"


def _head(results: Results) -> str:
    machine, settings = results.machine, results.settings
    others = settings["others_percent"]
    busy = f" **Other processes used {others} % of the processor when the run began.**" if others > IDLE_PERCENT else ""
    return (
        "# Benchmarks\n\n"
        f"Measured on {results.date}: ResNet-18, 224x224, 1000 classes, {settings['weights']} weights, on "
        f"{machine['cores']} cores of {machine['processor']} ({machine['instructions']}), {machine['memory']}, "
        f"{machine['system']}. All servers were measured in turn in one run of {settings['rounds']} rounds, with "
        f"{settings['seconds']} s per measurement. Figures are medians over the rounds. "
        "`benchmarks/README.md` describes the method; "
        f"[results.json](results.json) has every measurement.{busy}"
    )


def _about_bars(results: Results) -> Iterable[str]:
    if all(subject.name != "int8" for subject in results.subjects):
        return  # the bars are about another run than this
    yield "## Targets"
    yield (
        "Each ratio is the median of the ratios in each round; the lowest and highest are in brackets. "
        "`1/x` is a fraction of the other server's figure."
    )
    titles = {subject.name: subject.title for subject in results.subjects}
    rows = [
        [bar.name, _bar_target(bar), _bar_value(bar), _against(bar, titles), _REACHED[bar.reached]]
        for bar in bars.evaluate(results)
    ]
    yield _table(["figure", "target", "measured", "compared with", "reached"], rows)


def _about_load(results: Results) -> Iterable[str]:
    levels = [int(number) for number in results.settings["connections"]]
    yield "## Throughput: requests per second, by connections\n\n![Throughput](throughput.png)"
    rows = [
        [_titled(one, results), *(_load(results, one, "per_second", n) for n in levels)] for one in results.subjects
    ]
    ceilings = [
        [f"ceiling, {precision.upper()}: without HTTP", *(_NOTHING if n != BUSY else _number(found) for n in levels)]
        for precision in PRECISIONS
        if (found := middle(results.ceiling(precision))) is not None
    ]
    yield _table(["server", *map(str, levels)], rows + ceilings)
    yield "## Latency: median / 95 % / 99 % in ms, by connections\n\n![Latency](latency.png)"
    yield _table(
        ["server", *map(str, levels), "12 MP, 1"],
        [
            [
                _titled(one, results),
                *(_latencies(results, one, number, "photographs") for number in levels),
                _latencies(results, one, ALONE, "large"),
            ]
            for one in results.subjects
        ],
    )


def _about_alone(results: Results) -> Iterable[str]:
    yield "## Memory and start-up\n\n![Memory](memory.png)\n\n![Start-up](start.png)"
    yield (
        "Each server runs alone. The first response is timed from the start of the process. Memory is the proportional "
        f"set size of all the server's processes at the end of a load of {BUSY} connections, and at its peak."
    )
    rows = []
    for one in results.subjects:
        seconds = middle(results.visited(one.name, lambda visit: visit.seconds_to_answer))
        resident = middle(results.visited(one.name, lambda visit: visit.resident_bytes / MEGABYTE))
        peak = middle(results.visited(one.name, lambda visit: visit.peak_bytes / MEGABYTE))
        rows.append([one.title, _number(seconds, digits=2), _number(resident), _number(peak)])
    yield _table(["server", "first response, s", "memory, MB", "peak, MB"], rows)


def _about_end(results: Results) -> Iterable[str]:
    yield "## Files"
    yield _table(["file", "MB"], [[name, f"{size / MEGABYTE:.1f}"] for name, size in results.file_bytes.items()])
    yield "## Servers and versions"
    yield _table(["server", "settings"], [[one.title, one.about] for one in results.subjects])
    yield ", ".join(f"{name} {version}" for name, version in results.versions.items() if version)
    if results.failures:
        yield "## Failures"
        yield _table(["server", "what happened"], [[name, why] for name, why in results.failures.items()])


def _titled(one: Subject, results: Results) -> str:
    errors = results.errors(one.name)
    return f"{one.title} ({errors} errors; measurements with errors are left out)" if errors else one.title


def _load(results: Results, one: Subject, metric: Metric, connections: int) -> str:
    return _number(middle(results.loads(one.name, metric, connections, "photographs")))


def _latencies(results: Results, one: Subject, connections: int, images: ImageKind) -> str:
    metrics: tuple[Metric, ...] = ("p50", "p95", "p99")
    found = [middle(results.loads(one.name, metric, connections, images)) for metric in metrics]
    return " / ".join(map(_number, found)) if found[0] is not None else _NOTHING


def _against(bar: Bar, titles: Mapping[str, str]) -> str:
    named = titles.get(bar.against, bar.against)
    return f"{named} ({', '.join(bar.missing)} not measured)" if bar.missing else named


def _bar_target(bar: Bar) -> str:
    sign = "≥" if bar.form in ("times", "percent") else "≤"
    return f"{sign} {_in_form(bar, bar.target)}"


def _bar_value(bar: Bar) -> str:
    if bar.value is None:
        return _NOTHING
    spread = "" if bar.spread is None else f" ({' … '.join(_in_form(bar, end) for end in bar.spread)})"
    return _in_form(bar, bar.value) + spread


def _in_form(bar: Bar, value: float) -> str:
    match bar.form:
        case "times":
            return f"{value:.3g}x"
        case "fraction":
            return f"1/{value:.3g}"
        case "percent":
            return f"{100 * value:.1f} %"
        case "megabytes":
            return f"{value:.4g} MB"
        case "seconds":
            return f"{value:.3g} s"
        case "points":
            return f"{value:.2f} points"


def _number(value: float | None, digits: int | None = None) -> str:
    if value is None:
        return _NOTHING
    if digits is None:
        digits = 1 if value < 100 else 0
    return f"{value:.{digits}f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    aligned = ["---", *("---:" for _ in head[1:])] if len(head) > 2 else ["---"] * len(head)
    lines = [head, aligned, *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
