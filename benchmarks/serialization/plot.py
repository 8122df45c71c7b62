"""The plot of the page: start, memory, size and latency of each format, in Okabe and Ito's colours."""

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.serialization.catalogue import FORMATS
from benchmarks.serialization.results import Figures, Results

_MEGABYTE = 1e6
_COLOURS = {True: "#0072B2", False: "#7f7f7f"}
_PANELS: tuple[tuple[str, str, Callable[[Figures], float]], ...] = (
    ("process start to first answer, s", "{:.2f}", lambda one: one.to_answer),
    ("peak memory, MB", "{:.0f}", lambda one: one.memory / _MEGABYTE),
    ("one image, ms", "{:.1f}", lambda one: one.latency),
    ("size, MB", "{:.0f}", lambda one: one.bytes / _MEGABYTE),
)


def draw(results: Results, path: Path) -> None:
    """Write the plot as PNG; formats that were not measured are left out."""
    shown = [one for one in FORMATS if one.name in results.formats]
    figure = Figure(figsize=(12, 0.34 * len(shown) + 1.1), layout="constrained")
    titles = [one.title.en.replace("`", "") for one in shown]
    for axes, (title, form, value) in zip(figure.subplots(1, len(_PANELS), sharey=True), _PANELS, strict=True):
        values = [value(results.formats[one.name]) for one in shown]
        axes.barh(titles, values, 0.66, color=[_COLOURS[one.ours] for one in shown])
        for row, number in enumerate(values):
            axes.annotate(
                form.format(number), (number, row), (4, 0), textcoords="offset points", va="center", fontsize=8
            )
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xlim(0, max(values) * 1.25)
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0, labelsize=8.5)
        axes.tick_params(axis="x", labelsize=8)
    axes.invert_yaxis()
    figure.supxlabel("blue: written and served by resnet-service; less is better everywhere", fontsize=8.5)
    figure.savefig(path, dpi=120)
