"""``POST /``: image classification for ``huggingface_hub.InferenceClient``, with this service's URL as the model."""

from typing import Literal, NamedTuple

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from resnet_service.api.admission import Admitted, InferenceRoute
from resnet_service.api.base64_text import decode_base64
from resnet_service.api.content_negotiation import BINARY, JSON, media_type_of
from resnet_service.api.dependencies import StartedService
from resnet_service.api.openapi import bodies, document, examples, responses
from resnet_service.api.uploads import form_fields, read_body, read_image
from resnet_service.defaults import DEFAULT_TOP_K
from resnet_service.errors import InvalidTopK, MalformedForm, MalformedJSON
from resnet_service.inference.base import ImageClassifier
from resnet_service.inference.ranking import best, check_top_k, softmax
from resnet_service.inference.results import Timing
from resnet_service.validation import describe_first

router = APIRouter(route_class=InferenceRoute, tags=[document.HUGGING_FACE])


class Parameters(BaseModel):
    """The keyword arguments of the client."""

    model_config = ConfigDict(strict=True)

    top_k: int | None = Field(
        None, description=f"The number of classes to return, at most all; by default {DEFAULT_TOP_K}."
    )
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = Field(
        None, description="The function from logits to scores; by default softmax."
    )


class HubRequest(BaseModel):
    """An image with parameters; without parameters, the image's bytes alone can be the body."""

    model_config = ConfigDict(strict=True)

    inputs: str = Field(description="The image's bytes in base64, also with line breaks or as a data URL.")
    parameters: Parameters = Parameters()


class Element(BaseModel):
    """A class and its score."""

    label: str = Field(examples=["tabby"])
    score: float = Field(examples=[0.71])


class _Answer(NamedTuple):
    elements: list[Element]
    timing_ms: Timing


@router.post(
    "/",
    summary="Classify an image for Hugging Face's client",
    openapi_extra=bodies.request_body(
        {
            JSON: bodies.json_body(HubRequest, examples.HUGGING_FACE_REQUEST),
            "image/*": bodies.BYTES,
            BINARY: bodies.BYTES,
        }
    ),
    responses={
        **responses.success("The most probable classes, best first.", "hub"),
        **responses.failures(MalformedJSON, InvalidTopK, *responses.UPLOAD, foreign=True),
    },
)
async def image_classification(request: Request, service: StartedService, admitted: Admitted) -> list[Element]:
    """Return the most probable classes, as `InferenceClient(model=URL).image_classification(image)` expects.

    ```console
    $ curl --data-binary @sneaker.png -H "Content-Type: image/png" http://localhost:8080/
    $ curl --json '{"inputs": "'$(base64 -w0 sneaker.png)'", "parameters": {"top_k": 2}}' http://localhost:8080/
    ```
    """
    classifier = service.classifier
    if media_type_of(request) == JSON:
        answer = await admitted.run(_classify_json, classifier, await read_body(request))
    else:
        fields = await form_fields(request, Parameters.model_fields, service.settings.max_batch)
        data = await read_image(request)
        answer = await admitted.run(_classify, classifier, data, _parameters(dict(fields)))
    return answer.elements


def _parameters(fields: dict[str, str]) -> Parameters:
    try:
        return Parameters.model_validate_strings(fields)
    except ValidationError as error:
        raise MalformedForm(f"The form's parameters are not valid: {describe_first(error)}.") from error


def _classify_json(classifier: ImageClassifier, body: bytes) -> _Answer:
    """Parse and classify; in a thread, since megabytes of base64 would block the event loop."""
    try:
        request = HubRequest.model_validate_json(body)
    except ValidationError as error:
        raise MalformedJSON(f"The body is not an image with parameters: {describe_first(error)}.") from error
    try:
        data = decode_base64(request.inputs)
    except ValueError as error:
        raise MalformedJSON("inputs must be the image's bytes in base64, or a data URL with them.") from error
    return _classify(classifier, data, request.parameters)


def _classify(classifier: ImageClassifier, data: bytes, parameters: Parameters) -> _Answer:
    classes = classifier.model.labels.classes
    # Hugging Face's own pipelines return all classes where more are asked for.
    top_k = DEFAULT_TOP_K if parameters.top_k is None else parameters.top_k
    top_k = check_top_k(min(top_k, len(classes)), len(classes))
    logits, timing = classifier.score([data])
    scores = logits[0].astype(np.float64)
    match parameters.function_to_apply:
        case "softmax" | None:
            scores = softmax(scores)
        case "sigmoid":
            scores = 0.5 * (1 + np.tanh(scores / 2))  # 1 / (1 + exp(-x)), without overflow
    elements = [Element(label=classes[index].name, score=float(scores[index])) for index in best(logits[0], top_k)]
    return _Answer(elements, timing)
