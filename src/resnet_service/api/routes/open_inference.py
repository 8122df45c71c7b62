"""``/v2``: the Open Inference Protocol, version 2, for clients of Triton and KServe."""

from enum import Enum
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from resnet_service import __version__
from resnet_service.api.admission import Admitted, InferenceRoute
from resnet_service.api.content_negotiation import BINARY, JSON
from resnet_service.api.dependencies import StartedService
from resnet_service.api.open_inference.tensors import HEADER, InferenceRequest, TensorMetadata, infer, inputs, outputs
from resnet_service.api.openapi import bodies, document, examples
from resnet_service.api.openapi.document import path_parameters
from resnet_service.api.openapi.responses import BODY, IMAGE, INFERENCE, failures, success
from resnet_service.api.uploads import read_body
from resnet_service.errors import (
    InvalidTensor,
    MalformedJSON,
    NotReady,
    TooManyImages,
    UnknownModel,
    UnsupportedMediaType,
)
from resnet_service.inference.base import ImageClassifier

_TAGS: list[str | Enum] = [document.OPEN_INFERENCE]
router = APIRouter(prefix="/v2", tags=_TAGS)
probes = APIRouter(prefix="/v2", tags=_TAGS)
inference = APIRouter(prefix="/v2", tags=_TAGS, route_class=InferenceRoute)


class ServerMetadata(BaseModel):
    """The server's name and version, and its extensions of the protocol."""

    name: str = Field(examples=["resnet-service"])
    version: str
    extensions: list[str] = Field(examples=[["binary_tensor_data", "classification"]])


class Live(BaseModel):
    """Whether the process is alive."""

    live: bool


class Ready(BaseModel):
    """Whether requests may be sent."""

    ready: bool


class ModelReady(Ready):
    """Whether requests for this model may be sent."""

    name: str


class ServedModel(BaseModel):
    """The model's inputs (a request sends exactly one of them) and its outputs."""

    name: str
    versions: list[str]
    platform: str = Field(examples=["openvino"])
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class OutputTensor(BaseModel):
    """One output; if its data follow in binary, ``data`` is absent and ``parameters`` has their size."""

    name: str
    datatype: str = Field(description="FP32; BYTES for a classification.")
    shape: list[int]
    parameters: dict[str, int] | None = None
    data: list[float] | list[str] | None = None


class InferenceResponse(BaseModel):
    """The JSON part of a response, without absent fields."""

    id: str | None = Field(None, description="The id of the request.")
    model_name: str
    model_version: str
    outputs: list[OutputTensor]


async def _model(request: Request, service: StartedService) -> ImageClassifier:
    """Return the classifier if the path names the model that it serves."""
    classifier = service.classifier
    served = classifier.model
    name, version = request.path_params["model"], request.path_params.get("version", served.version)
    if name != served.name:
        raise UnknownModel(f"This model is not served. The served model is {served.name}.")
    if version != served.version:
        raise UnknownModel(f"This version of {name} is not served. The served version is {served.version}.")
    return classifier


NamedModel = Annotated[ImageClassifier, Depends(_model)]


_NAMED, _VERSIONED = path_parameters("model"), path_parameters("model", "version")
_MODEL_READY = {
    **success("Requests for the model may be sent.", "v2_model_ready"),
    **failures(UnknownModel, NotReady, foreign=True),
}
_MODEL = {
    **success("The inputs, of which a request sends one, and the outputs.", "v2_model"),
    **failures(UnknownModel, NotReady, foreign=True),
}
_INFERENCE = {
    **success(
        f"Tensors; if some are binary, `{HEADER}` is the size of the JSON part in bytes.",
        "v2_inference",
        others={BINARY: bodies.BYTES},
    ),
    **failures(
        MalformedJSON,
        InvalidTensor,
        UnknownModel,
        TooManyImages,
        UnsupportedMediaType,
        *IMAGE,
        *BODY,
        *INFERENCE,
        foreign=True,
    ),
}
_BODY = bodies.request_body(
    {
        JSON: bodies.json_body(InferenceRequest, examples.INFERENCE_REQUEST),
        BINARY: bodies.BYTES,
    }
)


