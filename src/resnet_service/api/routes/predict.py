"""The routes; thin: body to executor to schema."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import PlainTextResponse, Response

from resnet_service import __version__
from resnet_service.api.admission import Admitted, InferenceRoute
from resnet_service.api.content_negotiation import preferred
from resnet_service.api.dependencies import StartedService
from resnet_service.api.localization import RequestedLocale
from resnet_service.api.middleware.body_limits import megabytes
from resnet_service.api.openapi import document, examples
from resnet_service.api.openapi.document import answered, refused
from resnet_service.api.problem_details import problem_of
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
from resnet_service.api.uploads import FIELD, FIELDS, read_image, read_images
from resnet_service.errors import (
    BodyTooLarge,
    InvalidClassId,
    InvalidTopK,
    MalformedForm,
    MissingImage,
    NotReady,
    OutputUnavailable,
    ServiceError,
    TooManyImages,
    UnsupportedLanguage,
    UnsupportedMediaType,
)
from resnet_service.inference.base import ImageClassifier
from resnet_service.inference.ranking import check_top_k
from resnet_service.inference.results import Classification
from resnet_service.models.label_translations import ORIGINAL
from resnet_service.types import MapForm

router = APIRouter()
# Probes: they need no key, since orchestrators and load balancers have none.
health = APIRouter()
# Whatever infers is a route of this one, and so shares its admission.
inference = APIRouter(route_class=InferenceRoute)

BATCH = "/predict/batch"

_JSON, _PNG, _BINARY = "application/json", "image/png", "application/octet-stream"

# What any of the routes that take one image can find wrong with a request.
_REFUSALS = (MalformedForm, UnsupportedMediaType, *document.IMAGE, *document.BODY, *document.INFERENCE)

_IMAGE: dict[str, Any] = {
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
            "image/*": examples.RAW,
            "application/octet-stream": examples.RAW,
        },
    }
}


_IMAGES: dict[str, Any] = {
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
    summary="Name what is in an image",
    tags=[document.CLASSIFY],
    openapi_extra=_IMAGE,
    responses={
        **answered("The most probable classes, best first.", "prediction"),
        **refused(*_REFUSALS, InvalidTopK, UnsupportedLanguage),
    },
)
async def predict(
    request: Request,
    service: StartedService,
    admitted: Admitted,
    reader: RequestedLocale,
    top_k: TopK = None,
) -> PredictResponse:
    """Answer with the most probable classes of one JPEG, PNG, WebP, GIF (first frame), BMP, TIFF or AVIF image.

    Send it as the field `file` of a form, or its bytes as the body. What decides is the bytes, not name or type.

    ```console
    $ curl -F file=@sneaker.png "http://localhost:8080/predict?top_k=3"
    $ curl --data-binary @sneaker.png -H "Content-Type: image/png" "http://localhost:8080/predict?top_k=3"
    ```
    """
    data = await read_image(request, service.settings.max_body_bytes)
    classifier = service.classifier
    answer = await admitted.run(classifier.classify, data, top_k)
    return PredictResponse.of(answer, classifier, reader.names(classifier))


@inference.post(
    BATCH,
    summary="Name what is in several images",
    tags=[document.CLASSIFY],
    openapi_extra=_IMAGES,
    responses={
        **answered("An answer for each image, in their order.", "batch"),
        **refused(
            MissingImage,
            MalformedForm,
            UnsupportedMediaType,
            TooManyImages,
            InvalidTopK,
            UnsupportedLanguage,
            *document.BODY,
            *document.INFERENCE,
        ),
    },
)
async def predict_batch(
    request: Request, service: StartedService, admitted: Admitted, reader: RequestedLocale, top_k: TopK = None
) -> BatchResponse:
    """Answer with the most probable classes of each image, in the order of the form's fields `files`.

    An image that cannot be answered fails alone: its result has an `error` instead of `predictions`.

    ```console
    $ curl -F files=@sneaker.png -F "files=hello;filename=notes.txt" "http://localhost:8080/predict/batch?top_k=1"
    ```
    """
    settings, classifier = service.settings, service.classifier
    wanted = check_top_k(top_k, len(classifier.model.labels))
    images = await read_images(request, settings.max_batch_bytes, settings.max_batch)
    pieces = [(classifier, image.data, wanted, settings.max_body_bytes) for image in images]
    answers = await admitted.run_each(_classify_one, pieces)
    said = [problem_of(answer) if isinstance(answer, ServiceError) else answer for answer in answers]
    return BatchResponse.of([image.name for image in images], said, classifier, reader.names(classifier))


def _classify_one(classifier: ImageClassifier, data: bytes, top_k: int, max_bytes: int) -> Classification:
    if len(data) > max_bytes:
        raise BodyTooLarge(f"The image has {megabytes(len(data))}; the limit is {megabytes(max_bytes)}.")
    return classifier.classify(data, top_k)


@inference.post(
    "/explain",
    summary="Show which places of an image speak for a class",
    tags=[document.LOOK_INTO],
    openapi_extra=_IMAGE,
    response_model=ExplainResponse,
    responses={
        **answered("The map, drawn or as numbers.", "explanation", others={_PNG: examples.BYTES}),
        **refused(*_REFUSALS, InvalidClassId, document.INVALID, UnsupportedLanguage, OutputUnavailable),
    },
)
async def explain(
    request: Request,
    service: StartedService,
    admitted: Admitted,
    reader: RequestedLocale,
    class_id: Annotated[int | None, Query(description="The class to explain; by default the most probable.")] = None,
    format_: Annotated[
        MapForm | None,
        Query(
            alias="format",
            description="`overlay`: a PNG of the image, at most 1024 pixels wide or high, with the map laid over the "
            "part that the network saw. `map`: that part's map alone, as a grey PNG. `json`: the numbers. By default "
            "what `Accept` prefers, `overlay` if nothing.",
        ),
    ] = None,
    accept: Accept = "",
) -> Response:
    """Answer with the class activation map (Zhou et al. 2016): how much each place adds to a class's logit.

    It is exact for networks that end in global average pooling and one linear layer, as ResNets do; with others it is
    501.

    ```console
    $ curl -F file=@sneaker.png http://localhost:8080/explain -o overlay.png
    $ curl -F file=@sneaker.png "http://localhost:8080/explain?format=json"
    ```
    """
    form = format_ or ("json" if preferred(accept, (_PNG, _JSON)) == _JSON else "overlay")
    data = await read_image(request, service.settings.max_body_bytes)
    classifier = service.classifier
    answer = await admitted.run(classifier.explain, data, class_id, form)
    if form == "json":
        said = ExplainResponse.of(answer, classifier, reader.names(classifier))
        return _json(said, {**reader.headers, "Vary": f"Accept, {reader.headers['Vary']}"})
    return Response(answer.png, media_type=_PNG, headers=_VARY)


@inference.post(
    "/embed",
    summary="Turn an image into a vector",
    tags=[document.LOOK_INTO],
    openapi_extra=_IMAGE,
    response_model=EmbedResponse,
    responses={
        **answered(
            "The vector; as `application/octet-stream`, where `Accept` prefers that, float32 in little-endian order.",
            "embedding",
            others={_BINARY: examples.BYTES},
        ),
        **refused(*_REFUSALS, document.INVALID, OutputUnavailable),
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
    """Answer with what the network's last layer takes: images that look alike to the network have like vectors.

    Vectors of different models, or of one model exported differently, have nothing to do with each other.

    ```console
    $ curl -F file=@sneaker.png http://localhost:8080/embed
    $ curl -F file=@sneaker.png -H "Accept: application/octet-stream" http://localhost:8080/embed -o vector.f32
    ```
    """
    data = await read_image(request, service.settings.max_body_bytes)
    classifier = service.classifier
    answer = await admitted.run(classifier.embed, data, normalize)
    if preferred(accept, (_JSON, _BINARY)) == _BINARY:
        return Response(answer.vector.astype("<f4").tobytes(), media_type=_BINARY, headers=_VARY)
    return _json(EmbedResponse.of(answer, classifier, normalized=normalize), _VARY)


# What a cache keeps of an answer is an answer only to who prefers the same form.
_VARY = {"Vary": "Accept"}


def _json(answer: ExplainResponse | EmbedResponse, headers: dict[str, str]) -> Response:
    return Response(answer.model_dump_json(), media_type=_JSON, headers=headers)


@router.get(
    "/metadata",
    summary="Which model is served",
    tags=[document.MODEL],
    responses={
        **answered("What the model's file says about itself, and how it is served.", "metadata"),
        **refused(NotReady),
    },
)
async def metadata(service: StartedService) -> MetadataResponse:
    """Answer with the model's name and version, and all that its file says about itself.

    ```console
    $ curl http://localhost:8080/metadata
    ```
    """
    classifier = service.classifier
    return MetadataResponse(
        model=Model.of(classifier.model),
        runtime=classifier.model.runtime,
        precision=classifier.model.precision,
        service_version=__version__,
        outputs=classifier.model.outputs,
        serving_since=service.serving_since,
        languages=[ORIGINAL, *classifier.model.translations],
        limits=Limits(max_body_bytes=service.settings.max_body_bytes, max_pixels=service.settings.max_pixels),
        metadata=classifier.model.metadata,
    )


@router.get(
    "/labels",
    summary="The classes it knows",
    tags=[document.MODEL],
    responses={
        **answered("The classes, in the order of the model's outputs.", "labels"),
        **refused(UnsupportedLanguage, NotReady),
    },
)
async def labels(service: StartedService, reader: RequestedLocale) -> LabelsResponse:
    """Answer with all classes of the model, in the order of its outputs.

    ```console
    $ curl http://localhost:8080/labels
    $ curl "http://localhost:8080/labels?lang=zh"
    ```
    """
    classifier = service.classifier
    known = classifier.model.labels
    names = reader.names(classifier)
    if names is None:
        return LabelsResponse(name=known.name, classes=list(known.classes))
    classes = [label.model_copy(update={"name": name}) for label, name in zip(known.classes, names, strict=True)]
    return LabelsResponse(name=known.name, classes=classes)


@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    tags=[document.OPERATE],
    response_class=PlainTextResponse,
    responses={
        **answered(
            "Figures; in OpenMetrics' format where `Accept` asks for it.",
            "metrics",
            media_type="text/plain",
        ),
        **refused(NotReady),
    },
)
async def metrics(request: Request, service: StartedService) -> Response:
    """Answer with what was counted and measured since the start, in Prometheus' text format, or in OpenMetrics'.

    ```console
    $ curl http://localhost:8080/metrics
    ```
    """
    figures, media_type = service.metrics.exposition(request.headers.get("accept", ""))
    return Response(figures, media_type=media_type)


@health.get(
    "/health/live",
    summary="Is the process alive",
    tags=[document.OPERATE],
    responses={**answered("It is.", "ok"), **refused()},
)
async def live() -> Health:
    """Answer while the event loop turns; when this fails, restart the process.

    ```console
    $ curl http://localhost:8080/health/live
    ```
    """
    return Health(status="ok")


@health.get(
    "/health/ready",
    summary="May requests be sent",
    tags=[document.OPERATE],
    responses={**answered("They may.", "ok"), **refused(NotReady)},
)
async def ready(service: StartedService) -> Health:
    """Answer once the model is loaded and has answered a trial image.

    503 before that, from SIGTERM on, and after an answer that was no finite numbers, until a trial image succeeds.

    ```console
    $ curl http://localhost:8080/health/ready
    ```
    """
    if not service.health.ready:
        raise NotReady("The service is not ready: it is shutting down, or checking its model. Try again in a moment.")
    return Health(status="ok")
