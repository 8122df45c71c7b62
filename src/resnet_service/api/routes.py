"""The routes; thin: body to executor to schema."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import PlainTextResponse, Response

from resnet_service import __version__
from resnet_service.api.admission import Admitted, InferenceRoute
from resnet_service.api.body import FIELD, FIELDS, read_picture, read_pictures
from resnet_service.api.languages import ReadBy
from resnet_service.api.limits import megabytes
from resnet_service.api.negotiation import preferred
from resnet_service.api.problems import documented, problem_of
from resnet_service.api.schemas import (
    BatchResponse,
    EmbedResponse,
    ExplainResponse,
    Health,
    LabelsResponse,
    Limits,
    MetadataResponse,
    Model,
    PredictResponse,
)
from resnet_service.api.state import StartedService
from resnet_service.classifier import Classification, ImageClassifier
from resnet_service.errors import BodyTooLarge, NotReady, ServiceError
from resnet_service.overlay import MapForm
from resnet_service.ranking import check_top_k
from resnet_service.translations import ORIGINAL

router = APIRouter()
# Probes: they need no key, since orchestrators and load balancers have none.
health = APIRouter()
# Whatever infers is a route of this one, and so shares its admission.
inference = APIRouter(route_class=InferenceRoute)

BATCH = "/predict/batch"

_JSON, _PNG, _BINARY = "application/json", "image/png", "application/octet-stream"

_REFUSALS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)

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


_PICTURES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELDS],
                    "properties": {FIELDS: {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            }
        },
    }
}

TopK = Annotated[
    int | None, Query(ge=1, description="How many classes to name; by default 5, or all where there are fewer.")
]
Accept = Annotated[str, Header(include_in_schema=False)]


@inference.post(
    "/predict",
    summary="Name what is in a picture",
    openapi_extra=_PICTURE,
    responses=documented(*_REFUSALS),
)
async def predict(
    request: Request,
    service: StartedService,
    admitted: Admitted,
    reader: ReadBy,
    top_k: TopK = None,
) -> PredictResponse:
    """Answer with the most probable classes of one JPEG, PNG, WebP, GIF (first frame), BMP, TIFF or AVIF picture.

    Send it as the field `file` of a form, or its bytes as the body. What decides is the bytes, not name or type.
    """
    data = await read_picture(request, service.settings.max_body_bytes)
    classifier = service.classifier
    answer = await admitted.run(classifier.classify, data, top_k)
    return PredictResponse.of(answer, classifier, reader.names(classifier))


@inference.post(
    BATCH,
    summary="Name what is in several pictures",
    openapi_extra=_PICTURES,
    responses=documented(*_REFUSALS),
)
async def predict_batch(
    request: Request, service: StartedService, admitted: Admitted, reader: ReadBy, top_k: TopK = None
) -> BatchResponse:
    """Answer with the most probable classes of each picture, in the order of the form's fields `files`.

    A picture that cannot be answered fails alone: its result has an `error` instead of `predictions`.
    """
    settings, classifier = service.settings, service.classifier
    wanted = check_top_k(top_k, len(classifier.labels))
    pictures = await read_pictures(request, settings.max_batch_bytes, settings.max_batch)
    pieces = [(classifier, picture.data, wanted, settings.max_body_bytes) for picture in pictures]
    answers = await admitted.run_each(_classify_one, pieces)
    said = [problem_of(answer) if isinstance(answer, ServiceError) else answer for answer in answers]
    return BatchResponse.of([picture.name for picture in pictures], said, classifier, reader.names(classifier))


def _classify_one(classifier: ImageClassifier, data: bytes, top_k: int, max_bytes: int) -> Classification:
    if len(data) > max_bytes:
        raise BodyTooLarge(f"The picture has {megabytes(len(data))}; the limit is {megabytes(max_bytes)}.")
    return classifier.classify(data, top_k)


@inference.post(
    "/explain",
    summary="Show which places of a picture speak for a class",
    openapi_extra=_PICTURE,
    response_model=ExplainResponse,
    responses={
        200: {"description": "The map, drawn or as numbers.", "content": {_PNG: {}}},
        **documented(*_REFUSALS, HTTPStatus.NOT_IMPLEMENTED),
    },
)
async def explain(
    request: Request,
    service: StartedService,
    admitted: Admitted,
    reader: ReadBy,
    class_id: Annotated[int | None, Query(description="The class to explain; by default the most probable.")] = None,
    format_: Annotated[
        MapForm | None,
        Query(
            alias="format",
            description="`overlay`: a PNG of the picture, at most 1024 pixels wide or high, with the map laid over the "
            "part that the network saw. `map`: that part's map alone, as a grey PNG. `json`: the numbers. By default "
            "what `Accept` prefers, `overlay` if nothing.",
        ),
    ] = None,
    accept: Accept = "",
) -> Response:
    """Answer with the class activation map (Zhou et al. 2016): how much each place adds to a class's logit.

    It is exact for networks that end in global average pooling and one linear layer, as ResNets do; with others it is
    501.
    """
    form = format_ or ("json" if preferred(accept, (_PNG, _JSON)) == _JSON else "overlay")
    data = await read_picture(request, service.settings.max_body_bytes)
    classifier = service.classifier
    answer = await admitted.run(classifier.explain, data, class_id, form)
    if form == "json":
        said = ExplainResponse.of(answer, classifier, reader.names(classifier))
        return _json(said, {**reader.headers, "Vary": f"Accept, {reader.headers['Vary']}"})
    return Response(answer.png, media_type=_PNG, headers=_VARY)


@inference.post(
    "/embed",
    summary="Turn a picture into a vector",
    openapi_extra=_PICTURE,
    response_model=EmbedResponse,
    responses={
        200: {
            "description": "The vector; as `application/octet-stream`, float32 in little-endian order.",
            "content": {_BINARY: {"schema": {"type": "string", "format": "binary"}}},
        },
        **documented(*_REFUSALS, HTTPStatus.NOT_IMPLEMENTED),
    },
)
async def embed(
    request: Request,
    service: StartedService,
    admitted: Admitted,
    normalize: Annotated[
        bool, Query(description="Scale it to length 1, so that the dot product of two is their cosine.")
    ] = False,
    accept: Accept = "",
) -> Response:
    """Answer with what the network's last layer takes: pictures that look alike to the network have like vectors.

    Vectors of different models, or of one model packed differently, have nothing to do with each other.
    """
    data = await read_picture(request, service.settings.max_body_bytes)
    classifier = service.classifier
    answer = await admitted.run(classifier.embed, data, normalize)
    if preferred(accept, (_JSON, _BINARY)) == _BINARY:
        return Response(answer.vector.astype("<f4").tobytes(), media_type=_BINARY, headers=_VARY)
    return _json(EmbedResponse.of(answer, classifier, normalized=normalize), _VARY)


# What a cache keeps of an answer is an answer only to who prefers the same form.
_VARY = {"Vary": "Accept"}


def _json(answer: ExplainResponse | EmbedResponse, headers: dict[str, str]) -> Response:
    return Response(answer.model_dump_json(), media_type=_JSON, headers=headers)


@router.get("/metadata", summary="Which model is served", responses=documented(HTTPStatus.SERVICE_UNAVAILABLE))
async def metadata(service: StartedService) -> MetadataResponse:
    """Answer with the model's name and version, and all that its file says about itself."""
    classifier = service.classifier
    return MetadataResponse(
        model=Model(**classifier.model._asdict()),
        runtime=classifier.runtime_name,
        precision=classifier.precision,
        service_version=__version__,
        outputs=classifier.outputs,
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


@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=PlainTextResponse,
    responses=documented(HTTPStatus.SERVICE_UNAVAILABLE),
)
async def metrics(request: Request, service: StartedService) -> Response:
    """Answer with what was counted and measured since the start, in Prometheus' text format, or in OpenMetrics'."""
    figures, media_type = service.metrics.exposition(request.headers.get("accept", ""))
    return Response(figures, media_type=media_type)


@health.get("/health/live", summary="Is the process alive")
async def live() -> Health:
    """Answer while the event loop turns; when this fails, restart the process."""
    return Health(status="ok")


@health.get("/health/ready", summary="May requests be sent", responses=documented(HTTPStatus.SERVICE_UNAVAILABLE))
async def ready(service: StartedService) -> Health:
    """Answer once the model is loaded and has answered a trial picture.

    503 before that, from SIGTERM on, and after an answer that was no finite numbers, until a trial picture succeeds.
    """
    if not service.health.ready:
        raise NotReady("The service is not ready: it is shutting down, or checking its model. Try again in a moment.")
    return Health(status="ok")
