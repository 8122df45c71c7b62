"""Comparison of an exported model's answers with those of its source, and the limit on their difference."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_service.errors import AccuracyLossExceeded
from resnet_service.export.calibration import Images
from resnet_service.export.reference import Logits
from resnet_service.models.exported import ExportedModel
from resnet_service.models.metadata import Agreement
from resnet_service.runtimes.openvino import OpenVINORuntime
from resnet_service.types import Precision

# Of a logit: what rounding in FP32 explains, and the same as a share of the largest logit.
FP32_TOLERANCE, FP32_RELATIVE_TOLERANCE = 1e-3, 1e-4


def compare(reference: Logits, exported: ExportedModel, images: Images) -> Agreement:
    """Classify the held-out images with both models, the exported one through the runtime that serves it.

    Raises:
        AccuracyLossExceeded: An FP32 model's logits differ by more than rounding explains, or some are not finite.

    """
    runtime = OpenVINORuntime(exported)
    expected = np.stack([reference(image) for image in images.held_out])
    actual = np.stack([runtime.logits(image[np.newaxis])[0] for image in images.held_out])
    if exported.precision == "fp32":
        difference = check_difference(
            expected, actual, "This architecture cannot be exported: in FP32, logits differ", "Serve the checkpoint."
        )
    else:
        difference = _largest_difference(expected, actual)
        if not math.isfinite(difference):
            raise AccuracyLossExceeded(
                f"In {exported.precision.upper()}, logits are NaN or infinity. Nothing was written. Use a higher "
                "precision."
            )
    loss = None
    if images.classes is not None:
        accuracy = [float(np.mean(answers.argmax(axis=1) == images.classes)) for answers in (expected, actual)]
        loss = round(100 * (accuracy[0] - accuracy[1]), 4)
    return Agreement(
        pictures=len(expected),
        top1_agreement=round(100 * float(np.mean(expected.argmax(axis=1) == actual.argmax(axis=1))), 4),
        top1_loss=loss,
        max_logit_difference=round(difference, 6),
    )


def check_difference(expected: NDArray[Any], actual: NDArray[Any], about: str, advice: str) -> float:
    """Return the largest difference of two engines' logits in FP32.

    Args:
        expected: Logits of any shape.
        actual: Logits of the same shape.
        about: What differs, the beginning of the message.
        advice: What to do, a sentence.

    Raises:
        AccuracyLossExceeded: They differ by more than rounding explains, or some are NaN or infinity.

    """
    difference = _largest_difference(expected, actual)
    tolerance = max(FP32_TOLERANCE, FP32_RELATIVE_TOLERANCE * float(np.abs(expected).max()))
    # NaN compares false. Of infinite logits, the tolerance is infinite too.
    if not difference <= tolerance < math.inf:
        raise AccuracyLossExceeded(
            f"{about} by {difference:.3g}, more than rounding explains ({tolerance:.3g}). Nothing was written. {advice}"
        )
    return difference


def check_accuracy_loss(agreement: Agreement, precision: Precision, max_loss: float) -> None:
    """Raise an error if too many of the exported model's answers are others.

    Args:
        agreement: The result of ``compare``.
        precision: That of the exported model, for the message.
        max_loss: Percentage points of top-1 accuracy that may be lost; if the true classes are unknown, the percentage
            of first answers that may change, which is an upper bound of the loss.

    Raises:
        AccuracyLossExceeded: With the figures.

    """
    if agreement.top1_loss is None:
        loss, change = 100 - agreement.top1_agreement, "% of first answers change"
    else:
        loss, change = agreement.top1_loss, "points of top-1 accuracy are lost"
    if loss > max_loss:
        raise AccuracyLossExceeded(
            f"In {precision.upper()}, {loss:.2f} {change} on {agreement.pictures} images; --max-loss allows "
            f"{max_loss:g}. Nothing was written. Use more images, more typical images, or a higher precision."
        )


def summary(agreement: Agreement, precision: Precision) -> str:
    """Return the figures as one line; FP32 is compared with another engine, other precisions with FP32."""
    loss = "" if agreement.top1_loss is None else f", top-1 accuracy drops by {agreement.top1_loss:.2f} points"
    other = "the reference implementation" if precision == "fp32" else "the model in FP32"
    return (
        f"Compared with {other} on {agreement.pictures} images: the first answer is the same for "
        f"{agreement.top1_agreement:.2f} %{loss}, logits differ by at most {agreement.max_logit_difference:.2g}"
    )


def _largest_difference(expected: NDArray[Any], actual: NDArray[Any]) -> float:
    with np.errstate(invalid="ignore"):  # infinity less infinity is NaN
        return float(np.abs(expected - actual).max())
