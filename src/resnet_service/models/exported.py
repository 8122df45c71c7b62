"""Reading exported models: ONNX files that carry metadata, checked before an ONNX parser runs.

The checks walk protobuf's wire format. The ``onnx`` package would parse first and check later, and its import would
delay every start.

Field numbers are those of ``onnx.proto``, IR version 13. The checks refuse everything that ``export`` never writes:
weights in other files (whose path could lead anywhere), graphs within graphs (loops), functions, operators of other
domains. ``convert`` makes the same checks of third-party ONNX files.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from resnet_service.errors import InvalidMetadata, SuspiciousModel, UnreadableModel
from resnet_service.models.metadata import METADATA_KEY, ModelMetadata, Outputs
from resnet_service.models.operators import LEAST_INPUTS
from resnet_service.system.files import read_model_file, sha256_of
from resnet_service.types import EXPORTED_SUFFIX, Precision

INPUT, OUTPUT = "pixels", "logits"
# Further outputs, if the network has them: those that ``Outputs`` describes, and the last layer's weights after
# quantization, float32 [classes, C], the same for every image.
EMBEDDING, FEATURE_MAP, CLASS_WEIGHTS = "embedding", "feature_map", "class_weights"

MAX_METADATA_BYTES = 1 << 20
MAX_NODES = 20_000

_MODEL_GRAPH, _MODEL_OPSETS, _MODEL_METADATA, _MODEL_TRAINING, _MODEL_FUNCTIONS = 7, 8, 14, 20, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 4, 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS = 5, 10
_ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (6, 11), (22, 23)
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_STANDARD_DOMAINS = (b"", b"ai.onnx")  # two names of the same operators

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class ExportedModel(NamedTuple):
    """A checked exported model: the file's bytes, its metadata, its SHA-256.

    ``outputs`` is ``None`` for files exported before 0.3, which give logits only.
    """

    data: bytes
    metadata: ModelMetadata
    precision: Precision
    sha256: str
    outputs: Outputs | None


class OnnxFile(NamedTuple):
    """A checked ONNX file: the serialised graph within it, and this service's metadata, if it has any."""

    graph: memoryview
    metadata: bytes | None
    opsets: int


class _NodeValues(NamedTuple):
    inputs: list[bytes]
    outputs: list[bytes]


class _Field(NamedTuple):
    number: int
    value: int  # the number itself; for bytes, their start
    end: int  # for bytes, their end; for a number, 0


def read_exported(path: Path) -> ExportedModel:
    """Read an exported model and check all that can be checked without running it.

    Raises:
        ModelFileNotFound: No such file.
        UnreadableModel: Not an ONNX file, truncated, or altered since the export.
        SuspiciousModel: The file refers to other files, or has parts that no exported model has.
        InvalidMetadata: An ONNX file that ``export`` did not write, or invalid metadata.

    """
    data = read_model_file(path)
    file = check_onnx(data, str(path))
    if file.metadata is None:
        raise InvalidMetadata(
            f"{path} is an ONNX file, but was not written by `resnet-service export`: it lacks the metadata that "
            f"describe its input and outputs. Import it: resnet-service convert {path} OUTPUT{EXPORTED_SUFFIX} "
            "--labels FILE"
        )
    if file.opsets > 1:
        raise InvalidMetadata(
            f"{path} names {file.opsets} sets of operators, where `resnet-service export` writes one: it was altered "
            "after the export. Export the checkpoint again."
        )
    try:
        content = json.loads(file.metadata)
    except (ValueError, RecursionError) as error:
        raise InvalidMetadata(f"{path}: the metadata are not JSON. Export the checkpoint again.") from error
    parsed = ModelMetadata.parse(content if isinstance(content, dict) else {}, str(path))
    if parsed.packing is None:
        raise InvalidMetadata(f"{path}: the metadata do not say how it was exported. Export the checkpoint again.")
    if sha256_of(file.graph) != parsed.packing.graph_sha256:
        raise UnreadableModel(
            f"{path} was damaged or altered after the export. Copy the file again, or export the checkpoint again."
        )
    return ExportedModel(data, parsed, parsed.packing.precision, sha256_of(data), parsed.packing.outputs)


def check_onnx(data: bytes, where: str) -> OnnxFile:
    """Check the structure of an ONNX file.

    Raises:
        UnreadableModel: Not an ONNX file, or truncated.
        SuspiciousModel: The file refers to other files, or has parts that no exported model has.

    """
    try:
        return _walk(memoryview(data), where)
    except (LookupError, ValueError) as error:
        raise UnreadableModel(
            f"{where} is not a complete ONNX file: it is damaged, truncated, or another kind of file."
        ) from error


def graph_bytes(data: bytes) -> bytes:
    """Return the serialised graph within an ONNX file, whose digest is ``Packing.graph_sha256``."""
    return bytes(check_onnx(data, "the model").graph)


