"""The bodies of the Open Inference Protocol: from bytes to tensors within bounds, inference, and back to bytes.

A request's claims allocate nothing: shapes are compared with the model's and with the number of bytes before an array
is made, and JSON with too many values is refused before it is parsed. The extensions for binary data and classification
are implemented.
"""

import json
import math
import struct
from typing import Annotated, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, FailFast, Field, TypeAdapter, ValidationError

from resnet_service.api.base64_text import decode_base64
from resnet_service.errors import InvalidTensor, MalformedJSON, TooManyImages
from resnet_service.imaging.preprocess import denormalise
from resnet_service.inference.base import ImageClassifier
from resnet_service.inference.ranking import best, softmax
from resnet_service.inference.results import Scores, Timing
from resnet_service.models.labels import LabelSet
from resnet_service.models.metadata import ModelMetadata
from resnet_service.validation import describe_first

HEADER = "Inference-Header-Content-Length"

# The outputs, in the order of the response, and the inputs, of which a request has one.
PROBABILITIES, LOGITS = "probabilities", "logits"
IMAGE, PIXELS, NORMALIZED = "image", "pixels", "normalized"

# A JSON value can take 150 bytes while it is parsed, in each inference thread; this many values are six 224x224 crops.
MAX_JSON_VALUES = 1 << 20
_MAX_TENSORS = 8
_MAX_DIMENSIONS = 8


class _RequestModel(BaseModel):
    # Unknown fields are ignored, as other servers of this protocol do: clients send more than it specifies.
    model_config = ConfigDict(strict=True, frozen=True)


class TensorMetadata(BaseModel):
    """One input or output of the model; -1 in its shape is the number of images."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, str] = {}


def inputs(metadata: ModelMetadata) -> list[TensorMetadata]:
    """Return the model's inputs, of which a request sends one."""
    side = metadata.input_size
    normal = f"(x / 255 - mean) / std, mean {list(metadata.mean)}, std {list(metadata.std)}"
    return [
        TensorMetadata(
            name=IMAGE, datatype="BYTES", shape=[-1], parameters={"content": "encoded images; base64 in JSON"}
        ),
        TensorMetadata(
            name=PIXELS, datatype="UINT8", shape=[-1, side, side, 3], parameters={"content": "RGB, x in 0 to 255"}
        ),
        TensorMetadata(
            name=NORMALIZED,
            datatype="FP32",
            shape=[-1, 3, side, side],
            parameters={"content": f"RGB, {normal}; x is rounded to a whole number"},
        ),
    ]


def outputs(labels: LabelSet) -> list[TensorMetadata]:
    """Return the model's outputs."""
    shape = [-1, len(labels)]
    return [TensorMetadata(name=name, datatype="FP32", shape=shape) for name in (PROBABILITIES, LOGITS)]


class InputTensor(_RequestModel):
    """An input of a request; ``data`` is absent if it follows in binary."""

    name: str = Field(max_length=100, examples=[IMAGE])
    shape: list[int] = Field(min_length=1, max_length=_MAX_DIMENSIONS, examples=[[1]])
    datatype: str = Field(max_length=20, examples=["BYTES"])
    parameters: dict[str, Any] = {}
    data: Any = None


class RequestedOutput(_RequestModel):
    """A requested output, and its form."""

    name: str = Field(max_length=100, examples=[PROBABILITIES])
    parameters: dict[str, Any] = {}


class InferenceRequest(_RequestModel):
    """The JSON part of a request."""

    id: str | None = Field(None, max_length=1000)
    parameters: dict[str, Any] = {}
    inputs: list[InputTensor] = Field(min_length=1, max_length=_MAX_TENSORS)
    outputs: list[RequestedOutput] | None = Field(None, max_length=_MAX_TENSORS)


T = TypeVar("T")
# Without this, pydantic would collect an error for each wrong value.
_List = Annotated[list[T], FailFast()]
_Byte = Annotated[int, Field(ge=0, le=255)]
# The types of ``data``: flat, and nested like the shape.
_TEXTS = TypeAdapter(_List[str]), TypeAdapter(_List[_List[str]])
_BYTES = TypeAdapter(_List[_Byte]), TypeAdapter(_List[_List[_List[_List[_Byte]]]])
_FLOATS = TypeAdapter(_List[float]), TypeAdapter(_List[_List[_List[_List[float]]]])


class InferenceAnswer(NamedTuple):
    """A response body, the length of its JSON part if binary data follow, and the timings."""

    body: bytes
    json_length: int | None
    timing_ms: Timing


def infer(classifier: ImageClassifier, body: bytes, json_length: str | None, max_batch: int) -> InferenceAnswer:
    """Answer a request, from bytes to bytes. Call it in a thread, since parsing would block the event loop.

    Args:
        classifier: The model to use.
        body: JSON, then binary data.
        json_length: The request's header ``HEADER``, if there is one.
        max_batch: The limit of images in a tensor.

    Raises:
        MalformedJSON: The JSON part is not an inference request.
        InvalidTensor: Inputs or outputs do not match the model's, or the data do not match their shape.
        TooManyImages: There are more than ``max_batch``.
        RequestError: An image cannot be classified.
        InvalidModelOutput: The network failed.

    """
    request, binary = _read(body, json_length)
    requested = _requested_outputs(request, classifier.model.labels)
    tensor = request.inputs[0]
    shape = _checked_shape(tensor, classifier.model.metadata, max_batch)
    if tensor.name == IMAGE:
        scores = classifier.score(_images(tensor, binary, shape[0]))
    else:
        scores = classifier.score_crops(_crops(tensor, binary, shape, classifier.model.metadata))
    return _answer(request, requested, scores, classifier)


