"""The targets of fuzzing; each takes arbitrary bytes and must not raise."""

import functools
import tempfile
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from starlette.requests import Request
from starlette.types import Message

from resnet_service.api.base64_text import decode_base64
from resnet_service.api.uploads import FIELD, FIELDS, form_fields, read_image, read_images
from resnet_service.errors import ModelError, RequestError
from resnet_service.export.convert import convert
from resnet_service.export.third_party_graph import read_third_party, with_pixels
from resnet_service.imaging.decode import decode
from resnet_service.models.checkpoint.arrays import Array
from resnet_service.models.checkpoint.checkpoint import load_checkpoint
from resnet_service.models.checkpoint.torch_files import StoredTensor, read_torch_file
from resnet_service.models.checkpoint.training import tensors_of
from resnet_service.models.checkpoint.weights import needs_pytorch, read_weights
from resnet_service.models.exported import read_exported
from resnet_service.models.graphs import build_graph
from resnet_service.models.metadata import IMAGENET_MEAN, IMAGENET_STD
from resnet_service.models.networks import state_shapes

MAX_PIXELS = 250_000
SMALLEST_GRAPH = "timm/tf_efficientnet_lite0"
CORPUS = Path(__file__).parent / "corpus"

_FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-")


def fuzz_decode(data: bytes) -> None:
    """Decode an image, as a request does."""
    try:
        decoded = decode(data, MAX_PIXELS, min_side=32)
    except RequestError:
        return
    assert decoded.image.mode == "RGB"
    assert decoded.info.width * decoded.info.height <= MAX_PIXELS


T = TypeVar("T")


def fuzz_upload(data: bytes) -> None:
    """Read one image and several from a request, which is its Content-Type, a line feed and the body."""
    media_type, _, body = data.partition(b"\n")
    for names, read in (
        (("top_k", "lang"), read_image),
        ((FIELD, FIELDS), functools.partial(read_images, max_images=4)),
    ):
        request = _request(media_type, body)
        fields = _finish(form_fields(request, names, 4))
        assert {name for name, _ in fields} <= set(names)
        with suppress(RequestError):
            assert len(_finish(read(request))) > 0
    with suppress(ValueError):
        decode_base64(body.decode("latin-1"))


def _request(media_type: bytes, body: bytes) -> Request:
    """Return a request whose body comes in two pieces."""
    half = len(body) // 2
    pieces = iter((body[:half], body[half:]))

    async def receive() -> Message:
        piece = next(pieces, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    headers = [(b"content-type", media_type)] if media_type else []
    return Request(
        {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": headers}, receive
    )


def _finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that waits for nothing; an event loop would cost more than what is tested."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("the coroutine waits")


def fuzz_checkpoint(data: bytes) -> None:
    """Load a checkpoint, as `serve` does, and look for weights in it, as `convert` does.

    The corpus has no whole network: later steps read no untrusted input. But all tensors in a file are read.
    """
    path = Path(_FOLDER.name, "model.pth")
    path.write_bytes(data)
    with suppress(ModelError):
        needs_pytorch(path)
    with suppress(ModelError):
        load_checkpoint(path)
    with suppress(ModelError):
        convert(path, Path(_FOLDER.name, "converted.safetensors"))
    with suppress(ModelError):
        content = read_torch_file(data, "the file").content
        for name, tensor in tensors_of(content, "the file").found.items():
            assert isinstance(tensor, StoredTensor)
            with suppress(ModelError):
                assert tensor.array(name).shape == tensor.shape


def fuzz_safetensors(data: bytes) -> None:
    """Load a safetensors checkpoint, as `serve` does. The corpus has no whole network, as that of checkpoints."""
    path = Path(_FOLDER.name, "model.safetensors")
    path.write_bytes(data)
    try:
        load_checkpoint(path)
    except ModelError:
        return


def fuzz_graph(data: bytes) -> None:
    """Build the graph of a safetensors checkpoint, as an export without PyTorch does.

    The corpus has no whole network; weights of a network of two classes stand for those that a file lacks.
    """
    path = Path(_FOLDER.name, "filled.safetensors")
    path.write_bytes(data)
    try:
        weights = read_weights(path)
        state = weights.state
        if weights.metadata.arch == SMALLEST_GRAPH:
            state = {**_whole_state(), **state}
        model, outputs = build_graph(state, weights.metadata, str(path))
    except ModelError:
        return
    assert outputs.feature_map is not None
    assert len(model.graph.output) == 3


@functools.cache
def _whole_state() -> dict[str, Array]:
    return {key: np.ones(shape, np.float32) for key, shape in state_shapes(SMALLEST_GRAPH, 2).items()}


def fuzz_third_party(data: bytes) -> None:
    """Read a third-party ONNX file and put pixels in front, as `convert` does before any runtime reads it."""
    try:
        graph = read_third_party(data, "model.onnx", input_size=64)
    except ModelError:
        return
    model = with_pixels(graph, IMAGENET_MEAN, IMAGENET_STD, graph.output_names)
    assert [one.name for one in model.graph.input] == ["pixels"]
    assert model.SerializeToString()


def fuzz_exported(data: bytes) -> None:
    """Read an exported model, up to its compilation by OpenVINO."""
    path = Path(_FOLDER.name, "model.onnx")
    path.write_bytes(data)
    try:
        read_exported(path)
    except ModelError:
        return


TARGETS: Mapping[str, Callable[[bytes], None]] = MappingProxyType(
    {
        "decode": fuzz_decode,
        "upload": fuzz_upload,
        "checkpoint": fuzz_checkpoint,
        "safetensors": fuzz_safetensors,
        "exported": fuzz_exported,
        "graph": fuzz_graph,
        "third_party": fuzz_third_party,
    }
)


def corpus(target: str) -> list[Path]:
    """Return the corpus of a target: seeds, and inputs that once failed."""
    return sorted(path for path in (CORPUS / target).iterdir() if path.is_file())
