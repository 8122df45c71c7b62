"""Plots of an evaluation: confusion matrix and reliability diagram."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resnet_service.evaluation.evaluate import CALIBRATION_BINS, Evaluation

_BLUE, _RED, _GREY = "#2563eb", "#dc2626", "#6b7280"
_MAX_LEGIBLE = 20  # with more classes, names and numbers in the matrix would not be legible
_WHITE_TEXT_ABOVE = 0.5


def draw(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write ``confusion.png`` and ``reliability.png`` into ``folder``; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {"confusion": _confusion(evaluation), "reliability": _reliability(evaluation)}
    paths = []
    for name, figure in figures.items():
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=110)
        paths.append(path)
    return paths


def _confusion(evaluation: Evaluation) -> Figure:
    matrix = evaluation.confusion
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    legible = len(matrix) <= _MAX_LEGIBLE
    side = 0.62 * len(matrix) + 2.2 if legible else 9
    figure = Figure(figsize=(side + 0.4, side), layout="constrained")
    axes = figure.subplots()
    # The square root makes a few mistakes visible beside hundreds of right answers.
    axes.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1)
    axes.set(
        title=f"{evaluation.dataset}: {evaluation.top1:.2f} % of {len(evaluation.truth):,} right",
        xlabel="answer",
        ylabel="truth",
    )
    if legible:
        names = [label.name for label in evaluation.labels.classes]
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                text_color = "white" if np.sqrt(share[row, column]) > _WHITE_TEXT_ABOVE else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=text_color, fontsize=9)
    axes.spines[:].set_visible(False)
    return figure


def _reliability(evaluation: Evaluation) -> Figure:
    figure = Figure(figsize=(6, 6.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    bins = evaluation.calibration
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
        title=f"{evaluation.dataset}: expected calibration error {evaluation.calibration_error:.3f}",
        ylabel="accuracy",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    upper.legend(loc="upper left", frameon=False)
    lower.bar(left, [one.size for one in bins], width, align="edge", color=_GREY, edgecolor="white")
    lower.set(xlabel="confidence of the first answer", ylabel="images")
    for axes in (upper, lower):
        _hide_spines(axes)
    return figure


def _hide_spines(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