@router.get(
    "",
    summary="Describe the server",
    responses={**success("The server's metadata.", "v2_server"), **failures(foreign=True)},
)
async def server() -> ServerMetadata:
    """Return the service's name and version, and its extensions of the protocol.

    ```console
    $ curl http://localhost:8080/v2
    ```
    """
    return ServerMetadata(
        name="resnet-service", version=__version__, extensions=["binary_tensor_data", "classification"]
    )


@probes.get(
    "/health/live",
    summary="Check liveness for KServe",
    responses={**success("The service is alive.", "v2_live"), **failures(foreign=True)},
)
async def live() -> Live:
    """Return 200 while the event loop runs.

    ```console
    $ curl http://localhost:8080/v2/health/live
    ```
    """
    return Live(live=True)


@probes.get(
    "/health/ready",
    summary="Check readiness for KServe",
    responses={**success("Requests may be sent.", "v2_ready"), **failures(NotReady, foreign=True)},
)
async def ready(service: StartedService) -> Ready:
    """Return the same status as `/health/ready`.

    ```console
    $ curl http://localhost:8080/v2/health/ready
    ```
    """
    service.check_ready()
    return Ready(ready=True)


@router.get(
    "/models/{model}/versions/{version}/ready",
    summary="Check readiness of a model version",
    responses=_MODEL_READY,
    openapi_extra=_VERSIONED,
)
@router.get("/models/{model}/ready", summary="Check readiness of a model", responses=_MODEL_READY, openapi_extra=_NAMED)
async def model_ready(classifier: NamedModel, service: StartedService) -> ModelReady:
    """Return the same status as `/health/ready` for the served model, and 404 for any other.

    ```console
    $ curl http://localhost:8080/v2/models/resnet18-fashion-mnist-int8/ready
    ```
    """
    service.check_ready()
    return ModelReady(name=classifier.model.name, ready=True)


@router.get(
    "/models/{model}/versions/{version}",
    summary="Describe a model version",
    responses=_MODEL,
    openapi_extra=_VERSIONED,
)
@router.get("/models/{model}", summary="Describe a model", responses=_MODEL, openapi_extra=_NAMED)
async def model(classifier: NamedModel) -> ServedModel:
    """Return the model's inputs, of which a request sends one, and its outputs.

    ```console
    $ curl http://localhost:8080/v2/models/resnet18-fashion-mnist-int8
    ```
    """
    return ServedModel(
        name=classifier.model.name,
        versions=[classifier.model.version],
        platform=classifier.model.runtime,
        inputs=inputs(classifier.model.metadata),
        outputs=outputs(classifier.model.labels),
    )


@inference.post(
    "/models/{model}/versions/{version}/infer",
    summary="Run inference with a model version",
    responses=_INFERENCE,
    openapi_extra={**_VERSIONED, **_BODY},
    response_model=InferenceResponse,
)
@inference.post(
    "/models/{model}/infer",
    summary="Run inference for clients of Triton and KServe",
    responses=_INFERENCE,
    openapi_extra={**_NAMED, **_BODY},
    response_model=InferenceResponse,
)
async def answer(request: Request, classifier: NamedModel, service: StartedService, admitted: Admitted) -> Response:
    """Return probabilities, logits or a classification (the best classes by name) for one or more images.

    ```console
    $ image=$(base64 -w0 sneaker.png)
    $ echo '{"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["'$image'"]}]}' |
        curl --json @- http://localhost:8080/v2/models/resnet18-fashion-mnist-int8/infer
    ```

    With the binary extension, the body is `application/octet-stream`: the JSON part, then the tensors' bytes. The field
    `Inference-Header-Content-Length` is the size of the JSON part in bytes. FP32 tensors are rounded to 8-bit pixels.
    """
    body = await read_body(request)
    result = await admitted.run(infer, classifier, body, request.headers.get(HEADER), service.settings.max_batch)
    if result.json_length is None:
        return Response(result.body, media_type=JSON)
    headers = {HEADER: str(result.json_length)}
    return Response(result.body, headers=headers, media_type=BINARY)
