"""Third-party ONNX graphs: finds the image input, the scores and what comes before them, and puts pixels in front.

Nothing here runs the graph.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

from resnet_service.errors import ClassCountMismatch, InvalidMetadata, UnreadableModel
from resnet_service.models.exported import EMBEDDING, FEATURE_MAP, INPUT, OUTPUT, check_onnx
from resnet_service.models.metadata import MAX_INPUT_SIZE, MIN_INPUT_SIZE
from resnet_service.types import Channels

Layout = Literal["NCHW", "NHWC"]
Dims = tuple[int | None, ...]  # None where a length is not fixed

_OLDEST_OPSET = 7  # since then, arithmetic broadcasts
_OLDEST_IR_VERSION = 4  # since then, weights need not be inputs
_SOFTMAX_OF_ONE_AXIS = 13
_PREFIX = "network/"  # of the file's own names, which could be those of our outputs
_STANDARD = ("", "ai.onnx")

_NORMALISERS = ("Softmax", "LogSoftmax")
_SHAPE_ONLY = ("Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze")
_POOLS = ("GlobalAveragePool", "ReduceMean", "AveragePool")
_FIX = "Export the network again with one image as input and its scores as output."


class Softmax(NamedTuple):
    """The softmax at the end of a graph: the name of its result, and its axis. The caller must check the shape."""

    name: str
    axis: int


class ThirdPartyGraph(NamedTuple):
    """A third-party graph, checked to be that of an image classifier.

    ``original`` computes the scores from the image as in the file, except that a final softmax is left out, and with it
    everything that the scores do not depend on. ``output_names`` has the name in it of each of our outputs: always of
    ``logits``, and where found of ``embedding`` and ``feature_map``. The caller must check their shapes and values.
    """

    original: onnx.ModelProto
    input: str
    layout: Layout
    takes_uint8: bool
    input_size: int
    fixed_batch: bool
    softmax: Softmax | None  # that is left out
    left_out: tuple[str, ...]  # the file's other outputs
    flatten: bool  # the scores are [N, classes, 1, 1]
    output_names: dict[str, str]
    opset: int


def read_third_party(
    data: bytes, where: str, *, input_size: int | None = None, classes: int | None = None
) -> ThirdPartyGraph:
    """Find an image classifier in the bytes of an ONNX file.

    Args:
        data: The file.
        where: Its name in messages.
        input_size: Side of the input, in pixels; needed if the file does not fix it.
        classes: Number of classes, if known; it decides between several outputs.

    Raises:
        UnreadableModel: Not an ONNX file, or not an image classifier.
        SuspiciousModel: The file refers to other files, or has parts that the service does not run.
        InvalidMetadata: ``input_size`` is needed, or contradicts the file.
        ClassCountMismatch: ``classes`` contradicts the file.

    """
    if check_onnx(data, where).metadata is not None:
        raise UnreadableModel(f"{where} is an exported model. Serve it as it is, or name the file it was made from.")
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise UnreadableModel(f"{where} is not an ONNX file, or a damaged one. Copy or fetch it again.") from error
    if not all(isinstance(name, str) for name in _names(model.graph)):
        raise UnreadableModel(f"{where} is damaged: it has names that are not text. Copy or fetch it again.")
    opset = next((one.version for one in model.opset_import if one.domain in _STANDARD), 0)
    if opset < _OLDEST_OPSET:
        raise UnreadableModel(
            f"{where} uses ONNX's operators of version {opset}; the oldest supported is {_OLDEST_OPSET}. Convert it, "
            "in Python: onnx.version_converter.convert_version(model, 18)"
        )
    producers = {name: node for node in model.graph.node for name in node.output if name}
    left_out = [one.name for one in model.graph.output]
    output = _choose_output(model.graph, where, classes)
    _refuse_training(model.graph, producers, where)
    found = _find_softmax(output.name, producers, where)
    softmax = None
    if found is not None:
        # Before version 13, all axes from 1 on were one.
        default = 1 if opset < _SOFTMAX_OF_ONE_AXIS else -1
        softmax = Softmax(found.output[0], next((one.i for one in found.attribute if one.name == "axis"), default))
        _make_identity(found)
    nodes = _needed(output.name, producers)
    image = _choose_input(model.graph, {name for node in nodes for name in node.input}, where)
    layout, side = _layout(image, where, input_size)
    shape, output_rank = _dims(image), len(_dims(output))
    if shape[0] not in (None, 1):
        raise UnreadableModel(
            f"{where} takes exactly {shape[0]} images at once. Export the network again with one image, or with any "
            "number of them."
        )
    output_names = _output_names(output.name, producers, {one.name for one in model.graph.initializer})
    left_out.remove(output.name)
    _prune(model, nodes, image, output, opset)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        reason = (str(error).strip().splitlines() or ["no message"])[0][:200]
        raise UnreadableModel(f"{where} is not a valid ONNX file: {reason}") from error
    return ThirdPartyGraph(
        original=model,
        input=model.graph.input[0].name,
        layout=layout,
        takes_uint8=model.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8,
        input_size=side,
        fixed_batch=shape[0] == 1,
        softmax=softmax,
        left_out=tuple(left_out),
        flatten=output_rank == 4,
        output_names=output_names,
        opset=opset,
    )


def with_pixels(graph: ThirdPartyGraph, mean: Channels, std: Channels, outputs: Iterable[str]) -> onnx.ModelProto:
    """Return the graph with ``pixels``, uint8 [N, S, S, 3], as input, normalised where the network takes float32.

    Args:
        graph: The graph.
        mean: Mean per channel, of pixels in 0 ... 1.
        std: Standard deviation per channel, of pixels in 0 ... 1.
        outputs: The names of our outputs to have, of those in ``graph.output_names``; their shapes are left open.

    """
    names = {"": "", **{graph.output_names[name]: name for name in outputs}}
    if graph.flatten:
        names[graph.output_names[OUTPUT]] = f"{_PREFIX}scores"
    pixels, first = INPUT, []
    initializers = []
    if not graph.takes_uint8:
        with np.errstate(all="ignore"):  # the caller validates mean and std, with the other metadata
            normalisation = {"scale": 1 / (255 * np.array(std)), "shift": -np.array(mean) / np.array(std)}
            initializers += [
                numpy_helper.from_array(values.astype(np.float32), name) for name, values in normalisation.items()
            ]
        first += [
            helper.make_node("Cast", [INPUT], ["pixels.float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["pixels.float", "scale"], ["pixels.scaled"]),
            helper.make_node("Add", ["pixels.scaled", "shift"], ["pixels.normalised"]),
        ]
        pixels = "pixels.normalised"
    if graph.layout == "NCHW":
        first.append(helper.make_node("Transpose", [pixels], ["pixels.channels_first"], perm=[0, 3, 1, 2]))
        pixels = "pixels.channels_first"
    names[graph.input] = pixels

    nodes = [_renamed(node, names) for node in graph.original.graph.node]
    for one in graph.original.graph.initializer:
        copy = onnx.TensorProto()
        copy.CopyFrom(one)
        copy.name = _name(one.name, names)
        copy.doc_string = ""
        initializers.append(copy)
    if graph.flatten:
        nodes.append(helper.make_node("Flatten", [f"{_PREFIX}scores"], [OUTPUT], axis=1))
    side = graph.input_size
    count: int | str = 1 if graph.fixed_batch else "N"
    made = helper.make_graph(
        [*first, *nodes],
        "imported",
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [count, side, side, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        initializers,
    )
    return helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", graph.opset)],
        ir_version=graph.original.ir_version,
        producer_name="resnet-service",
    )


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield all names in a graph; those that are not UTF-8 are bytes, whatever protobuf's types say."""
    for values in (graph.input, graph.output, graph.initializer):
        for one in values:
            yield one.name
    for node in graph.node:
        yield from (node.op_type, *node.input, *node.output)
        for attribute in node.attribute:
            yield attribute.name


