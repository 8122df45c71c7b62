"""ONNX graphs built from weights in numpy, without PyTorch, of the networks that ``networks`` describes.

Each batch norm is folded into the convolution before it.
"""

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from resnet_service.errors import NonFiniteWeights
from resnet_service.models.checkpoint.keys import first_of
from resnet_service.models.checkpoint.weights import Weights
from resnet_service.models.exported import CLASS_WEIGHTS, EMBEDDING, FEATURE_MAP, INPUT, OUTPUT, ExportedModel
from resnet_service.models.metadata import ModelMetadata, Outputs
from resnet_service.models.networks import (
    NORMALISED,
    Activation,
    Convolution,
    MaxPool,
    Network,
    State,
    Step,
    Sum,
    check_state,
)

# The operators used have not changed since; older runtimes read the file, too.
_OPSET, _IR_VERSION = 18, 10


class BuiltGraph(NamedTuple):
    """A graph with its weights, and its outputs besides logits."""

    model: onnx.ModelProto
    outputs: Outputs


def build_graph(state: State, metadata: ModelMetadata, where: str) -> BuiltGraph:
    """Build the graph of the architecture that ``metadata`` names, with the weights in ``state``.

    Input: ``pixels``, uint8 [N, S, S, 3], any N; S is the input size, and normalisation is part of the graph. Outputs:
    ``logits``, float32 [N, classes]; ``embedding``, float32 [N, C]; ``feature_map``, float32 [N, C, h, w].

    Args:
        state: Floating-point arrays by their keys in the ``state_dict``. Counters of batch norms may be missing.
        metadata: Architecture, number of classes, input size, mean and standard deviation.
        where: The file's name in messages.

    Raises:
        ModelError: As for ``check_state``; ``NonFiniteWeights`` also if batch norms fold to NaN or infinity.

    """
    network = check_state(state, metadata, where)
    builder = _Builder(state, network, metadata.input_size)
    builder.normalise(metadata)
    for step in network.steps:
        builder.add(step)
    builder.classify()
    if builder.non_finite:
        raise NonFiniteWeights(
            f"{where} has NaN or infinity once batch norms are folded: {first_of(builder.non_finite)}. A variance is "
            "negative, or a scale is too large; check the training."
        )
    side = builder.sides[FEATURE_MAP]
    outputs = Outputs(embedding=network.channels, feature_map=(network.channels, side, side))
    return BuiltGraph(builder.model(metadata), outputs)


def build_exported(weights: Weights, where: str) -> ExportedModel:
    """Build the FP32 model that an export of ``weights`` would give.

    It has no record of an export, and its ``sha256`` is the checkpoint's, since there is no file of it.

    Raises:
        ModelError: As for ``build_graph``.

    """
    model, outputs = build_graph(weights.state, weights.metadata, where)
    add_class_weights(model)
    return ExportedModel(model.SerializeToString(), weights.metadata, "fp32", weights.sha256, outputs)


def add_class_weights(model: onnx.ModelProto) -> None:
    """Make the last layer's weights an output, float32 [classes, C], as used in the multiplication.

    Quantization changes them, and an explanation of an answer must use the weights that produced it.
    """
    (last,) = (node for node in model.graph.node if OUTPUT in node.output)
    transposed = any(attribute.name == "transB" and attribute.i == 1 for attribute in last.attribute)
    if last.op_type != "Gemm" or not transposed:
        raise TypeError(f"the exporter made the last linear layer a {last.op_type}, not a transposed Gemm")
    model.graph.node.append(helper.make_node("Identity", [last.input[1]], [CLASS_WEIGHTS]))
    widths = {output.name: output.type.tensor_type.shape.dim[1].dim_value for output in model.graph.output}
    model.graph.output.append(
        helper.make_tensor_value_info(CLASS_WEIGHTS, TensorProto.FLOAT, [widths[OUTPUT], widths[EMBEDDING]])
    )


