"""What an export starts from: the FP32 graph of a checkpoint, and the logits that the exported model must reproduce.

There are two ways to the graph. Architectures in ``networks`` are built from their weights, without PyTorch; PyTorch
exports the others.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from resnet_service.models.checkpoint.weights import Weights, needs_pytorch, read_weights
from resnet_service.models.exported import INPUT, OUTPUT
from resnet_service.models.graphs import build_exported, build_graph
from resnet_service.models.metadata import ModelMetadata, Outputs
from resnet_service.runtimes.openvino import OpenVINORuntime
from resnet_service.types import Precision

# From crops, uint8 [S, S, 3], to logits, float32 [classes].
Logits = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class ReferenceModel(NamedTuple):
    """A checkpoint's network as an FP32 graph. Input and outputs are those of ``graphs.build_graph``.

    ``logits_for`` returns what an export of the given precision is compared with.
    """

    metadata: ModelMetadata
    sha256: str
    graph: onnx.ModelProto
    outputs: Outputs
    logits_for: Callable[[Precision], Logits]


def open_reference(path: Path) -> ReferenceModel:
    """Read a checkpoint and make its graph.

    Raises:
        ModelError: The checkpoint cannot be loaded.
        UnsuitableRuntime: ONNX cannot express the architecture.
        ModuleNotFoundError: PyTorch is needed and not installed.

    """
    if not needs_pytorch(path):
        return _built(read_weights(path), str(path))
    # Imported here: the architectures above need no PyTorch.
    from resnet_service.export import pytorch_graph
    from resnet_service.models.checkpoint.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path)
    graph, outputs = pytorch_graph.export_graph(checkpoint)
    logits = pytorch_graph.logits_of(checkpoint)
    return ReferenceModel(checkpoint.metadata, checkpoint.sha256, graph, outputs, lambda _: logits)


def _built(weights: Weights, where: str) -> ReferenceModel:
    graph, outputs = build_graph(weights.state, weights.metadata, where)

    def logits_for(precision: Precision) -> Logits:
        if precision == "fp32":
            # onnx's own implementation in numpy: slow, and independent of OpenVINO.
            evaluator = ReferenceEvaluator(graph)
            return lambda crop: np.asarray(evaluator.run([OUTPUT], {INPUT: crop[np.newaxis]}))[0, 0]
        runtime = OpenVINORuntime(build_exported(weights, where))
        return lambda crop: runtime.logits(crop[np.newaxis])[0]

    return ReferenceModel(weights.metadata, weights.sha256, graph, outputs, logits_for)
