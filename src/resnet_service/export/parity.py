"""Comparison of an exported model's answers with those of its source, and the limit on their difference."""

import numpy as np

from resnet_service.errors import AccuracyLossExceeded
from resnet_service.export.calibration import Images
from resnet_service.export.reference import Logits
from resnet_service.models.exported import ExportedModel
from resnet_service.models.metadata import Agreement
from resnet_service.runtimes.openvino import OpenVINORuntime
from resnet_service.types import Precision

FP32_TOLERANCE = 1e-3  # of a logit


def compare(reference: Logits, exported: ExportedModel, images: Images) -> Agreement:
    """Classify the held-out images with both models, the exported one through the runtime that serves it."""
    runtime = OpenVINORuntime(exported)
    expected = np.stack([reference(image) for image in images.held_out])
    actual = np.stack([runtime.logits(image[np.newaxis])[0] for image in images.held_out])
    loss = None
    if images.classes is not None:
        accuracy = [float(np.mean(answers.argmax(axis=1) == images.classes)) for answers in (expected, actual)]
        loss = round(100 * (accuracy[0] - accuracy[1]), 4)
    return Agreement(
        pictures=len(expected),
        top1_agreement=round(100 * float(np.mean(expected.argmax(axis=1) == actual.argmax(axis=1))), 4),
        top1_loss=loss,
        max_logit_difference=round(float(np.abs(expected - actual).max()), 6),
    )


def check_accuracy_loss(agreement: Agreement, precision: Precision, max_loss: float) -> None:
    """Raise an error if the exported model's answers differ too much.

    Args:
        agreement: The result of ``compare``.
        precision: FP32 may differ in rounding only, whatever ``max_loss`` is.
        max_loss: Percentage points of top-1 accuracy that may be lost; if the true classes are unknown, the percentage
            of first answers that may change, which is an upper bound of the loss.

    Raises:
        AccuracyLossExceeded: With the figures.

    """
    if precision == "fp32" and agreement.max_logit_difference > FP32_TOLERANCE:
        raise AccuracyLossExceeded(
            f"This architecture cannot be exported: in FP32, logits differ by {agreement.max_logit_difference}, more "
            f"than rounding explains ({FP32_TOLERANCE}). Serve the checkpoint."
        )
    if agreement.top1_loss is None:
        loss, change = 100 - agreement.top1_agreement, "% of first answers change"
    else:
        loss, change = agreement.top1_loss, "points of top-1 accuracy are lost"
    if loss > max_loss:
        raise AccuracyLossExceeded(
            f"In {precision.upper()}, {loss:.2f} {change} on {agreement.pictures} images; --max-loss allows "
            f"{max_loss:g}. Nothing was written. Use more images, more typical images, or a higher precision."
        )


def summary(agreement: Agreement) -> str:
    """Return the figures as one line."""
    loss = "" if agreement.top1_loss is None else f", top-1 accuracy drops by {agreement.top1_loss:.2f} points"
    return (
        f"Compared with the checkpoint on {agreement.pictures} images: the first answer is the same for "
        f"{agreement.top1_agreement:.2f} %{loss}, logits differ by at most {agreement.max_logit_difference:.2g}"
    )
