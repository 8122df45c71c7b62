"""The arithmetic that an OpenVINO graph needs, computed from the shapes of its tensors before anything is computed.

A multiplication with its addition counts as one operation, and so does each number that any other operator reads or
writes. Memory does not bound them: a convolution of a few kilobytes may compute for hours.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import openvino

from resnet_service.errors import SuspiciousModel
from resnet_service.runtimes.graph_constants import operations
from resnet_service.runtimes.graph_memory import LIVE_ALLOWANCE_BYTES

# Of an inference: an allowance; one operation for each pixel of the image and byte of the file, since a weight of a
# convolution is used once for each of its positions; and a limit. The largest network of ``models.networks``,
# wide_resnet101_2, needs 2.3e10 for images of 224 pixels and 8e12 for images of 4096, the largest that metadata allow.
# timm's largest need 2e12 for theirs.
WORK_ALLOWANCE, MAX_WORK, MAX_WORK_PER_PIXEL = 10**11, 4 * 10**12, 10**6
# Of all that is computed from weights alone, at compilation, which may use code that is not optimised.
CONSTANT_WORK_ALLOWANCE, MAX_CONSTANT_WORK_RATIO = 2 * 10**9, 64
# Of ONNX's reference implementation in numpy. For each number in the window of each position of a convolution, it holds
# a copy and two indices: of VGG16 11,500 bytes a pixel, of ResNet-18 12 GB for images of 4096 pixels. Each result of a
# pool is a step in Python, of which it does 10 to 100 thousand a second; ResNets have 4 a pixel.
WINDOW_NUMBER_BYTES, WINDOW_BYTES_PER_PIXEL, MAX_WINDOW_BYTES = 20, 16 * 2**10, 16 * 2**30
STEP_ALLOWANCE, STEPS_PER_PIXEL = 10**7, 8
# In the time of one step: numbers that a pool reads, and numbers in windows of a convolution.
_POOLED_PER_STEP, _COPIED_PER_STEP = 64, 200


class GraphWork(NamedTuple):
    """The work of a graph, in operations; ``constant`` as in ``GraphMemory``."""

    constant: int
    inference: int


def check_work(model: openvino.Model, file_bytes: int) -> None:
    """Refuse a graph that computes more than any network of its size.

    Args:
        model: A graph that ``graph_memory.check_memory`` has passed: all its shapes are fixed.
        file_bytes: Size of the model file.

    Raises:
        SuspiciousModel: It would compute for hours, at compilation or for each image.

    """
    work, pixels = measure(model), _pixels(model)
    most = min(WORK_ALLOWANCE + file_bytes * pixels, MAX_WORK + MAX_WORK_PER_PIXEL * pixels)
    most_constant = CONSTANT_WORK_ALLOWANCE + MAX_CONSTANT_WORK_RATIO * file_bytes
    if work.inference > most or work.constant > most_constant:
        raise SuspiciousModel(
            f"An inference takes {work.inference:,} operations (limit {most:,}), and compiling the network "
            f"{work.constant:,} (limit {most_constant:,}). No classifier needs that much; take the model from a "
            "source that you trust."
        )


def check_reference_work(model: openvino.Model) -> None:
    """Refuse a graph that ONNX's reference implementation cannot compute in minutes and in a few gigabytes.

    Args:
        model: As for ``check_work``.

    Raises:
        SuspiciousModel: Windows of gigabytes, or too many steps in Python.

    """
    largest = steps = 0
    for operation in model.get_ordered_ops():
        kind, filters = operation.get_type_name(), operation.inputs()[1:2]
        if kind in ("Convolution", "GroupConvolution"):
            # Gaps of a dilated filter are filled with zeros. Groups share the positions, not the channels.
            first = 3 if kind == "GroupConvolution" else 2
            sides = zip(_shape(filters[0])[first:], operation.get_attributes()["dilations"], strict=True)
            window = _shape(operation.input(0))[1] * math.prod(1 + (side - 1) * gap for side, gap in sides)
            numbers = window * math.prod(_shape(operation.output(0))[2:])
            largest = max(largest, WINDOW_NUMBER_BYTES * numbers)
            steps += numbers // _COPIED_PER_STEP
        elif kind in _STEPWISE:
            steps += math.prod(_shape(operation.output(0))) + _operations(operation) // _POOLED_PER_STEP
    pixels = _pixels(model)
    most_bytes = min(LIVE_ALLOWANCE_BYTES + WINDOW_BYTES_PER_PIXEL * pixels, MAX_WINDOW_BYTES)
    most_steps = STEP_ALLOWANCE + STEPS_PER_PIXEL * pixels
    if largest > most_bytes or steps > most_steps:
        raise SuspiciousModel(
            f"The reference implementation needs {largest:,} bytes for the windows of a convolution (limit "
            f"{most_bytes:,}), and {steps:,} steps (limit {most_steps:,}). Export the network "
            " for smaller images, if they are large; else take it from a source that you trust."
        )


def measure(model: openvino.Model) -> GraphWork:
    """Compute the work of a graph whose shapes are fixed."""
    constant = inference = 0
    for operation, of_weights in operations(model):
        if of_weights:
            constant += _operations(operation)
        elif operation.get_type_name() not in ("Parameter", "Result"):
            inference += _operations(operation)
    return GraphWork(constant, inference)


# Operators that slide a filter: the input that is the filter, the axes of the filter that are of outputs or groups, and
# whether the filter is applied for each number of the output, else of the input.
_FILTERS: Mapping[str, tuple[int, int, bool]] = {
    "Convolution": (1, 1, True),
    "GroupConvolution": (1, 2, True),
    "DeformableConvolution": (2, 1, True),
    "ConvolutionBackpropData": (1, 1, False),
    "GroupConvolutionBackpropData": (1, 2, False),
}
_POOLS = ("MaxPool", "AvgPool")
_STEPWISE = (
    *_POOLS,
    "ConvolutionBackpropData",
    "GroupConvolutionBackpropData",
    "DeformableConvolution",
    "GridSample",
    "Interpolate",
    "GRUSequence",
    "LSTMSequence",
    "RNNSequence",
)


def _operations(operation: openvino.Node) -> int:
    """Return the work of one operator."""
    kind = operation.get_type_name()
    inputs, outputs = ([_shape(port) for port in ports] for ports in (operation.inputs(), operation.outputs()))
    if kind in _FILTERS:
        index, skipped, of_output = _FILTERS[kind]
        return math.prod((outputs if of_output else inputs)[0]) * math.prod(inputs[index][skipped:])
    if kind in _POOLS:
        kernel: list[int] = operation.get_attributes()["kernel"]
        return math.prod(outputs[0]) * math.prod(kernel)
    if kind == "MatMul":
        first, transposed = inputs[0], operation.get_attributes()["transpose_a"]
        return math.prod(outputs[0]) * (first[-2] if transposed and len(first) > 1 else first[-1])
    if kind == "Einsum":
        return _einsum(operation.get_attributes()["equation"], inputs)
    if kind == "LRN":
        return math.prod(inputs[0]) * int(operation.get_attributes()["size"])
    if kind == "ScaledDotProductAttention":
        return (math.prod(inputs[0]) + math.prod(outputs[0])) * inputs[1][-2]
    read = sum(map(math.prod, inputs))
    if kind.endswith("Sequence") and kind != "ReverseSequence":  # recurrent: all weights at each step
        return math.prod(inputs[0][:2]) * read
    return read + sum(map(math.prod, outputs))


def _einsum(equation: str, inputs: list[tuple[int, ...]]) -> int:
    """Return the product of all different axes; those of an ellipsis count as one for each operand."""
    sizes: dict[str, int] = {}
    for term, shape in zip(equation.partition("->")[0].replace(" ", "").split(","), inputs, strict=True):
        head, ellipsis, tail = term.partition("...")
        end = len(shape) - len(tail)
        named = [*zip(head, shape, strict=False), *zip(tail, shape[end:], strict=False)]
        for axis, size in named + ([("...", math.prod(shape[len(head) : end]))] if ellipsis else []):
            sizes[axis] = max(size, sizes.get(axis, 1))
    return math.prod(sizes.values())


def _shape(port: openvino.Input | openvino.Output) -> tuple[int, ...]:
    shape = port.get_shape()
    return tuple(shape[axis] for axis in range(len(shape)))  # ten times as fast as iterating over it


def _pixels(model: openvino.Model) -> int:
    return math.prod(_shape(model.input(0))[:3])
