"""``/predict`` and ``/predict/batch``: the most probable classes of one image or several."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from resnet_service.api.admission import Admitted, InferenceRoute
from resnet_service.api.dependencies import StartedService
from resnet_service.api.localization import RequestedLocale
from resnet_service.api.openapi import bodies, document, responses
from resnet_service.api.problem_details import note_decoder_failure, problem_of
from resnet_service.api.schemas import BatchResponse, PredictResponse
from resnet_service.api.units import megabytes
from resnet_service.api.uploads import check_content, read_image, read_images
from resnet_service.defaults import DEFAULT_TOP_K
from resnet_service.errors import (
    BodyTooLarge,
    InvalidTopK,
    MalformedForm,
    MissingImage,
    ServiceError,
    TooManyImages,
    UnsupportedLanguage,
    UnsupportedMediaType,
)
from resnet_service.inference.base import ImageClassifier
from resnet_service.inference.ranking import check_top_k
from resnet_service.inference.results import Classification

BATCH_PATH = "/predict/batch"

router = APIRouter(route_class=InferenceRoute, tags=[document.CLASSIFY])

TopK = Annotated[
    int | None,
    Query(
        ge=1,
        description=f"The number of classes to return; by default {DEFAULT_TOP_K}, or all of a model with fewer.",
    ),
]


@router.post(
    "/predict",
    summary="Classify an image",
    openapi_extra=bodies.IMAGE,
    responses={
        **responses.success("The most probable classes, best first.", "prediction"),
        **responses.failures(*responses.UPLOAD, InvalidTopK, UnsupportedLanguage),
    },
)
async def predict(
    request: Request,
    service: StartedService,
    admitted: Admitted,
    locale: RequestedLocale,
    top_k: TopK = None,
) -> PredictResponse:
    """Return the most probable classes of one image.

    Send the image in the field `file` of a form, or its bytes as the body. The format is detected from the bytes, not
    from the file name or the content type.

    ```console
    $ curl -F file=@sneaker.png "http://localhost:8080/predict?top_k=3"
    $ curl --data-binary @sneaker.png -H "Content-Type: image/png" "http://localhost:8080/predict?top_k=3"
    ```
    """
    data = await read_image(request)
    classifier = service.classifier
    answer = await admitted.run(classifier.classify, data, top_k)
    return PredictResponse.of(answer, classifier, locale.names(classifier))


@router.post(
    BATCH_PATH,
    summary="Classify several images",
    openapi_extra=bodies.IMAGES,
    responses={
        **responses.success("A result for each image, in the order of the request.", "batch"),
        **responses.failures(
            MissingImage,
            MalformedForm,
            UnsupportedMediaType,
            TooManyImages,
            InvalidTopK,
            UnsupportedLanguage,
            *responses.BODY,
            *responses.INFERENCE,
        ),
    },
)
async def predict_batch(
    request: Request, service: StartedService, admitted: Admitted, locale: RequestedLocale, top_k: TopK = None
) -> BatchResponse:
    """Return the most probable classes of each image in the form's fields `files`, in their order.

    If one image cannot be classified, its result has an `error` instead of `predictions`; the others are not affected.

    ```console
    $ curl -F files=@sneaker.png -F "files=hello;filename=notes.txt" "http://localhost:8080/predict/batch?top_k=1"
    ```
    """
    settings, classifier = service.settings, service.classifier
    count = check_top_k(top_k, len(classifier.model.labels))
    images = await read_images(request, settings.max_batch)
    pieces = [(classifier, image.data, count, settings.max_body_bytes) for image in images]
    answers = await admitted.run_each(_classify, pieces)
    for answer in answers:
        if isinstance(answer, ServiceError):
            note_decoder_failure(answer, service.metrics)
    results = [problem_of(answer) if isinstance(answer, ServiceError) else answer for answer in answers]
    return BatchResponse.of([image.name for image in images], results, classifier, locale.names(classifier))


def _classify(classifier: ImageClassifier, data: bytes, top_k: int, max_bytes: int) -> Classification:
    if len(data) > max_bytes:
        raise BodyTooLarge(f"The image has {megabytes(len(data))}; the limit is {megabytes(max_bytes)}.")
    check_content(data)
    return classifier.classify(data, top_k)
