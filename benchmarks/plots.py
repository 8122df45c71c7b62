"""Plots of the results, in Okabe and Ito's colours, which colour-blind people can distinguish."""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from benchmarks.bars import ALONE, BUSY, MEGABYTE
from benchmarks.results import Results, Subject, middle

_COLOURS = {"ours": "#0072B2", "peer": "#7f7f7f", "same model": "#E69F00"}
_LEGEND = {"ours": "resnet-service", "peer": "other servers, PyTorch", "same model": "other servers, our INT8 model"}
_CEILING = "#D55E00"
_MIN_STRENGTH = 0.4  # of the colour, for the bar of the fewest connections
_BAR_INCHES = 0.17
_ROW_INCHES = 0.34


def draw(results: Results, folder: Path) -> list[Path]:
    """Write the plots into ``folder``; return their paths. Missing measurements are left out."""
    figures = {"throughput": _throughput(results), "latency": _latency(results)}
    if results.visits:
        figures["memory"] = _alone(
            results,
            lambda one: middle(results.visited(one.name, lambda visit: visit.resident_bytes / MEGABYTE)),
            f"Memory of all processes after {BUSY} connections, MB (less is better)",
            "{:.0f}",
        )
        figures["start"] = _alone(
            results,
            lambda one: middle(results.visited(one.name, lambda visit: visit.seconds_to_answer)),
            "Process start to first answer, s (less is better)",
            "{:.2f}",
        )
    paths = []
    for name, figure in figures.items():
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=120)
        paths.append(path)
    return paths


def _throughput(results: Results) -> Figure:
    levels = [int(number) for number in results.settings["connections"]]
    subjects = results.subjects
    figure, axes = _figure(len(subjects) * (len(levels) * _BAR_INCHES + 0.1))
    height = 0.84 / len(levels)
    for step, connections in enumerate(levels):
        strength = 1 - (1 - _MIN_STRENGTH) * (len(levels) - 1 - step) / max(len(levels) - 1, 1)
        offset = (step - (len(levels) - 1) / 2) * height
        for row, one in enumerate(subjects):
            value = middle(results.loads(one.name, "per_second", connections, "photographs"))
            if value is None:
                continue
            axes.barh(row + offset, value, height * 0.9, color=_mixed(_COLOURS[one.family], strength))
            _write(axes, f"{value:.0f}  at {connections}", value, row + offset, size=7)
    for row, one in enumerate(subjects):
        ceiling = middle(results.ceiling(one.name))
        if ceiling is not None:
            axes.plot([ceiling, ceiling], [row - 0.44, row + 0.44], color=_CEILING, linewidth=2)
    ceilings = [Patch(color=_CEILING, label="no HTTP at all")] if results.ceilings else []
    _finish(figure, axes, subjects, "Requests a second, by connections (more is better)", ceilings)
    return figure


def _latency(results: Results) -> Figure:
    subjects = results.subjects
    figure, axes = _figure(len(subjects) * _ROW_INCHES)
    for row, one in enumerate(subjects):
        p50, p99 = (middle(results.loads(one.name, metric, ALONE, "photographs")) for metric in ("p50", "p99"))
        if p50 is None or p99 is None:
            continue
        axes.barh(row, p50, 0.66, color=_COLOURS[one.family])
        axes.plot([p50, p99], [row, row], color="black", linewidth=1, marker="|", markersize=7)
        _write(axes, f"{p50:.1f}   p99 {p99:.1f}", max(p50, p99), row)
    _finish(
        figure,
        axes,
        subjects,
        "Latency at 1 connection, ms: median, and a line to the 99th percentile (less is better)",
    )
    return figure


def _alone(results: Results, value: Callable[[Subject], float | None], title: str, form: str) -> Figure:
    subjects = results.subjects
    figure, axes = _figure(len(subjects) * _ROW_INCHES)
    for row, one in enumerate(subjects):
        found = value(one)
        if found is None:
            continue
        axes.barh(row, found, 0.66, color=_COLOURS[one.family])
        _write(axes, form.format(found), found, row)
    _finish(figure, axes, subjects, title)
    return figure


def _figure(rows_inches: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9.5, rows_inches + 1.3), layout="constrained")
    return figure, figure.subplots()


def _write(axes: Axes, text: str, x: float, y: float, size: float = 8) -> None:
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}  # keeps lines from crossing the text
    axes.annotate(text, (x, y), (6, 0), textcoords="offset points", va="center_baseline", fontsize=size, bbox=paper)


def _mixed(colour: str, strength: float) -> tuple[float, ...]:
    """Mix a colour with white; unlike transparency, this hides the grid."""
    return tuple(strength * part + 1 - strength for part in to_rgb(colour))


def _finish(figure: Figure, axes: Axes, subjects: Sequence[Subject], title: str, more: Sequence[Patch] = ()) -> None:
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_yticks(range(len(subjects)), [one.title for one in subjects], fontsize=8.5)
    axes.set_ylim(len(subjects) - 0.45, -0.55)
    axes.set_xlim(0, axes.get_xlim()[1] * 1.12)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    families = dict.fromkeys(one.family for one in subjects)
    patches = [Patch(color=_COLOURS[family], label=_LEGEND[family]) for family in families]
    # Below the axes, where it cannot hide a bar's number.
    figure.legend(handles=[*patches, *more], loc="outside lower center", ncols=4, fontsize=8, edgecolor="none")
