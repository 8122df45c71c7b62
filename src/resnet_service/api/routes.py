"""The routes; thin: body to executor to schema."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from resnet_service import __version__
from resnet_service.api.admission import Admitted, InferenceRoute
from resnet_service.api.body import FIELD, read_picture
from resnet_service.api.languages import ReadBy
from resnet_service.api.problems import documented
from resnet_service.api.schemas import Health, LabelsResponse, Limits, MetadataResponse, Model, PredictResponse
from resnet_service.api.state import StartedService
from resnet_service.errors import NotReady
from resnet_service.translations import ORIGINAL

router = APIRouter()
# Whatever infers is a route of this one, and so shares its admission.
inference = APIRouter(route_class=InferenceRoute)

_PICTURE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {FIELD: {"type": "string", "format": "binary"}},
                }
            },
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@inference.post(
    "/predict",
    summary="Name what is in a picture",
    openapi_extra=_PICTURE,
    responses=documented(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    ),
)
async def predict(
    request: Request,
    service: StartedService,
    admitted: Admitted,
    reader: ReadBy,
    top_k: Annotated[
        int | None, Query(ge=1, description="How many classes to name; by default 5, or all where there are fewer.")
    ] = None,
) -> PredictResponse:
    """Answer with the most probable classes of one JPEG, PNG, WebP, GIF (first frame), BMP, TIFF or AVIF picture.

    Send it as the field `file` of a form, or its bytes as the body. What decides is the bytes, not name or type.
    """
    data = await read_picture(request, service.settings.max_body_bytes)
    classifier = service.classifier
    answer = await admitted.run(classifier.classify, data, top_k)
    return PredictResponse.of(answer, classifier, reader.names(classifier))


@router.get("/metadata", summary="Which model is served", responses=documented(HTTPStatus.SERVICE_UNAVAILABLE))
async def metadata(service: StartedService) -> MetadataResponse:
    """Answer with the model's name and version, and all that its file says about itself."""
    classifier = service.classifier
    return MetadataResponse(
        model=Model(**classifier.model._asdict()),
        runtime=classifier.runtime_name,
        precision=classifier.precision,
        service_version=__version__,
        serving_since=service.serving_since,
        languages=[ORIGINAL, *classifier.translations],
        limits=Limits(max_body_bytes=service.settings.max_body_bytes, max_pixels=service.settings.max_pixels),
        metadata=classifier.metadata,
    )


@router.get(
    "/labels",
    summary="The classes it knows",
    responses=documented(HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE),
)
async def labels(service: StartedService, reader: ReadBy) -> LabelsResponse:
    """Answer with all classes of the model, in the order of its outputs."""
    classifier = service.classifier
    known = classifier.labels
    names = reader.names(classifier)
    if names is None:
        return LabelsResponse(name=known.name, classes=list(known.classes))
    classes = [label.model_copy(update={"name": name}) for label, name in zip(known.classes, names, strict=True)]
    return LabelsResponse(name=known.name, classes=classes)


@router.get("/health/live", summary="Is the process alive")
async def live() -> Health:
    """Answer while the event loop turns; when this fails, restart the process."""
    return Health(status="ok")


@router.get("/health/ready", summary="May requests be sent", responses=documented(HTTPStatus.SERVICE_UNAVAILABLE))
async def ready(service: StartedService) -> Health:
    """Answer once the model is loaded and has answered a trial picture.

    503 before that, from SIGTERM on, and after an answer that was no finite numbers, until a trial picture succeeds.
    """
    if not service.health.ready:
        raise NotReady("The service is not ready: it is shutting down, or checking its model. Try again in a moment.")
    return Health(status="ok")
