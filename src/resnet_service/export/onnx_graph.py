"""The ONNX graph of a checkpoint's network, with raw pixels as input, and its quantization."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import nncf
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from resnet_service.errors import UnsuitableRuntime
from resnet_service.models.checkpoint.checkpoint import Checkpoint
from resnet_service.models.exported import EMBEDDING, FEATURE_MAP, INPUT, OUTPUT
from resnet_service.models.graphs import build_graph
from resnet_service.models.metadata import Outputs
from resnet_service.models.networks import ARCHITECTURES
from resnet_service.models.traced import UntraceableModel, trace

log = logging.getLogger("resnet_service")

_LARGE = 1024  # numbers in a weight; smaller ones (biases, scales) are not worth an additional node


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
    """Make the graph. Input: ``pixels``, uint8 [N, S, S, 3], any N. Output: ``logits``, float32 [N, classes].

    Further outputs, if the network has them: ``embedding``, float32 [N, C], and ``feature_map``, float32 [N, C, h, w].
    ``models.graphs`` builds the architectures it has; PyTorch exports the others.

    Raises:
        UnsuitableRuntime: ONNX cannot express the architecture.
        NonFiniteWeights: A batch norm has a negative variance, or too large a scale.

    """
    if checkpoint.metadata.arch in ARCHITECTURES:
        state = {key: tensor.numpy() for key, tensor in checkpoint.model.state_dict().items()}
        return build_graph(state, checkpoint.metadata, "The checkpoint")
    return _export_with_pytorch(checkpoint)


def _export_with_pytorch(checkpoint: Checkpoint) -> tuple[onnx.ModelProto, Outputs]:
    side = checkpoint.metadata.input_size
    example = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    network: nn.Module = _FromPixels(checkpoint).eval()
    outputs = Outputs()
    with warnings.catch_warnings(), _quiet("torch.onnx"):
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


def quantize(model: onnx.ModelProto, crops: list[NDArray[np.uint8]]) -> onnx.ModelProto:
    """Quantize weights (per channel) and activations to 8 bits, with biases corrected for the resulting error."""
    calibration = nncf.Dataset([{INPUT: image[np.newaxis]} for image in crops])
    with warnings.catch_warnings(), _quiet("nncf"):
        warnings.simplefilter("ignore")
        quantized: onnx.ModelProto = nncf.quantize(model, calibration, subset_size=len(crops))
    return quantized


def store_weights_fp16(model: onnx.ModelProto) -> None:
    """Store large FP32 weights as FP16, which halves the file. BF16 inference keeps 7 of FP16's 10 fraction bits."""
    casts: dict[str, onnx.NodeProto] = {}
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < _LARGE or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_fp16"))
        casts[name] = onnx.helper.make_node("Cast", [f"{name}_fp16"], [name], to=onnx.TensorProto.FLOAT)
    nodes = [*casts.values(), *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Suppress a library's reports of each step, on its logger and on stdout; errors are still logged."""
    log = logging.getLogger(logger)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
