"""``/explain``: the class activation map of an image."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from resnet_service.api.admission import Admitted, InferenceRoute
from resnet_service.api.content_negotiation import JSON, PNG, VARY, Accept, preferred_media_type
from resnet_service.api.dependencies import StartedService
from resnet_service.api.localization import RequestedLocale
from resnet_service.api.openapi import bodies, document, responses
from resnet_service.api.problem_details import INVALID_REQUEST
from resnet_service.api.schemas import ExplainResponse
from resnet_service.api.uploads import read_image
from resnet_service.errors import InvalidClassId, OutputUnavailable, UnsupportedLanguage
from resnet_service.types import MapForm

router = APIRouter(route_class=InferenceRoute, tags=[document.EXPLAIN_AND_EMBED])


@router.post(
    "/explain",
    summary="Show which regions of an image support a class",
    openapi_extra=bodies.IMAGE,
    response_model=ExplainResponse,
    responses={
        **responses.success("The map, as an image or as numbers.", "explanation", others={PNG: bodies.BYTES}),
        **responses.failures(
            *responses.UPLOAD, InvalidClassId, INVALID_REQUEST, UnsupportedLanguage, OutputUnavailable
        ),
    },
)
async def explain(
    request: Request,
    service: StartedService,
    admitted: Admitted,
    locale: RequestedLocale,
    class_id: Annotated[int | None, Query(description="The class to explain; by default the most probable.")] = None,
    format_: Annotated[
        MapForm | None,
        Query(
            alias="format",
            description="`overlay`: a PNG of the image, at most 1024 pixels wide or high, with the map drawn over the "
            "region that the network saw. `map`: the map of that region alone, as a grey PNG. `json`: the numbers. By "
            "default, `Accept` decides between `overlay` and `json`; without a preference, `overlay`.",
        ),
    ] = None,
    accept: Accept = "",
) -> Response:
    """Return the class activation map (Zhou et al. 2016): how much each region of the image adds to a class's logit.

    The map is exact for networks that end in global average pooling and one linear layer, such as ResNets. For other
    networks, the response is 501.

    ```console
    $ curl -F file=@sneaker.png http://localhost:8080/explain -o overlay.png
    $ curl -F file=@sneaker.png "http://localhost:8080/explain?format=json"
    ```
    """
    form = format_ or ("json" if preferred_media_type(accept, (PNG, JSON)) == JSON else "overlay")
    data = await read_image(request)
    classifier = service.classifier
    answer = await admitted.run(classifier.explain, data, class_id, form)
    if form != "json":
        return Response(answer.png, media_type=PNG, headers=VARY)
    body = ExplainResponse.of(answer, classifier, locale.names(classifier))
    headers = {**locale.headers, "Vary": f"{VARY['Vary']}, {locale.headers['Vary']}"}
    return Response(body.model_dump_json(), media_type=JSON, headers=headers)
