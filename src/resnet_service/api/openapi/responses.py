"""The responses that a route declares: its success, and every error that it can answer."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from resnet_service import errors
from resnet_service.api.content_negotiation import JSON
from resnet_service.api.problem_details import INTERNAL_ERROR, INVALID_REQUEST, KINDS, MEDIA_TYPE, Kind, problem

# The errors of every route that reads a body, of every route that infers, and of every route that decodes an image.
BODY = (errors.BodyTooLarge, errors.BodyBudgetExceeded, errors.RequestTooSlow)
INFERENCE = (errors.Overloaded, errors.NotReady, errors.OutOfResources, errors.DeadlineExceeded)
IMAGE = (
    errors.MissingImage,
    errors.NotAnImage,
    errors.BrokenImage,
    errors.UnsupportedImage,
    errors.TooManyPixels,
    errors.DecodingTooLarge,
    errors.InvalidModelOutput,
)
# The errors of every route for one image in a form or as the body.
UPLOAD = (errors.MalformedForm, errors.UnsupportedMediaType, *IMAGE, *BODY, *INFERENCE)
# The connection answers these before it knows the route, and therefore always as problem documents.
_CONNECTION = (errors.MalformedRequest, errors.RequestTooSlow, errors.HeadTooLarge, errors.TooManyConnections)

_HEADERS = {
    HTTPStatus.TOO_MANY_REQUESTS: {
        "headers": {"Retry-After": {"description": "Seconds to wait before a retry.", "schema": {"type": "integer"}}}
    },
    HTTPStatus.UNAUTHORIZED: {
        "headers": {"WWW-Authenticate": {"description": "The accepted scheme.", "schema": {"type": "string"}}}
    },
}
_SCHEMAS: dict[str, dict[str, Any]] = {
    MEDIA_TYPE: {"$ref": "#/components/schemas/Problem"},
    JSON: {"$ref": "#/components/schemas/ErrorResponse"},
}

Responses = dict[int | str, dict[str, Any]]


def success(
    description: str, example: str, *, media_type: str = JSON, others: Mapping[str, Any] | None = None
) -> Responses:
    """Return the OpenAPI response with status 200.

    Args:
        description: The content.
        example: A name from ``examples.json``.
        media_type: The example's.
        others: Other media types of the response, with their OpenAPI descriptions.

    """
    shown = {example: {"$ref": f"#/components/examples/{example}"}}
    return {200: {"description": description, "content": {media_type: {"examples": shown}, **(others or {})}}}


def failures(*kinds: type[errors.ServiceError] | Kind, foreign: bool = False) -> Responses:
    """Return the OpenAPI responses for these errors, and for those that every route can answer.

    Args:
        kinds: Classes with a row in the table of ``problem_details``, or kinds without a class.
        foreign: Whether the route belongs to another protocol, whose errors are ``{"error": …}``.

    """
    own = JSON if foreign else MEDIA_TYPE
    listed = [(kind if isinstance(kind, Kind) else KINDS[kind], own) for kind in (*kinds, INTERNAL_ERROR)]
    listed += [(KINDS[error], MEDIA_TYPE) for error in _CONNECTION]
    responses: Responses = {}
    for kind, media_type in sorted(listed):
        _add(responses, kind, media_type)
    return responses


def unauthorized(*, foreign: bool) -> Responses:
    """Return the OpenAPI response of a route that needs an API key."""
    responses: Responses = {}
    _add(responses, KINDS[errors.Unauthorized], JSON if foreign else MEDIA_TYPE)
    return responses


def _add(responses: Responses, kind: Kind, media_type: str) -> None:
    response = responses.setdefault(
        int(kind.status), {"description": "", "content": {}, **_HEADERS.get(kind.status, {})}
    )
    line = f"- `{kind.code}`: {kind.meaning}"
    if line not in response["description"]:  # a request can be too slow in its headers and in its body
        response["description"] = f"{response['description']}\n{line}".strip()
    content = response["content"].setdefault(media_type, {"schema": _SCHEMAS[media_type], "examples": {}})
    content["examples"][kind.code] = {"$ref": f"#/components/examples/{_example_name(kind, media_type)}"}


def _example_name(kind: Kind, media_type: str) -> str:
    return kind.code if media_type == MEDIA_TYPE else f"{kind.code}.error"


def error_examples() -> dict[str, Any]:
    """Return an example of each error in each shape, by the names that the responses refer to."""
    named: dict[str, Any] = {}
    for kind in (*KINDS.values(), INVALID_REQUEST, INTERNAL_ERROR):
        values = {
            MEDIA_TYPE: problem(kind.status, kind.code, kind.example).model_dump(),
            JSON: {"error": kind.example},
        }
        for media_type, value in values.items():
            named[_example_name(kind, media_type)] = {"summary": kind.code, "value": value}
    return named
