"""The Open Inference Protocol, version 2, as Triton's and KServe's clients speak it; its work is in ``tensors``."""

from enum import Enum
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from resnet_service import __version__
from resnet_service.api.admission import Admitted, InferenceRoute
from resnet_service.api.dependencies import StartedService
from resnet_service.api.open_inference.tensors import HEADER, InferenceRequest, TensorMetadata, infer, inputs, outputs
from resnet_service.api.openapi import document, examples
from resnet_service.api.openapi.document import answered, path_parameters, refused
from resnet_service.api.routes.predict import ready as check_ready
from resnet_service.api.schemas import inlined
from resnet_service.errors import (
    InvalidTensor,
    MalformedJSON,
    NotReady,
    TooManyImages,
    UnknownModel,
    UnsupportedMediaType,
)
from resnet_service.inference.base import ImageClassifier

_TAGS: list[str | Enum] = [document.V2]
router = APIRouter(prefix="/v2", tags=_TAGS)
health = APIRouter(prefix="/v2", tags=_TAGS)  # of whom probes ask, who have no key
inference = APIRouter(prefix="/v2", tags=_TAGS, route_class=InferenceRoute)


class ServerMetadata(BaseModel):
    """Which server it is, and which extensions of the protocol it has."""

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
    """What the model takes, of which a request sends one, and what it gives."""

    name: str
    versions: list[str]
    platform: str = Field(examples=["openvino"])
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class OutputTensor(BaseModel):
    """One output; ``data`` is absent where it follows in binary, and then ``parameters`` has its size."""

    name: str
    datatype: str = Field(description="FP32, or BYTES for the best classes by name.")
    shape: list[int]
    parameters: dict[str, int] | None = None
    data: list[float] | list[str] | None = None


class InferenceResponse(BaseModel):
    """The JSON part of an answer; what is absent in it is left out."""

    id: str | None = Field(None, description="As the request has it.")
    model_name: str
    model_version: str
    outputs: list[OutputTensor]


async def _model(request: Request, service: StartedService) -> ImageClassifier:
    """Return the classifier if it is the one that the path names."""
    classifier = service.classifier
    known = classifier.model
    name, version = request.path_params["model"], request.path_params.get("version", known.version)
    if name != known.name:
        raise UnknownModel(f"There is no model of that name; the one that is served is {known.name}.")
    if version != known.version:
        raise UnknownModel(f"There is no such version of {name}; the one that is served is {known.version}.")
    return classifier


NamedModel = Annotated[ImageClassifier, Depends(_model)]


_NAMED, _VERSIONED = path_parameters("model"), path_parameters("model", "version")
_LIVE = {**answered("It is.", "v2_live"), **refused(foreign=True)}
_READY = {**answered("They may.", "v2_ready"), **refused(NotReady, foreign=True)}
_MODEL_READY = {
    **answered("It is.", "v2_model_ready"),
    **refused(UnknownModel, NotReady, foreign=True),
}
_MODEL = {
    **answered("Inputs, of which a request sends one, and outputs.", "v2_model"),
    **refused(UnknownModel, NotReady, foreign=True),
}
_SERVER = {**answered("The server.", "v2_server"), **refused(foreign=True)}
_INFERENCE = {
    **answered(
        "Tensors; where some are binary, the JSON part has as many bytes as `Inference-Header-Content-Length` says.",
        "v2_inference",
        others={"application/octet-stream": examples.BYTES},
    ),
    **refused(
        MalformedJSON,
        InvalidTensor,
        UnknownModel,
        TooManyImages,
        UnsupportedMediaType,
        *document.IMAGE,
        *document.BODY,
        *document.INFERENCE,
        foreign=True,
    ),
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": inlined(InferenceRequest),
                "examples": {"sneaker": {"summary": "A sneaker", "value": examples.INFERENCE_REQUEST}},
            },
            "application/octet-stream": examples.BYTES,
        },
    }
}


@router.get("", summary="Which server it is", responses=_SERVER)
async def server() -> ServerMetadata:
    """Answer with the service's name and version, and the protocol's extensions that it has.

    ```console
    $ curl http://localhost:8080/v2
    ```
    """
    return ServerMetadata(
        name="resnet-service", version=__version__, extensions=["binary_tensor_data", "classification"]
    )


@health.get("/health/live", summary="Is the process alive, as KServe asks", responses=_LIVE)
async def live() -> Live:
    """Answer while the event loop turns.

    ```console
    $ curl http://localhost:8080/v2/health/live
    ```
    """
    return Live(live=True)


@health.get("/health/ready", summary="May requests be sent, as KServe asks", responses=_READY)
async def ready(service: StartedService) -> Ready:
    """Answer what `/health/ready` does.

    ```console
    $ curl http://localhost:8080/v2/health/ready
    ```
    """
    await check_ready(service)
    return Ready(ready=True)


@router.get(
    "/models/{model}/versions/{version}/ready",
    summary="Is this version ready",
    responses=_MODEL_READY,
    openapi_extra=_VERSIONED,
)
@router.get("/models/{model}/ready", summary="Is this model ready", responses=_MODEL_READY, openapi_extra=_NAMED)
async def model_ready(classifier: NamedModel, service: StartedService) -> ModelReady:
    """Answer what `/health/ready` does, for the model that is served; for any other, 404.

    ```console
    $ curl http://localhost:8080/v2/models/resnet18-fashion-mnist-int8/ready
    ```
    """
    await check_ready(service)
    return ModelReady(name=classifier.model.name, ready=True)


@router.get(
    "/models/{model}/versions/{version}",
    summary="What a version takes and gives",
    responses=_MODEL,
    openapi_extra=_VERSIONED,
)
@router.get("/models/{model}", summary="What a model takes and gives", responses=_MODEL, openapi_extra=_NAMED)
async def model(classifier: NamedModel) -> ServedModel:
    """Answer with the model's inputs, of which a request sends one, and its outputs.

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
    summary="Infer with a version",
    responses=_INFERENCE,
    openapi_extra={**_VERSIONED, **_BODY},
    response_model=InferenceResponse,
)
@inference.post(
    "/models/{model}/infer",
    summary="Infer, as Triton's and KServe's clients ask",
    responses=_INFERENCE,
    openapi_extra={**_NAMED, **_BODY},
    response_model=InferenceResponse,
)
async def answer(request: Request, classifier: NamedModel, service: StartedService, admitted: Admitted) -> Response:
    """Answer with probabilities, logits, or the best classes by name, of one or more images.

    ```console
    $ image=$(base64 -w0 sneaker.png)
    $ echo '{"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["'$image'"]}]}' |
        curl --json @- http://localhost:8080/v2/models/resnet18-fashion-mnist-int8/infer
    ```

    With the binary extension, the body is `application/octet-stream`: the JSON part, whose length the field
    `Inference-Header-Content-Length` says, then the tensors' bytes. FP32 tensors are rounded to 8-bit pixels.
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise UnsupportedMediaType("Compressed bodies are not read here; images are compressed already.")
    body = await request.body()
    answered = await admitted.run(infer, classifier, body, request.headers.get(HEADER), service.settings.max_batch)
    if answered.json_length is None:
        return Response(answered.body, media_type="application/json")
    headers = {HEADER: str(answered.json_length)}
    return Response(answered.body, headers=headers, media_type="application/octet-stream")
