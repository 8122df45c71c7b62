"""The Open Inference Protocol, version 2, as Triton's and KServe's clients speak it; its work is in ``tensors``."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from resnet_service import __version__
from resnet_service.api.admission import Admitted, InferenceRoute
from resnet_service.api.problems import documented
from resnet_service.api.routes import ready as check_ready
from resnet_service.api.schemas import inlined
from resnet_service.api.state import StartedService
from resnet_service.api.tensors import HEADER, InferenceRequest, TensorMetadata, infer, inputs, outputs
from resnet_service.classifier import ImageClassifier
from resnet_service.errors import UnknownModel, UnsupportedMediaType

router = APIRouter(prefix="/v2")
health = APIRouter(prefix="/v2")  # of whom probes ask, who have no key
inference = APIRouter(prefix="/v2", route_class=InferenceRoute)


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


def _parameters(*names: str) -> dict[str, Any]:
    """Return OpenAPI's description of a path's parameters: the routes read them all in one dependency."""
    schema = {"type": "string"}
    return {"parameters": [{"name": name, "in": "path", "required": True, "schema": schema} for name in names]}


_NAMED, _VERSIONED = _parameters("model"), _parameters("model", "version")
_UNKNOWN = documented(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE, foreign=True)
_NOT_READY = documented(HTTPStatus.SERVICE_UNAVAILABLE, foreign=True)
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": inlined(InferenceRequest)},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.get("", summary="Which server it is")
async def server() -> ServerMetadata:
    """Answer with the service's name and version, and the protocol's extensions that it has."""
    return ServerMetadata(
        name="resnet-service", version=__version__, extensions=["binary_tensor_data", "classification"]
    )


@health.get("/health/live", summary="Is the process alive, as KServe asks")
async def live() -> Live:
    """Answer while the event loop turns."""
    return Live(live=True)


@health.get("/health/ready", summary="May requests be sent, as KServe asks", responses=_NOT_READY)
async def ready(service: StartedService) -> Ready:
    """Answer what `/health/ready` does."""
    await check_ready(service)
    return Ready(ready=True)


@router.get("/models/{model}/ready", summary="Is this model ready", responses=_UNKNOWN, openapi_extra=_NAMED)
@router.get(
    "/models/{model}/versions/{version}/ready",
    summary="Is this version ready",
    responses=_UNKNOWN,
    openapi_extra=_VERSIONED,
)
async def model_ready(classifier: NamedModel, service: StartedService) -> ModelReady:
    """Answer what `/health/ready` does, for the model that is served; for any other, 404."""
    await check_ready(service)
    return ModelReady(name=classifier.model.name, ready=True)


@router.get("/models/{model}", summary="What a model takes and gives", responses=_UNKNOWN, openapi_extra=_NAMED)
@router.get(
    "/models/{model}/versions/{version}",
    summary="What a version takes and gives",
    responses=_UNKNOWN,
    openapi_extra=_VERSIONED,
)
async def model(classifier: NamedModel) -> ServedModel:
    """Answer with the model's inputs, of which a request sends one, and its outputs."""
    return ServedModel(
        name=classifier.model.name,
        versions=[classifier.model.version],
        platform=classifier.runtime_name,
        inputs=inputs(classifier.metadata),
        outputs=outputs(classifier.labels),
    )


_FAILURES = documented(
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
    foreign=True,
)


@inference.post(
    "/models/{model}/infer",
    summary="Infer, as Triton's and KServe's clients ask",
    responses=_FAILURES,
    openapi_extra={**_NAMED, **_BODY},
    response_class=Response,
)
@inference.post(
    "/models/{model}/versions/{version}/infer",
    summary="Infer with a version",
    responses=_FAILURES,
    openapi_extra={**_VERSIONED, **_BODY},
    response_class=Response,
)
async def answer(request: Request, classifier: NamedModel, service: StartedService, admitted: Admitted) -> Response:
    """Answer with probabilities, logits, or the best classes by name, of one or more pictures."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise UnsupportedMediaType("Compressed bodies are not read here; pictures are compressed already.")
    body = await request.body()
    answered = await admitted.run(infer, classifier, body, request.headers.get(HEADER), service.settings.max_batch)
    if answered.json_length is None:
        return Response(answered.body, media_type="application/json")
    headers = {HEADER: str(answered.json_length)}
    return Response(answered.body, headers=headers, media_type="application/octet-stream")