def _choose_output(graph: onnx.GraphProto, where: str, classes: int | None) -> onnx.ValueInfoProto:
    """Return the output that has the scores: the only one of the shape [N, classes]."""
    scores: list[onnx.ValueInfoProto] = [output for output in graph.output if _has_scores(output)]
    if len(scores) > 1 and classes is not None:
        scores = [output for output in scores if _dims(output)[1:2] == (classes,)]
    if not scores:
        raise UnreadableModel(
            f"{where} is not an image classifier: none of its outputs has float32 scores of the shape [N, classes]; "
            f"they are {_listed(graph.output)}. {_FIX}"
        )
    if len(scores) > 1:
        raise UnreadableModel(
            f"{where} has several outputs that could be the scores: {_listed(scores)}. Name the number of classes with "
            f"--num-classes, or export the network with one of them."
        )
    dims = _dims(scores[0])
    found = dims[1] if len(dims) > 1 else None
    if classes is not None and found is not None and found != classes:
        raise ClassCountMismatch(f"{where} has {found} classes, but --labels or --num-classes says {classes}.")
    return scores[0]


def _has_scores(value: onnx.ValueInfoProto) -> bool:
    tensor = value.type.tensor_type
    if tensor.elem_type != TensorProto.FLOAT:
        return False
    dims = _dims(value)
    # A missing shape is known once the network is read by OpenVINO.
    return not tensor.HasField("shape") or len(dims) == 2 or (len(dims) == 4 and dims[2:] == (1, 1))


