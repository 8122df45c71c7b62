"""How an exported model answers compared with its checkpoint, and whether that is near enough."""

import numpy as np
import torch

from resnet_service.errors import AccuracyLossExceeded
from resnet_service.export.calibration import Images
from resnet_service.imaging.preprocess import normalise
from resnet_service.models.checkpoint.checkpoint import Checkpoint
from resnet_service.models.exported import ExportedModel
from resnet_service.models.metadata import Agreement
from resnet_service.runtimes.openvino import OpenVINORuntime
from resnet_service.types import Precision

FP32_TOLERANCE = 1e-3  # of a logit


def compare(checkpoint: Checkpoint, exported: ExportedModel, images: Images) -> Agreement:
    """Answer the held-out images with both, the exported model through the runtime that serves it."""
    runtime = OpenVINORuntime(exported)
    expected, found = [], []
    with torch.inference_mode():
        for image in images.held_out:
            pixels = torch.from_numpy(normalise(image[np.newaxis], checkpoint.metadata)).permute(0, 3, 1, 2)
            expected.append(checkpoint.model(pixels).numpy()[0])
            found.append(runtime.logits(image[np.newaxis])[0])
    theirs, ours = np.stack(expected), np.stack(found)
    loss = None
    if images.classes is not None:
        right = [float(np.mean(logits.argmax(axis=1) == images.classes)) for logits in (theirs, ours)]
        loss = round(100 * (right[0] - right[1]), 4)
    return Agreement(
        pictures=len(ours),
        top1_agreement=round(100 * float(np.mean(theirs.argmax(axis=1) == ours.argmax(axis=1))), 4),
        top1_loss=loss,
        max_logit_difference=round(float(np.abs(theirs - ours).max()), 6),
    )


def check_accuracy_loss(agreement: Agreement, precision: Precision, max_loss: float) -> None:
    """Raise where the exported model answers too differently.

    Args:
        agreement: What ``compare`` found.
        precision: FP32 may only round differently, whatever ``max_loss`` is.
        max_loss: Points of top-1 that may be lost; where true classes are not known, percent of first answers that may
            change, which is the most that can have been lost.

    Raises:
        AccuracyLossExceeded: With the figures.

    """
    if precision == "fp32" and agreement.max_logit_difference > FP32_TOLERANCE:
        raise AccuracyLossExceeded(
            f"Exported in FP32, the model's logits differ by {agreement.max_logit_difference} from the checkpoint's, "
            f"and only {FP32_TOLERANCE} is rounding; this architecture cannot be exported. Serve the checkpoint."
        )
    if agreement.top1_loss is None:
        loss, lost = 100 - agreement.top1_agreement, "% of first answers change"
    else:
        loss, lost = agreement.top1_loss, "points of top-1 accuracy are lost"
    if loss > max_loss:
        raise AccuracyLossExceeded(
            f"In {precision.upper()}, {loss:.2f} {lost} on {agreement.pictures} images; --max-loss allows "
            f"{max_loss:g}. Nothing was written. More images or more typical ones may help; a higher precision will."
        )


def summary(agreement: Agreement) -> str:
    """Say what was found, for people."""
    lost = "" if agreement.top1_loss is None else f", {agreement.top1_loss:.2f} points of top-1 lost"
    return (
        f"Compared with the checkpoint on {agreement.pictures} images: {agreement.top1_agreement:.2f} % of first "
        f"answers the same{lost}, logits within {agreement.max_logit_difference:.2g}"
    )
