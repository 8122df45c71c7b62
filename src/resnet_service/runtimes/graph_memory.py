"""The memory that an OpenVINO graph needs, computed from the shapes of its tensors before any is allocated."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import openvino

from resnet_service.errors import SuspiciousModel
from resnet_service.runtimes.graph_constants import operations

# Of an inference: an allowance, and an amount for each pixel of the image, up to a limit. ResNet-18 needs 120 bytes a
# pixel, VGG16 500; for images of 4096 pixels, the largest that metadata allow, ResNet-18 needs half of the limit.
LIVE_ALLOWANCE_BYTES, LIVE_BYTES_PER_PIXEL, MAX_LIVE_BYTES = 512 * 2**20, 1024, 4 * 2**30
# Compiling computes everything that does not depend on the image: weights of 8 bits become 32 bits in three steps, 12
# times their size.
MAX_CONSTANT_RATIO = 16
CONSTANT_ALLOWANCE_BYTES = 256 * 2**20


class GraphMemory(NamedTuple):
    """The memory of a graph, in bytes.

    ``constant``: all tensors that are computed from weights alone, at compilation. ``live``: the most that one
    inference holds at once, if each tensor is released after its last use.
    """

    constant: int
    live: int


def check_memory(model: openvino.Model, file_bytes: int) -> None:
    """Refuse a graph that needs more memory than any network of its size.

    A file of 400 bytes can describe tensors of terabytes, and compiling it allocates them. All shapes of an image
    classifier are known once the shape of its input is.

    Args:
        model: A graph whose only input has a fixed shape, [1, S, S, 3].
        file_bytes: Size of the model file.

    Raises:
        SuspiciousModel: Tensors are too large, or their shapes depend on the image.

    """
    memory = measure(model)
    pixels = math.prod(model.input(0).get_partial_shape().to_shape())
    max_live = min(LIVE_ALLOWANCE_BYTES + LIVE_BYTES_PER_PIXEL * pixels, MAX_LIVE_BYTES)
    max_constant = CONSTANT_ALLOWANCE_BYTES + MAX_CONSTANT_RATIO * file_bytes
    if memory.live > max_live or memory.constant > max_constant:
        raise SuspiciousModel(
            f"An inference needs {memory.live:,} bytes (limit {max_live:,}), and compiling the network "
            f"{memory.constant:,} (limit {max_constant:,}). No classifier needs that much; take the model from a "
            "source that you trust."
        )


def measure(model: openvino.Model) -> GraphMemory:
    """Compute the memory of a graph; raise ``SuspiciousModel`` if a shape is not fixed."""
    sizes: dict[tuple[str, int], int] = {}  # bytes of each tensor that is still needed by an operation
    uses: dict[tuple[str, int], int] = {}
    constant = live = most = 0  # stored weights are in the file, and so bounded by its size
    for operation, of_weights in operations(model):
        if of_weights:
            constant += sum(size for size, _ in _outputs(operation))
            continue
        name, kind = operation.get_name(), operation.get_type_name()
        unused = 0  # such as the positions that a pool returns beside the largest values
        if kind != "Result":
            for index, (size, users) in enumerate(_outputs(operation)):
                sizes[name, index], uses[name, index] = size, users
                live += size
                unused += 0 if users else size
        most = max(most, live)
        live -= unused
        for value in operation.input_values():
            source = value.get_node().get_name(), value.get_index()
            if source in uses:
                uses[source] -= 1
                if uses[source] == 0:
                    live -= sizes[source]
    return GraphMemory(constant, most)


def _outputs(operation: openvino.Node) -> Iterator[tuple[int, int]]:
    """Yield the bytes of each result of an operation, and the number of its uses."""
    for output in operation.outputs():
        shape = output.get_partial_shape()
        if shape.is_dynamic:
            raise SuspiciousModel(
                f"The network has tensors whose sizes depend on the image ({operation.get_type_name()}), so that the "
                "memory of a request has no limit. Export the network with fixed shapes."
            )
        yield math.prod(shape.to_shape()) * output.get_element_type().size, len(output.get_target_inputs())