def _choose_input(graph: onnx.GraphProto, used: set[str], where: str) -> onnx.ValueInfoProto:
    weights = {one.name for one in graph.initializer}
    inputs: list[onnx.ValueInfoProto] = [
        value for value in graph.input if value.name in used and value.name not in weights
    ]
    if len(inputs) != 1:
        found = f"{len(inputs)} inputs ({_listed(inputs)})" if inputs else "no input"
        raise UnreadableModel(f"{where} is not an image classifier: its scores depend on {found}. {_FIX}")
    image = inputs[0]
    kind = image.type.tensor_type.elem_type
    if kind not in (TensorProto.FLOAT, TensorProto.UINT8):
        known = kind in TensorProto.DataType.values()
        raise UnreadableModel(
            f"{where} takes {TensorProto.DataType.Name(kind).lower() if known else 'an unknown type'}; the service "
            "gives float32 or uint8. Export the network again in float32, after model.float()."
        )
    return image


def _layout(image: onnx.ValueInfoProto, where: str, input_size: int | None) -> tuple[Layout, int]:
    """Return the order of the axes, and the side of the image."""
    dims = _dims(image)
    layout: Layout
    if len(dims) == 4 and dims[1] == 3:
        layout, sides = "NCHW", dims[2:]
    elif len(dims) == 4 and dims[3] == 3:
        layout, sides = "NHWC", dims[1:3]
    else:
        raise UnreadableModel(
            f"{where} is not a classifier of RGB images: its input has the shape {_shown(dims)}, not [N, 3, S, S] or "
            f"[N, S, S, 3]. {_grey(dims)}{_FIX}"
        )
    fixed = {side for side in sides if side is not None}
    if len(fixed) > 1:
        raise UnreadableModel(f"{where} takes images of {_shown(sides)} pixels; the service gives square ones.")
    side = next(iter(fixed), input_size)
    if side is None:
        raise InvalidMetadata(f"{where} takes images of any size. Name the side of its input: --input-size PIXELS.")
    if input_size not in (None, side):
        raise InvalidMetadata(f"{where} takes images of {side} pixels, but --input-size is {input_size}.")
    if not MIN_INPUT_SIZE <= side <= MAX_INPUT_SIZE:
        raise InvalidMetadata(
            f"{where} takes images of {side} pixels; the service's limits are {MIN_INPUT_SIZE} and {MAX_INPUT_SIZE}."
        )
    return layout, side


def _grey(dims: Dims) -> str:
    if len(dims) != 4 or 1 not in (dims[1], dims[3]):
        return ""
    return "For a network of grey images, export a module that gives it the mean of three channels: x.mean(1, True). "


def _refuse_training(graph: onnx.GraphProto, producers: dict[str, onnx.NodeProto], where: str) -> None:
    """Raise ``UnreadableModel`` if dropout or a batch norm computes as in training."""
    values = {one.name: one for one in graph.initializer}
    for node in graph.node:
        training = any(one.name == "training_mode" and one.i for one in node.attribute)
        if node.op_type == "Dropout" and len(node.input) > 2:
            name = node.input[2]
            constant = producers.get(name)
            attributes = constant.attribute if constant is not None else ()
            values.update((name, one.t) for one in attributes if one.name == "value")
            flag = values.get(name)
            training = flag is None or any(flag.raw_data) or any(flag.int32_data)
        if training:
            raise UnreadableModel(
                f"{where} has a {node.op_type} that computes as in training, so that its answers vary. Export the "
                "network again after model.eval()."
            )


def _find_softmax(output: str, producers: dict[str, onnx.NodeProto], where: str) -> onnx.NodeProto | None:
    """Return the softmax or log-softmax at the end, whose work the service does itself, if there is one.

    Raises:
        UnreadableModel: The graph ends in a sigmoid, or in a softmax over another axis than that of the classes.

    """
    node = _producer(output, producers, _SHAPE_ONLY)
    if node is None:
        return None
    if node.op_type in ("Sigmoid", "HardSigmoid"):
        raise UnreadableModel(
            f"{where} ends in a {node.op_type}: it scores each class on its own, and the service answers with "
            "probabilities of classes that exclude each other. If yours do, export the network without it."
        )
    if node.op_type not in _NORMALISERS:
        return None
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    if axis not in (1, -1):
        raise UnreadableModel(f"{where} ends in a {node.op_type} over axis {axis}, which is not that of the classes.")
    return node


