"""The networks that are known without PyTorch: torchvision's ResNets and EfficientNet-Lite0, described as data.

A network is a list of convolutions, sums and poolings. The description gives the keys and shapes of the ``state_dict``,
in PyTorch's order; ``graphs`` makes the ONNX graph of it.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from numpy.typing import NDArray

from resnet_service.errors import ClassCountMismatch, UnknownArchitecture, install_hint
from resnet_service.models.checkpoint.keys import COUNTER, check_finite, check_keys
from resnet_service.models.metadata import ModelMetadata

# What the first convolution takes: float32 [N, 3, S, S].
NORMALISED = "normalised"

State = Mapping[str, NDArray[Any]]
Activation = Literal["Relu", "Relu6"]


class Convolution(NamedTuple):
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
    activation: Activation | None = None


class MaxPool(NamedTuple):
    """The 3x3 pooling after the first convolution of a ResNet."""

    name: str
    source: str


class Sum(NamedTuple):
    """The end of a residual block."""

    name: str
    source: str
    shortcut: str
    activation: Activation | None


Step = Convolution | MaxPool | Sum


class Network(NamedTuple):
    """The steps up to the feature map; global average pooling and the linear layer ``classifier`` follow."""

    steps: tuple[Step, ...]
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
LITE0 = "timm/tf_efficientnet_lite0"
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

ARCHITECTURES = (*_RESNETS, LITE0)


def state_shapes(arch: str, num_classes: int) -> dict[str, tuple[int, ...]]:
    """Return keys and shapes of the architecture's ``state_dict``, in PyTorch's order.

    Raises:
        UnknownArchitecture: None of ``ARCHITECTURES``.

    """
    network = find_network(arch)
    shapes: dict[str, tuple[int, ...]] = {}
    for step in network.steps:
        if isinstance(step, Convolution):
            shapes[f"{step.name}.weight"] = (step.outputs, step.inputs // step.groups, step.kernel, step.kernel)
            for part in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{step.norm}.{part}"] = (step.outputs,)
            shapes[f"{step.norm}.{COUNTER}"] = ()
    shapes[f"{network.classifier}.weight"] = (num_classes, network.channels)
    shapes[f"{network.classifier}.bias"] = (num_classes,)
    return shapes


def check_state(state: State, metadata: ModelMetadata, where: str) -> Network:
    """Compare weights with the architecture that ``metadata`` names, and return its description.

    Args:
        state: Floating-point arrays by their keys in the ``state_dict``. Counters of batch norms may be missing.
        metadata: Architecture and number of classes.
        where: The file's name in messages.

    Raises:
        UnknownArchitecture: None of ``ARCHITECTURES``.
        ClassCountMismatch: The rows of the last layer are not the number of classes.
        StateDictMismatch: Keys or shapes differ from the architecture's.
        NonFiniteWeights: NaN or infinity among the weights.

    """
    network = find_network(metadata.arch)
    key = f"{network.classifier}.weight"
    if key in state and state[key].shape[1:] == (network.channels,) and len(state[key]) != metadata.num_classes:
        raise ClassCountMismatch(
            f"{where} says num_classes={metadata.num_classes}, but its classifier ({key}) has {len(state[key])} rows."
        )
    shapes = {key: array.shape for key, array in state.items()}
    check_keys(shapes, state_shapes(metadata.arch, metadata.num_classes), metadata.arch, where)
    check_finite(state, where)
    return network


def find_network(arch: str) -> Network:
    """Return the description of an architecture; raise ``UnknownArchitecture`` if it is none of ``ARCHITECTURES``."""
    if arch == LITE0:
        return Network(tuple(_lite0_steps()), "classifier", 1280, epsilon=1e-3, same_padding=True)
    if arch in _RESNETS:
        steps = tuple(_resnet_steps(_RESNETS[arch]))
        channels = 2048 if _RESNETS[arch].bottleneck else 512
        return Network(steps, "fc", channels, epsilon=1e-5, same_padding=False)
    raise UnknownArchitecture(
        f"There is no graph of {arch!r} without PyTorch; there is one of {', '.join(ARCHITECTURES)}. "
        f"{install_hint('torch')}"
    )


def _resnet_steps(kind: _ResNet) -> Iterator[Step]:
    yield Convolution("conv1", NORMALISED, "bn1", 3, 64, kernel=7, stride=2, activation="Relu")
    yield MaxPool("maxpool", "conv1")
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
                activation: Activation | None = "Relu" if number < len(shapes) else None
                yield Convolution(name, value, f"{block}.bn{number}", channels, out, kernel, step, groups, activation)
                value, channels = name, out
            shortcut = source
            if stride != 1 or inputs != outputs:
                shortcut = f"{block}.downsample.0"
                yield Convolution(shortcut, source, f"{block}.downsample.1", inputs, outputs, kernel=1, stride=stride)
            yield Sum(block, value, shortcut, "Relu")
            source, inputs = block, outputs


def _lite0_steps() -> Iterator[Step]:
    yield Convolution("conv_stem", NORMALISED, "bn1", 3, 32, kernel=3, stride=2, activation="Relu6")
    source, inputs = "conv_stem", 32
    for stage, (blocks, kernel, first_stride, expansion, outputs) in enumerate(_LITE0_STAGES):
        for index in range(blocks):
            block, stride = f"blocks.{stage}.{index}", first_stride if index == 0 else 1
            inner, value, norms = inputs * expansion, source, iter(("bn1", "bn2", "bn3"))
            if expansion > 1:
                name, norm = f"{block}.conv_pw", f"{block}.{next(norms)}"
                yield Convolution(name, value, norm, inputs, inner, kernel=1, activation="Relu6")
                value = name
            name, norm = f"{block}.conv_dw", f"{block}.{next(norms)}"
            yield Convolution(name, value, norm, inner, inner, kernel, stride, groups=inner, activation="Relu6")
            value, name = name, f"{block}.conv_pwl" if expansion > 1 else f"{block}.conv_pw"
            yield Convolution(name, value, f"{block}.{next(norms)}", inner, outputs, kernel=1)
            if stride == 1 and inputs == outputs:
                yield Sum(block, name, source, None)
                name = block
            source, inputs = name, outputs
    yield Convolution("conv_head", source, "bn2", inputs, 1280, kernel=1, activation="Relu6")
