"""The ONNX graph of a checkpoint's network, made by PyTorch's exporter, and the logits that PyTorch computes."""

import logging
import warnings
from collections.abc import Callable

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from resnet_service.errors import UnsuitableRuntime
from resnet_service.export.quiet import quiet
from resnet_service.imaging.preprocess import normalise
from resnet_service.models.checkpoint.checkpoint import Checkpoint
from resnet_service.models.exported import EMBEDDING, FEATURE_MAP, INPUT, OUTPUT
from resnet_service.models.metadata import Outputs
from resnet_service.models.traced import UntraceableModel, trace

log = logging.getLogger("resnet_service")


class _FromPixels(nn.Module):
    """A network preceded by its normalisation: uint8 [N, S, S, 3] to logits float32 [N, classes]."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.network = checkpoint.model
        self.register_buffer("scale", 1 / (255 * torch.tensor(checkpoint.metadata.std)))
        self.register_buffer("shift", -torch.tensor(checkpoint.metadata.mean) / torch.tensor(checkpoint.metadata.std))

    def forward(self, pixels: Tensor) -> Tensor:
        normalised = pixels.float() * self.get_buffer("scale") + self.get_buffer("shift")
        logits: Tensor = self.network(normalised.permute(0, 3, 1, 2))
        return logits


def export_graph(checkpoint: Checkpoint) -> tuple[onnx.ModelProto, Outputs]:
    """Export a network. Input: ``pixels``, uint8 [N, S, S, 3], any N. Output: ``logits``, float32 [N, classes].

    Further outputs, if the network has them: ``embedding``, float32 [N, C], and ``feature_map``, float32 [N, C, h, w].

    Raises:
        UnsuitableRuntime: ONNX cannot express the architecture.

    """
    side = checkpoint.metadata.input_size
    example = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    network: nn.Module = _FromPixels(checkpoint).eval()
    outputs = Outputs()
    with warnings.catch_warnings(), quiet("torch.onnx"):
        warnings.simplefilter("ignore")  # the exporter warns of changes in its next versions
        try:
            network, outputs, _ = trace(network, example)
        except UntraceableModel as error:
            # The exporter has other ways to make a graph, but none that gives further outputs.
            log.info(
                "%s is exported with logits only, because it cannot be traced: %s", checkpoint.metadata.arch, error
            )
        try:
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
                input_names=[INPUT],
                output_names=_names(outputs),
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise UnsuitableRuntime(
                f"{checkpoint.metadata.arch} cannot be exported to ONNX by PyTorch. Serve its checkpoint."
            ) from error
    if program is None:
        raise TypeError("torch.onnx.export returned no program, as it does only if it writes a file")
    model: onnx.ModelProto = program.model_proto
    _remove_origin(model)
    return model, outputs


def logits_of(checkpoint: Checkpoint) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Return the function from a crop, uint8 [S, S, 3], to PyTorch's logits, float32 [classes]."""

    def logits(crop: NDArray[np.uint8]) -> NDArray[np.float32]:
        pixels = torch.from_numpy(normalise(crop[np.newaxis], checkpoint.metadata)).permute(0, 3, 1, 2)
        with torch.inference_mode():
            output: NDArray[np.float32] = checkpoint.model(pixels).numpy()[0]
        return output

    return logits


def _names(outputs: Outputs) -> list[str]:
    names = [OUTPUT]
    if outputs.embedding is not None:
        names.append(EMBEDDING)
    if outputs.feature_map is not None:
        names.append(FEATURE_MAP)
    return names


def _remove_origin(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes on each node, which include stack traces with paths of this machine.

    Inference does not need them, and with them two machines would make different files from the same checkpoint.
    """
    del model.metadata_props[:], model.graph.metadata_props[:]
    parts = (model.graph.node, model.graph.initializer, model.graph.value_info, model.graph.input, model.graph.output)
    for part in parts:
        for one in part:
            one.doc_string = ""
            del one.metadata_props[:]