class _Output(NamedTuple):
    name: str
    binary: bool
    classes: int  # in its classification; 0 for the tensor itself


def _read(body: bytes, json_length: str | None) -> tuple[InferenceRequest, bytes | None]:
    """Return the JSON part and the one input's binary data, if it has any."""
    length = len(body)
    if json_length is not None:
        if not (json_length.isascii() and json_length.isdigit() and len(json_length) < 20):
            raise InvalidTensor(f"{HEADER} must be the number of bytes of the JSON part.")
        length = int(json_length)
        if length > len(body):
            raise InvalidTensor(f"{HEADER} is {length}, but the body has {len(body)} bytes.")
    request = _parse(body[:length] if length < len(body) else body)
    if len(request.inputs) > 1:
        raise InvalidTensor(f"{len(request.inputs)} inputs were sent; send one.")
    size = request.inputs[0].parameters.get("binary_data_size")
    rest = len(body) - length
    if size is None:
        if rest:
            raise InvalidTensor(f"{rest} bytes follow the JSON part, but the input has no binary_data_size.")
        return request, None
    if type(size) is not int or size != rest:
        raise InvalidTensor(f"binary_data_size must be the {rest} bytes that follow the JSON part.")
    if request.inputs[0].data is not None:
        raise InvalidTensor("The input has both data and binary_data_size; send one of them.")
    return request, body[length:]


def _parse(data: bytes) -> InferenceRequest:
    # Each value but the first follows one of these. They also count inside strings, which hardly matters.
    if sum(map(data.count, (b",", b"[", b"{"))) > MAX_JSON_VALUES:
        raise InvalidTensor(
            f"The JSON part has more than {MAX_JSON_VALUES:,} values. Send large tensors with the binary extension."
        )
    try:
        return InferenceRequest.model_validate_json(data)
    except ValidationError as error:
        raise MalformedJSON(f"The body is not an inference request: {describe_first(error)}.") from error


def _requested_outputs(request: InferenceRequest, labels: LabelSet) -> list[_Output]:
    """Return the outputs to send, in the order of the request; all, if it names none."""
    binary_by_default = _flag(request.parameters, "binary_data_output", default=False)
    names = [output.name for output in outputs(labels)]
    requested = []
    for output in request.outputs or [RequestedOutput(name=name) for name in names]:
        if output.name not in names:
            raise InvalidTensor(f"The model has no such output. Request {' or '.join(names)}.")
        _no_shared_memory(output.parameters)
        classes = output.parameters.get("classification", 0)
        if type(classes) is not int or classes < 0:
            raise InvalidTensor("classification must be a number of classes, at least 0.")
        binary = _flag(output.parameters, "binary_data", default=binary_by_default)
        # Like Triton, return all classes where more are requested; the shape tells the number.
        requested.append(_Output(output.name, binary, min(classes, len(labels))))
    return requested