def _folded(step: Convolution, state: State, epsilon: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return weight and bias of one convolution that computes what convolution and batch norm compute.

    In evaluation, a batch norm is a scale and a shift for each channel.
    """
    norm = {
        part: state[f"{step.norm}.{part}"].astype(np.float64)
        for part in ("weight", "bias", "running_mean", "running_var")
    }
    # Of a negative variance the root is NaN, which the caller reports.
    with np.errstate(all="ignore"):
        scale = norm["weight"] / np.sqrt(norm["running_var"] + epsilon)
        weight = state[f"{step.name}.weight"] * scale.reshape(-1, 1, 1, 1)
        return weight, norm["bias"] - norm["running_mean"] * scale


class _Builder:
    """Nodes and weights of a graph, one step after the other."""

    def __init__(self, state: State, network: Network, side: int) -> None:
        self._state = state
        self._network = network
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self.sides = {NORMALISED: side}  # height and width of each value
        self.non_finite: list[str] = []

    @cached_property
    def _limits(self) -> list[str]:
        return [self._constant("relu6.low", np.float32(0)), self._constant("relu6.high", np.float32(6))]

    def normalise(self, metadata: ModelMetadata) -> None:
        mean, std = np.array(metadata.mean), np.array(metadata.std)
        self._node("Cast", [INPUT], "pixels.float", to=TensorProto.FLOAT)
        self._node("Mul", ["pixels.float", self._constant("scale", 1 / (255 * std))], "pixels.scaled")
        self._node("Add", ["pixels.scaled", self._constant("shift", -mean / std)], "pixels.shifted")
        self._node("Transpose", ["pixels.shifted"], NORMALISED, perm=[0, 3, 1, 2])

    def add(self, step: Step) -> None:
        # The last step's result is an output of the graph.
        name = FEATURE_MAP if step is self._network.steps[-1] else step.name
        side = self.sides[step.source]
        match step:
            case Convolution():
                pads, side = self._pads(side, step.kernel, step.stride)
                weight, bias = _folded(step, self._state, self._network.epsilon)
                weights = [self._constant(f"{step.name}.weight", weight), self._constant(f"{step.name}.bias", bias)]
                self._activated(
                    step.activation,
                    "Conv",
                    [step.source, *weights],
                    name,
                    kernel_shape=[step.kernel, step.kernel],
                    strides=[step.stride, step.stride],
                    pads=pads,
                    group=step.groups,
                )
            case MaxPool():
                pads, side = self._pads(side, 3, 2)
                self._node("MaxPool", [step.source], name, kernel_shape=[3, 3], strides=[2, 2], pads=pads)
            case Sum():
                self._activated(step.activation, "Add", [step.source, step.shortcut], name)
        self.sides[name] = side

    def classify(self) -> None:
        weights = [f"{self._network.classifier}.{part}" for part in ("weight", "bias")]
        for key in weights:
            self._constant(key, self._state[key])
        self._node("GlobalAveragePool", [FEATURE_MAP], "pooled")
        self._node("Flatten", ["pooled"], EMBEDDING, axis=1)
        self._node("Gemm", [EMBEDDING, *weights], OUTPUT, transB=1)

    def model(self, metadata: ModelMetadata) -> onnx.ModelProto:
        channels, last_side, side = self._network.channels, self.sides[FEATURE_MAP], metadata.input_size
        shapes = {
            OUTPUT: [metadata.num_classes],
            EMBEDDING: [channels],
            FEATURE_MAP: [channels, last_side, last_side],
        }
        graph = helper.make_graph(
            self._nodes,
            metadata.arch,
            [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["N", side, side, 3])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape]) for name, shape in shapes.items()],
            self._initializers,
        )
        opsets = [helper.make_opsetid("", _OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="resnet-service")

    def _pads(self, side: int, kernel: int, stride: int) -> tuple[list[int], int]:
        """Return the pads (top, left, bottom, right), and the side of the result."""
        if not self._network.same_padding:
            before = after = (kernel - 1) // 2
        else:
            total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            before, after = total // 2, total - total // 2
        return [before, before, after, after], (side + before + after - kernel) // stride + 1

    def _activated(
        self, activation: Activation | None, operator: str, sources: list[str], name: str, **attributes: Any
    ) -> None:
        if activation is None:
            self._node(operator, sources, name, **attributes)
            return
        linear = f"{name}.linear"
        self._node(operator, sources, linear, **attributes)
        if activation == "Relu6":
            self._node("Clip", [linear, *self._limits], name)
        else:
            self._node("Relu", [linear], name)

    def _node(self, operator: str, sources: list[str], name: str, **attributes: Any) -> None:
        self._nodes.append(helper.make_node(operator, sources, [name], name=name, **attributes))

    def _constant(self, name: str, values: ArrayLike) -> str:
        with np.errstate(over="ignore"):
            array = np.asarray(values, np.float32, order="C")
        if not np.isfinite(array).all():
            self.non_finite.append(name)
        self._initializers.append(numpy_helper.from_array(array, name))
        return name