def _make_identity(node: onnx.NodeProto) -> None:
    node.op_type = "Identity"
    del node.attribute[:]


def _producer(name: str, producers: dict[str, onnx.NodeProto], passed: Sequence[str]) -> onnx.NodeProto | None:
    """Return the node that makes a value, or what the operators ``passed`` only pass on."""
    for _ in range(len(producers) + 1):  # a damaged graph may have a loop
        node = producers.get(name)
        if node is None or node.op_type not in passed or not node.input:
            return node
        name = node.input[0]
    return None


def _output_names(output: str, producers: dict[str, onnx.NodeProto], weights: set[str]) -> dict[str, str]:
    """Return the names of scores, embedding and feature map, as far as the graph ends in a linear layer, and a pool."""
    last = _producer(output, producers, ("Identity",))
    if last is None or last.op_type != "Gemm" or len(last.input) < 2:
        return {OUTPUT: output}
    attributes = {attribute.name: attribute for attribute in last.attribute}
    plain = all(name not in attributes or attributes[name].f == 1 for name in ("alpha", "beta"))
    transposed = "transB" in attributes and attributes["transB"].i == 1
    if (
        not plain
        or not transposed
        or ("transA" in attributes and attributes["transA"].i)
        or last.input[1] not in weights
    ):
        return {OUTPUT: output}
    # The linear layer itself makes our logits, so that its weights are found there.
    found = {OUTPUT: last.output[0], EMBEDDING: last.input[0]}
    pool = _producer(last.input[0], producers, _SHAPE_ONLY)
    if pool is not None and pool.op_type in _POOLS and pool.input:
        found[FEATURE_MAP] = pool.input[0]
    made = [name for name in found.values() if name in producers]
    return found if len(set(made)) == len(found) else {OUTPUT: output}


def _needed(output: str, producers: dict[str, onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Return copies of the nodes that a value depends on, in the file's order, which ``producers`` has."""
    wanted, needed = [output], set()
    while wanted:
        name = wanted.pop()
        if name in producers and name not in needed:
            needed.update(producers[name].output)
            wanted.extend(producers[name].input)
    nodes = []
    for name, node in producers.items():
        if name in needed:
            needed.difference_update(node.output)  # a node with several outputs is one node
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.domain = ""
            nodes.append(copy)
    return nodes


def _prune(
    model: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    image: onnx.ValueInfoProto,
    output: onnx.ValueInfoProto,
    opset: int,
) -> None:
    """Remove from a model all that the scores do not depend on."""
    graph = model.graph
    used = {name for node in nodes for name in node.input}
    for number in reversed(range(len(graph.initializer))):
        if graph.initializer[number].name not in used:
            del graph.initializer[number]
    kept: tuple[onnx.ValueInfoProto, onnx.ValueInfoProto] = (onnx.ValueInfoProto(), onnx.ValueInfoProto())
    for copy, one in zip(kept, (image, output), strict=True):
        copy.CopyFrom(one)
    shape = kept[1].type.tensor_type.shape
    if not shape.dim:  # some exporters leave it out, and ONNX's checker requires it
        shape.dim.add()
        shape.dim.add()
    model.ir_version = max(model.ir_version, _OLDEST_IR_VERSION)
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:], model.opset_import[:]
    graph.node.extend(nodes)
    graph.input.append(kept[0])
    graph.output.append(kept[1])
    model.opset_import.append(helper.make_opsetid("", opset))


def _renamed(node: onnx.NodeProto, names: dict[str, str]) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [_name(name, names) for name in node.input]
    copy.output[:] = [_name(name, names) for name in node.output]
    copy.name = next((name for name in copy.output if name), "")
    copy.doc_string = ""
    del copy.metadata_props[:]
    return copy


def _name(name: str, names: dict[str, str]) -> str:
    return names.get(name, f"{_PREFIX}{name}")


def _dims(value: onnx.ValueInfoProto) -> Dims:
    """Return the declared shape; old exporters write -1 or 0 for a length that is not fixed."""
    return tuple(dim.dim_value if dim.dim_value > 0 else None for dim in value.type.tensor_type.shape.dim)


def _shown(dims: Dims) -> str:
    return f"[{', '.join('?' if dim is None else str(dim) for dim in dims)}]"


def _listed(values: Iterable[onnx.ValueInfoProto]) -> str:
    """List names and shapes; names are untrusted, and only short, printable ones are shown."""
    shown = [
        f"{value.name if value.name.isprintable() and len(value.name) < 100 else 'one'} {_shown(_dims(value)[:10])}"
        for value in values
    ]
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "") or "none"