def _flag(parameters: dict[str, Any], name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidTensor(f"{name} must be true or false.")
    return value


def _no_shared_memory(parameters: dict[str, Any]) -> None:
    if any(name.startswith("shared_memory") for name in parameters):
        raise InvalidTensor("Shared memory is not supported. Send the data in the request.")


def _checked_shape(tensor: InputTensor, metadata: ModelMetadata, max_batch: int) -> tuple[int, ...]:
    """Return the tensor's shape, if the tensor matches an input of the model and the number of images is allowed."""
    by_name = {known.name: known for known in inputs(metadata)}
    known = by_name.get(tensor.name)
    if known is None:
        raise InvalidTensor(f"The model has no such input. Send one of {', '.join(by_name)}.")
    _no_shared_memory(tensor.parameters)
    if tensor.datatype != known.datatype:
        raise InvalidTensor(f"The datatype of the input {known.name} must be {known.datatype}.")
    count, *rest = tensor.shape
    # Triton's clients send [N, 1] for strings of a model with a batch dimension.
    if rest != known.shape[1:] and not (known.name == IMAGE and rest == [1]):
        raise InvalidTensor(
            f"The shape of the input {known.name} must be {known.shape}, where -1 is the number of images."
        )
    if count < 1:
        raise InvalidTensor("The first dimension, the number of images, must be at least 1.")
    if count > max_batch:
        raise TooManyImages("tensor", max_batch)
    return count, *rest


def _images(tensor: InputTensor, binary: bytes | None, count: int) -> list[bytes]:
    """Return the encoded images of the input ``image``."""
    if binary is not None:
        return _split(binary, count)
    texts = [
        text for row in _validated(tensor.data, {count}, *_TEXTS) for text in ([row] if isinstance(row, str) else row)
    ]
    if len(texts) != count:
        raise InvalidTensor(f"The data of the input {IMAGE} do not match its shape.")
    try:
        return [decode_base64(text) for text in texts]
    except ValueError as error:
        raise InvalidTensor(f"In JSON, the elements of the input {IMAGE} must be images in base64.") from error


def _split(binary: bytes, count: int) -> list[bytes]:
    """Split a BYTES tensor of the binary extension: each element follows its length, 32 bits little-endian."""
    elements: list[bytes] = []
    begin = 0
    while begin < len(binary) and len(elements) < count:
        if len(binary) - begin < 4:
            raise InvalidTensor("The binary data end within the 4-byte length of an element.")
        (length,) = struct.unpack_from("<I", binary, begin)
        begin += 4
        if length > len(binary) - begin:
            raise InvalidTensor(f"The length of an element is {length}, but {len(binary) - begin} bytes follow.")
        elements.append(binary[begin : begin + length])
        begin += length
    if begin < len(binary) or len(elements) < count:
        raise InvalidTensor(f"The number of elements in the binary data is not {count}, as the shape requires.")
    return elements


def _crops(
    tensor: InputTensor, binary: bytes | None, shape: tuple[int, ...], metadata: ModelMetadata
) -> NDArray[np.uint8]:
    """Return the pixels of the inputs ``pixels`` or ``normalized``, uint8 [N, S, S, 3]."""
    dtype = np.dtype("<u1" if tensor.name == PIXELS else "<f4")
    if binary is None:
        values = _numbers(tensor, shape, dtype)
    else:
        expected = math.prod(shape) * dtype.itemsize
        if len(binary) != expected:
            raise InvalidTensor(f"The binary data have {len(binary)} bytes; a tensor of this shape has {expected}.")
        values = np.frombuffer(binary, dtype)
    array = values.reshape(shape)
    return array if tensor.name == PIXELS else denormalise(array.transpose(0, 2, 3, 1), metadata)


def _numbers(tensor: InputTensor, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array of the numbers in JSON, which are flat or nested like the shape."""
    data = _validated(tensor.data, {math.prod(shape), shape[0]}, *(_BYTES if tensor.name == PIXELS else _FLOATS))
    try:
        with np.errstate(over="ignore"):  # values beyond FP32 become infinity, which is refused later
            values = np.array(data, dtype)
    except ValueError as error:  # rows of different lengths
        raise InvalidTensor(f"The data of the input {tensor.name} do not match its shape.") from error
    if values.shape not in (shape, (math.prod(shape),)):
        raise InvalidTensor(f"The data of the input {tensor.name} do not match its shape.")
    return values


def _validated(data: Any, lengths: set[int], flat: TypeAdapter[Any], nested: TypeAdapter[Any]) -> Any:
    """Return ``data``, a list of one of ``lengths`` that matches ``flat`` or, if it begins with a list, ``nested``.

    Raises:
        InvalidTensor: The data are anything else.

    """
    if not isinstance(data, list):
        raise InvalidTensor("The input needs either data, which must be a list, or binary_data_size.")
    if len(data) not in lengths:
        raise InvalidTensor(f"The length of the input's data is {len(data)}, which does not match its shape.")
    try:
        return (nested if data and isinstance(data[0], list) else flat).validate_python(data, strict=True)
    except ValidationError as error:
        raise InvalidTensor(f"The input's data: {describe_first(error)}.") from error


def _answer(
    request: InferenceRequest, requested: list[_Output], scores: Scores, classifier: ImageClassifier
) -> InferenceAnswer:
    tensors = {LOGITS: scores.logits, PROBABILITIES: softmax(scores.logits).astype(np.float32)}
    described: list[dict[str, Any]] = []
    binary: list[bytes] = []
    for output in requested:
        values = tensors[output.name]
        texts: list[str] = []
        shape = values.shape
        if output.classes:
            texts = [text for row in values for text in _classification(row, output.classes, classifier.model.labels)]
            shape = (len(values), output.classes)
        fields: dict[str, Any] = {
            "name": output.name,
            "datatype": "BYTES" if output.classes else "FP32",
            "shape": list(shape),
        }
        if output.binary:
            data = b"".join(map(_with_length, texts)) if output.classes else values.astype("<f4").tobytes()
            fields["parameters"] = {"binary_data_size": len(data)}
            binary.append(data)
        else:
            fields["data"] = texts if output.classes else values.ravel().tolist()
        described.append(fields)
    answer = {
        **({} if request.id is None else {"id": request.id}),
        "model_name": classifier.model.name,
        "model_version": classifier.model.version,
        "outputs": described,
    }
    head = json.dumps(answer, separators=(",", ":")).encode()
    return InferenceAnswer(b"".join([head, *binary]), len(head) if binary else None, scores.timing_ms)


def _classification(row: NDArray[np.float32], classes: int, labels: LabelSet) -> list[str]:
    """Return ``value:index:label`` of the highest values, in Triton's format."""
    return [f"{row[index]:f}:{index}:{labels.classes[index].name}" for index in best(row, classes)]


def _with_length(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<I", len(data)) + data