def _walk(data: memoryview, where: str) -> OnnxFile:
    """Check the file; raise ``LookupError`` or ``ValueError`` if this is no ONNX file."""
    graphs: list[_Field] = []
    metadata = None
    opsets = 0
    for field in _fields(data, 0, len(data)):
        if field.number in (_MODEL_FUNCTIONS, _MODEL_TRAINING):
            raise SuspiciousModel(f"{where} has functions or training parts, which the service does not run.")
        if field.number == _MODEL_GRAPH:
            graphs.append(field)
            _check_graph(data, field, where)
        elif field.number == _MODEL_METADATA:
            metadata = _entry(data, field).get(METADATA_KEY.encode(), metadata)
        opsets += field.number == _MODEL_OPSETS
    if len(graphs) != 1 or opsets < 1:
        raise ValueError("no graph, several graphs, or no operators")
    return OnnxFile(data[graphs[0].value : graphs[0].end], metadata, opsets)


def _check_graph(data: memoryview, graph: _Field, where: str) -> None:
    nodes: list[_NodeValues] = []
    for field in _fields(data, graph.value, graph.end):
        if field.number == _GRAPH_INITIALIZER:
            _check_tensor(data, field, where)
        elif field.number == _GRAPH_NODE:
            nodes.append(_check_node(data, field, where))
        elif field.number == _GRAPH_SPARSE:
            raise SuspiciousModel(f"{where} has sparse weights, which the service does not run.")
        if len(nodes) > MAX_NODES:
            raise SuspiciousModel(f"{where} has more than {MAX_NODES:,} nodes.")
    _check_order(nodes, where)


def _check_node(data: memoryview, node: _Field, where: str) -> _NodeValues:
    values = _NodeValues([], [])
    operator = b""
    for field in _fields(data, node.value, node.end):
        if field.number == _NODE_DOMAIN and bytes(data[field.value : field.end]) not in _STANDARD_DOMAINS:
            raise SuspiciousModel(f"{where} has operators from outside the ONNX standard.")
        if field.number == _NODE_INPUT:
            values.inputs.append(bytes(data[field.value : field.end]))
        elif field.number == _NODE_OPERATOR:
            operator = bytes(data[field.value : field.end])
        elif field.number == _NODE_OUTPUT:
            values.outputs.append(bytes(data[field.value : field.end]))
        if field.number != _NODE_ATTRIBUTE:
            continue
        for part in _fields(data, field.value, field.end):
            if part.number in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
                _check_tensor(data, part, where)
            elif part.number in (*_ATTRIBUTE_GRAPHS, *_ATTRIBUTE_SPARSE):
                raise SuspiciousModel(
                    f"{where} has graphs within graphs or sparse tensors, which the service does not run."
                )
    least = LEAST_INPUTS.get(operator)
    if least is None:
        shown = ascii(operator.decode(errors="replace")[:50])
        raise SuspiciousModel(f"{where} has the operator {shown}, which no image classifier needs.")
    if len(values.inputs) < least or not all(values.inputs[:least]):
        raise SuspiciousModel(f"{where} has a node of the operator {operator.decode()} that lacks an input.")
    return values


def _check_order(nodes: list[_NodeValues], where: str) -> None:
    """Check that each value is made once, and before it is used.

    Of a loop, OpenVINO's parser would build layers until no memory is left.
    """
    made: dict[bytes, int] = {}
    for number, node in enumerate(nodes):
        for name in filter(None, node.outputs):  # an output that is left out has an empty name
            if made.setdefault(name, number) != number:
                raise SuspiciousModel(f"{where} makes a value twice, which no ONNX file may.")
    for number, node in enumerate(nodes):
        if any(made.get(name, -1) >= number for name in node.inputs):
            raise SuspiciousModel(f"{where} has a loop, or nodes in another order than ONNX requires.")


def _check_tensor(data: memoryview, tensor: _Field, where: str) -> None:
    for field in _fields(data, tensor.value, tensor.end):
        # A location of 0 says that the weights are here, as of a file whose external weights were read and written.
        if field.number == _TENSOR_EXTERNAL or (field.number == _TENSOR_LOCATION and field.value != 0):
            raise SuspiciousModel(
                f"{where} refers to weights in another file; an exported model contains all its weights. Export it "
                "again with torch.onnx.export(..., external_data=False), or write them into one file, in Python: "
                f"import onnx; onnx.save(onnx.load({where!r}), 'whole.onnx')"
            )


def _entry(data: memoryview, entry: _Field) -> dict[bytes, bytes]:
    parts = {field.number: field for field in _fields(data, entry.value, entry.end)}
    key, value = parts[_ENTRY_KEY], parts[_ENTRY_VALUE]
    if value.end - value.value > MAX_METADATA_BYTES:
        raise ValueError("the metadata are too long")
    return {bytes(data[key.value : key.end]): bytes(data[value.value : value.end])}


def _fields(data: memoryview, start: int, end: int) -> Iterator[_Field]:
    """Yield the fields of a protobuf message; raise at the end unless they fill ``start`` to ``end`` exactly.

    The wire format: https://protobuf.dev/programming-guides/encoding.
    """
    position = start
    while position < end:
        tag, position = _varint(data, position, end)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, position = _varint(data, position, end)
            yield _Field(number, value, 0)
        elif kind == _BYTES:
            length, position = _varint(data, position, end)
            yield _Field(number, position, position + length)
            position += length
        elif kind in (_FIXED32, _FIXED64):
            position += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError("not a protobuf message")
    if position != end:
        raise ValueError("a field extends beyond its message")


def _varint(data: memoryview, position: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position] if position < end else 0x80
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("not a number")
