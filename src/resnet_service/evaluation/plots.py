"""An evaluation as images: confusion matrix and reliability diagram."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resnet_service.evaluation.evaluate import CALIBRATION_BINS, Evaluation

_BLUE, _RED, _GREY = "#2563eb", "#dc2626", "#6b7280"
_WRITTEN_OUT = 20  # with more classes, names and numbers in the matrix would not be legible
_INK_CHANGES_AT = 0.5


def draw(found: Evaluation, folder: Path) -> list[Path]:
    """Write ``confusion.png`` and ``reliability.png`` into ``folder``; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {"confusion": _confusion(found), "reliability": _reliability(found)}
    paths = []
    for name, figure in drawn.items():
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=110)
        paths.append(path)
    return paths


def _confusion(found: Evaluation) -> Figure:
    matrix = found.confusion
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    legible = len(matrix) <= _WRITTEN_OUT
    side = 0.62 * len(matrix) + 2.2 if legible else 9
    figure = Figure(figsize=(side + 0.4, side), layout="constrained")
    axes = figure.subplots()
    # The square root lets a handful of mistakes be seen beside hundreds of right answers.
    axes.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1)
    axes.set(
        title=f"{found.dataset}: {found.top1:.2f} % of {len(found.truth):,} right",
        xlabel="answer",
        ylabel="truth",
    )
    if legible:
        names = [label.name for label in found.labels.classes]
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                ink = "white" if np.sqrt(share[row, column]) > _INK_CHANGES_AT else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=ink, fontsize=9)
    axes.spines[:].set_visible(False)
    return figure


def _reliability(found: Evaluation) -> Figure:
    figure = Figure(figsize=(6, 6.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    bins = found.calibration
    left = np.arange(CALIBRATION_BINS) / CALIBRATION_BINS
    width = 1 / CALIBRATION_BINS
    accuracy = np.array([one.accuracy for one in bins])
    confidence = np.array([one.confidence for one in bins])
    upper.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1, label="confidence is accuracy")
    upper.bar(left, accuracy, width, align="edge", color=_BLUE, edgecolor="white", label="accuracy")
    upper.bar(
        left, confidence - accuracy, width, accuracy, align="edge", color=_RED, alpha=0.3, label="gap to confidence"
    )
    upper.set(
        title=f"{found.dataset}: expected calibration error {found.calibration_error:.3f}",
        ylabel="accuracy",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    upper.legend(loc="upper left", frameon=False)
    lower.bar(left, [one.size for one in bins], width, align="edge", color=_GREY, edgecolor="white")
    lower.set(xlabel="confidence of the first answer", ylabel="images")
    for axes in (upper, lower):
        _bare(axes)
    return figure


def _bare(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
