"""ONNX graphs of torchvision's ResNets and of EfficientNet-Lite0, built from weights in numpy, without PyTorch.

A network is described as data: a list of convolutions, sums and poolings. The description gives the keys and shapes of
the ``state_dict``, in PyTorch's order, and the graph. Each batch norm is folded into the convolution before it.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from resnet_service.errors import ClassCountMismatch, NonFiniteWeights, UnknownArchitecture
from resnet_service.models.checkpoint.keys import COUNTER, check_keys, first_of
from resnet_service.models.exported import CLASS_WEIGHTS, EMBEDDING, FEATURE_MAP, INPUT, OUTPUT
from resnet_service.models.metadata import ModelMetadata, Outputs

# The operators used have not changed since; older runtimes read the file, too.
_OPSET, _IR_VERSION = 18, 10

# What the first convolution takes: float32 [N, 3, S, S].
_NORMALISED = "normalised"

Weights = Mapping[str, NDArray[Any]]
_Activation = Literal["Relu", "Relu6"]


class BuiltGraph(NamedTuple):
    """A graph with its weights, and its outputs besides logits."""

    model: onnx.ModelProto
    outputs: Outputs


class _Convolution(NamedTuple):
    """A convolution without bias, its batch norm, and an activation or none.

    ``name`` and ``norm`` are the modules' names in the ``state_dict``. In each step, ``name`` is also the name of the
    result, and ``source`` the name of what the step takes.
    """

    name: str
    source: str
    norm: str
    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    groups: int = 1
    activation: _Activation | None = None


class _MaxPool(NamedTuple):
    """The 3x3 pooling after the first convolution of a ResNet."""

    name: str
    source: str


class _Sum(NamedTuple):
    """The end of a residual block."""

    name: str
    source: str
    shortcut: str
    activation: _Activation | None


_Step = _Convolution | _MaxPool | _Sum


class _Network(NamedTuple):
    """The steps up to the feature map; global average pooling and the linear layer ``classifier`` follow."""

    steps: tuple[_Step, ...]
    classifier: str
    channels: int
    epsilon: float  # of the batch norms
    same_padding: bool  # pad as TensorFlow does: to ceil(side / stride), the odd pixel right and below


class _ResNet(NamedTuple):
    blocks: tuple[int, int, int, int]
    bottleneck: bool = True
    groups: int = 1
    group_width: int = 64


_RESNETS = {
    "resnet18": _ResNet((2, 2, 2, 2), bottleneck=False),
    "resnet34": _ResNet((3, 4, 6, 3), bottleneck=False),
    "resnet50": _ResNet((3, 4, 6, 3)),
    "resnet101": _ResNet((3, 4, 23, 3)),
    "resnet152": _ResNet((3, 8, 36, 3)),
    "resnext50_32x4d": _ResNet((3, 4, 6, 3), groups=32, group_width=4),
    "resnext101_32x8d": _ResNet((3, 4, 23, 3), groups=32, group_width=8),
    "wide_resnet50_2": _ResNet((3, 4, 6, 3), group_width=128),
    "wide_resnet101_2": _ResNet((3, 4, 23, 3), group_width=128),
}
_LITE0 = "timm/tf_efficientnet_lite0"
# Of each stage: blocks, kernel, stride of the first block, expansion, output channels.
_LITE0_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)

ARCHITECTURES = (*_RESNETS, _LITE0)


def state_shapes(arch: str, num_classes: int) -> dict[str, tuple[int, ...]]:
    """Return keys and shapes of the architecture's ``state_dict``, in PyTorch's order.

    Raises:
        UnknownArchitecture: None of ``ARCHITECTURES``.

    """
    network = _network(arch)
    shapes: dict[str, tuple[int, ...]] = {}
    for step in network.steps:
        if isinstance(step, _Convolution):
            shapes[f"{step.name}.weight"] = (step.outputs, step.inputs // step.groups, step.kernel, step.kernel)
            for part in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{step.norm}.{part}"] = (step.outputs,)
            shapes[f"{step.norm}.{COUNTER}"] = ()
    shapes[f"{network.classifier}.weight"] = (num_classes, network.channels)
    shapes[f"{network.classifier}.bias"] = (num_classes,)
    return shapes


def build_graph(state: Weights, metadata: ModelMetadata, where: str) -> BuiltGraph:
    """Build the graph of the architecture that ``metadata`` names, with the weights in ``state``.

    Input: ``pixels``, uint8 [N, S, S, 3], any N; S is the input size, and normalisation is part of the graph. Outputs:
    ``logits``, float32 [N, classes]; ``embedding``, float32 [N, C]; ``feature_map``, float32 [N, C, h, w].

    Args:
        state: Floating-point arrays by their keys in the ``state_dict``. Counters of batch norms may be missing.
        metadata: Architecture, number of classes, input size, mean and standard deviation.
        where: The file's name in messages.

    Raises:
        UnknownArchitecture: None of ``ARCHITECTURES``.
        ClassCountMismatch: The rows of the last layer are not the number of classes.
        StateDictMismatch: Keys or shapes differ from the architecture's.
        NonFiniteWeights: NaN or infinity among the weights, or after batch norms are folded.

    """
    network = _network(metadata.arch)
    _check(state, network, metadata, where)
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


def _check(state: Weights, network: _Network, metadata: ModelMetadata, where: str) -> None:
    key = f"{network.classifier}.weight"
    if key in state and state[key].shape[1:] == (network.channels,) and len(state[key]) != metadata.num_classes:
        raise ClassCountMismatch(
            f"{where} says num_classes={metadata.num_classes}, but its classifier ({key}) has {len(state[key])} rows."
        )
    shapes = {key: array.shape for key, array in state.items()}
    check_keys(shapes, state_shapes(metadata.arch, metadata.num_classes), metadata.arch, where)
    non_finite = [key for key, array in state.items() if not np.isfinite(array).all()]
    if non_finite:
        raise NonFiniteWeights(f"{where} has NaN or infinity in {first_of(non_finite)}; the training has diverged.")


def _network(arch: str) -> _Network:
    if arch == _LITE0:
        return _Network(tuple(_lite0_steps()), "classifier", 1280, epsilon=1e-3, same_padding=True)
    if arch in _RESNETS:
        steps = tuple(_resnet_steps(_RESNETS[arch]))
        channels = 2048 if _RESNETS[arch].bottleneck else 512
        return _Network(steps, "fc", channels, epsilon=1e-5, same_padding=False)
    raise UnknownArchitecture(
        f"There is no graph of {arch!r} without PyTorch; there is one of {', '.join(ARCHITECTURES)}. "
        "Install the extra: in a checkout of resnet-service, pip install '.[torch]'."
    )


def _resnet_steps(kind: _ResNet) -> Iterator[_Step]:
    yield _Convolution("conv1", _NORMALISED, "bn1", 3, 64, kernel=7, stride=2, activation="Relu")
    yield _MaxPool("maxpool", "conv1")
    source, inputs = "maxpool", 64
    for stage, blocks in enumerate(kind.blocks):
        width = 64 << stage
        outputs = 4 * width if kind.bottleneck else width
        inner = width * kind.group_width // 64 * kind.groups
        for index in range(blocks):
            block, stride = f"layer{stage + 1}.{index}", 2 if stage > 0 and index == 0 else 1
            # Of each convolution: output channels, kernel, stride, groups.
            if kind.bottleneck:
                shapes = [(inner, 1, 1, 1), (inner, 3, stride, kind.groups), (outputs, 1, 1, 1)]
            else:
                shapes = [(width, 3, stride, 1), (width, 3, 1, 1)]
            value, channels = source, inputs
            for number, (out, kernel, step, groups) in enumerate(shapes, 1):
                name = f"{block}.conv{number}"
                activation: _Activation | None = "Relu" if number < len(shapes) else None
                yield _Convolution(name, value, f"{block}.bn{number}", channels, out, kernel, step, groups, activation)
                value, channels = name, out
            shortcut = source
            if stride != 1 or inputs != outputs:
                shortcut = f"{block}.downsample.0"
                yield _Convolution(shortcut, source, f"{block}.downsample.1", inputs, outputs, kernel=1, stride=stride)
            yield _Sum(block, value, shortcut, "Relu")
            source, inputs = block, outputs


def _lite0_steps() -> Iterator[_Step]:
    yield _Convolution("conv_stem", _NORMALISED, "bn1", 3, 32, kernel=3, stride=2, activation="Relu6")
    source, inputs = "conv_stem", 32
    for stage, (blocks, kernel, first_stride, expansion, outputs) in enumerate(_LITE0_STAGES):
        for index in range(blocks):
            block, stride = f"blocks.{stage}.{index}", first_stride if index == 0 else 1
            inner, value, norms = inputs * expansion, source, iter(("bn1", "bn2", "bn3"))
            if expansion > 1:
                name, norm = f"{block}.conv_pw", f"{block}.{next(norms)}"
                yield _Convolution(name, value, norm, inputs, inner, kernel=1, activation="Relu6")
                value = name
            name, norm = f"{block}.conv_dw", f"{block}.{next(norms)}"
            yield _Convolution(name, value, norm, inner, inner, kernel, stride, groups=inner, activation="Relu6")
            value, name = name, f"{block}.conv_pwl" if expansion > 1 else f"{block}.conv_pw"
            yield _Convolution(name, value, f"{block}.{next(norms)}", inner, outputs, kernel=1)
            if stride == 1 and inputs == outputs:
                yield _Sum(block, name, source, None)
                name = block
            source, inputs = name, outputs
    yield _Convolution("conv_head", source, "bn2", inputs, 1280, kernel=1, activation="Relu6")


def _folded(step: _Convolution, state: Weights, epsilon: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
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

    def __init__(self, state: Weights, network: _Network, side: int) -> None:
        self._state = state
        self._network = network
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self.sides = {_NORMALISED: side}  # height and width of each value
        self.non_finite: list[str] = []

    @cached_property
    def _limits(self) -> list[str]:
        return [self._constant("relu6.low", np.float32(0)), self._constant("relu6.high", np.float32(6))]

    def normalise(self, metadata: ModelMetadata) -> None:
        mean, std = np.array(metadata.mean), np.array(metadata.std)
        self._node("Cast", [INPUT], "pixels.float", to=TensorProto.FLOAT)
        self._node("Mul", ["pixels.float", self._constant("scale", 1 / (255 * std))], "pixels.scaled")
        self._node("Add", ["pixels.scaled", self._constant("shift", -mean / std)], "pixels.shifted")
        self._node("Transpose", ["pixels.shifted"], _NORMALISED, perm=[0, 3, 1, 2])

    def add(self, step: _Step) -> None:
        # The last step's result is an output of the graph.
        name = FEATURE_MAP if step is self._network.steps[-1] else step.name
        side = self.sides[step.source]
        match step:
            case _Convolution():
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
            case _MaxPool():
                pads, side = self._pads(side, 3, 2)
                self._node("MaxPool", [step.source], name, kernel_shape=[3, 3], strides=[2, 2], pads=pads)
            case _Sum():
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
        self, activation: _Activation | None, operator: str, sources: list[str], name: str, **attributes: Any
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
