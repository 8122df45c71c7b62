"""``/embed``: the embedding of an image."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from resnet_service.api.admission import Admitted, InferenceRoute
from resnet_service.api.content_negotiation import BINARY, JSON, VARY, Accept, preferred_media_type
from resnet_service.api.dependencies import StartedService
from resnet_service.api.openapi import bodies, document, responses
from resnet_service.api.problem_details import INVALID_REQUEST
from resnet_service.api.schemas import EmbedResponse
from resnet_service.api.uploads import read_image
from resnet_service.errors import OutputUnavailable

router = APIRouter(route_class=InferenceRoute, tags=[document.EXPLAIN_AND_EMBED])


@router.post(
    "/embed",
    summary="Compute the embedding of an image",
    openapi_extra=bodies.IMAGE,
    response_model=EmbedResponse,
    responses={
        **responses.success(
            "The embedding as JSON; or as little-endian float32, if `Accept` prefers `application/octet-stream`.",
            "embedding",
            others={BINARY: bodies.BYTES},
        ),
        **responses.failures(*responses.UPLOAD, INVALID_REQUEST, OutputUnavailable),
    },
)
async def embed(
    request: Request,
    service: StartedService,
    admitted: Admitted,
    normalize: Annotated[
        bool,
        Query(
            description="Scale the embedding to length 1, so that the dot product of two is their cosine similarity."
        ),
    ] = False,
    accept: Accept = "",
) -> Response:
    """Return the image's embedding, the input of the network's last layer. Similar images have similar embeddings.

    Embeddings of different models, or of different exports of one model, cannot be compared.

    ```console
    $ curl -F file=@sneaker.png http://localhost:8080/embed
    $ curl -F file=@sneaker.png -H "Accept: application/octet-stream" http://localhost:8080/embed -o vector.f32
    ```
    """
    data = await read_image(request)
    classifier = service.classifier
    answer = await admitted.run(classifier.embed, data, normalize)
    if preferred_media_type(accept, (JSON, BINARY)) == BINARY:
        return Response(answer.vector.astype("<f4").tobytes(), media_type=BINARY, headers=VARY)
    body = EmbedResponse.of(answer, classifier, normalized=normalize)
    return Response(body.model_dump_json(), media_type=JSON, headers=VARY)
