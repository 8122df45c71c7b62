"""The OpenAPI document: every answer that an operation can give, with its codes and an example of each.

Which errors a route has, the route says; what each is, the tree in ``errors`` and the table in ``problems`` do.
"""

import json
import re
from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.routing import APIRoute

from resnet_service import errors
from resnet_service.api.openapi import examples
from resnet_service.api.problem_details import INTERNAL, MEDIA_TYPE, STATUS, is_foreign, problem
from resnet_service.inference.base import ServedModel

CLASSIFY, LOOK_INTO, MODEL, OPERATE, V2, HUB = (
    "Classify",
    "Explain and embed",
    "Model",
    "Health and metrics",
    "Open Inference Protocol",
    "Hugging Face",
)
TAGS = [
    {"name": CLASSIFY, "description": "What is in an image, or in each of several."},
    {"name": LOOK_INTO, "description": "What speaks for an answer, and an image as a vector."},
    {"name": MODEL, "description": "What is being served."},
    {"name": OPERATE, "description": "For orchestrators, load balancers and Prometheus."},
    {
        "name": V2,
        "description": "Version 2, as Triton's and KServe's clients speak it. Errors have its shape, `{\"error\": …}`.",
    },
    {"name": HUB, "description": 'As its `InferenceClient` asks. Errors have the shape that it reads, `{"error": …}`.'},
]

DESCRIPTION = f"""Classifies images with the one model that it was started with.

The examples are answers of the model of the repository (`--checkpoint checkpoints/{examples.MODEL}.onnx`) for an image
that every service has:

```console
$ curl -O http://localhost:8080{examples.PATH}
```

Each answer carries an `X-Request-ID`, which the service's log repeats. Each error has a `code` that stays, and a
`detail` for people.
"""


class Kind(NamedTuple):
    """One kind of error as it is answered: what it means, and the sentence of its example."""

    status: HTTPStatus
    code: str
    meaning: str
    detail: str


# What these say to a client, with the limits that the service has where nothing else was set. The routes differ in how
# they put some; a test sees that each is said.
_DETAILS: dict[type[errors.ServiceError], str] = {
    errors.Unauthorized: "This needs an API key. Send one as `Authorization: Bearer KEY` or as `X-API-Key: KEY`.",
    errors.MissingImage: "The request carries no image. Send a form with the image in the field 'file' "
    "(curl -F file=@cat.jpg), or the bytes themselves as image/*.",
    errors.MalformedForm: "The form cannot be read: Missing boundary in multipart. Send a form with the image in the "
    "field 'file' (curl -F file=@cat.jpg), or the bytes themselves as image/*.",
    errors.MalformedJSON: "The body is not an inference request: Invalid JSON: EOF while parsing an object at line 1 "
    "column 1.",
    errors.InvalidTensor: "There is no such input; send one of image, pixels, normalized.",
    errors.TooManyImages: "The form has more than 16 images, the limit; send them in several requests.",
    errors.UnknownModel: f"There is no model of that name; the one that is served is {examples.MODEL}.",
    errors.UnsupportedMediaType: "A body of type text/plain is not read here. Send a form with the image in the "
    "field 'file' (curl -F file=@cat.jpg), or the bytes themselves as image/*.",
    errors.NotAnImage: "This is a PDF document; accepted are JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF.",
    errors.BrokenImage: "This looks like a PNG image, but it is damaged or incomplete and cannot be decoded.",
    errors.BodyTooLarge: "The request body has 31.0 MB or more; the limit is 10.0 MB.",
    errors.TooManyPixels: "The image has 56,000,000 pixels (8000x7000); the limit is 50,000,000.",
    errors.InvalidTopK: "top_k is 11; this model has 10 classes, so it must lie in 1 to 10.",
    errors.InvalidClassId: "class_id is 10; this model has 10 classes, so it must lie in 0 to 9.",
    errors.UnsupportedLanguage: "lang is 'fr'; class names are in one of: en, zh.",
    errors.HeadTooLarge: "The request line and headers may have 16384 bytes and 100 fields.",
    errors.MalformedRequest: "This is not a well-formed HTTP request.",
    errors.RequestTooSlow: "The request's headers came too slowly.",
    errors.Overloaded: "The service is busy. Try again in 1 s.",
    errors.BodyBudgetExceeded: "The service holds as many bytes of images as it may. Try again in 1 s.",
    errors.TooManyConnections: "Too many connections are open. Try again in a moment.",
    errors.DeadlineExceeded: "There was no answer within 30 s. Try again later.",
    errors.NotReady: "The service is not ready: it is shutting down, or checking its model. Try again in a moment.",
    errors.OutputUnavailable: "vgg11 does not end in global average pooling and one linear layer, as class activation "
    "maps need; answers of this model cannot be explained.",
    errors.InvalidModelOutput: INTERNAL,
}

# Two kinds that no class of ours stands for.
INVALID = Kind(
    HTTPStatus.UNPROCESSABLE_ENTITY,
    "invalid_request",
    "A parameter that cannot be read.",
    "normalize: Input should be a valid boolean, unable to interpret input.",
)
_UNFORESEEN = Kind(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", "What nobody has foreseen.", INTERNAL)

# What is answered where there is no operation, and so in none's responses.
_NO_OPERATION = (
    Kind(HTTPStatus.NOT_FOUND, "not_found", "There is no such path.", ""),
    Kind(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", "The path is there, but not for this method.", ""),
)

# What a connection answers before it knows of any route, and therefore in our own shape everywhere.
_ANYWHERE = (errors.MalformedRequest, errors.RequestTooSlow, errors.HeadTooLarge, errors.TooManyConnections)
# Wherever a body is read, and wherever there is inference.
BODY = (errors.BodyTooLarge, errors.BodyBudgetExceeded, errors.RequestTooSlow)
INFERENCE = (errors.Overloaded, errors.NotReady, errors.DeadlineExceeded)
# Of what is no image, or none that is read.
IMAGE = (errors.MissingImage, errors.NotAnImage, errors.BrokenImage, errors.TooManyPixels, errors.InvalidModelOutput)

_HEADERS = {
    HTTPStatus.TOO_MANY_REQUESTS: {
        "headers": {"Retry-After": {"description": "Seconds after which to come again.", "schema": {"type": "integer"}}}
    },
    HTTPStatus.UNAUTHORIZED: {
        "headers": {"WWW-Authenticate": {"description": "Which scheme is wanted.", "schema": {"type": "string"}}}
    },
}
_SHAPES: dict[str, dict[str, Any]] = {
    MEDIA_TYPE: {"$ref": "#/components/schemas/Problem"},
    # As the Open Inference Protocol has errors, and Hugging Face.
    "application/json": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
}
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key as `Authorization: Bearer KEY`."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key as `X-API-Key: KEY`."},
}
_PARAMETERS = {
    "model": {"description": "Its name, as `/metadata` has it.", "example": examples.MODEL},
    "version": {"description": "The version that is served, as `/metadata` has it.", "example": examples.VERSION},
}


def answered(
    description: str, example: str, *, media_type: str = "application/json", others: Mapping[str, Any] | None = None
) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI response of success.

    Args:
        description: What comes.
        example: One of the names in ``examples.ANSWERS``.
        media_type: The example's.
        others: Further media types of the answer, and what OpenAPI has of each.

    """
    shown = {example: {"$ref": f"#/components/examples/{example}"}}
    return {200: {"description": description, "content": {media_type: {"examples": shown}, **(others or {})}}}


def refused(*kinds: type[errors.ServiceError] | Kind, foreign: bool = False) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses for these errors, and for those that any request can meet.

    Args:
        kinds: Each with a row in ``_DETAILS``.
        foreign: In the shape of other people's protocols.

    """
    responses: dict[int | str, dict[str, Any]] = {}
    for kind in (*sorted(kinds, key=_rank), _UNFORESEEN):
        _add(responses, kind, foreign=foreign)
    for kind in _ANYWHERE:
        _add(responses, kind, foreign=False)
    return dict(sorted(responses.items(), key=lambda response: int(response[0])))


def problems_table() -> str:
    """Return what a client can be told as a Markdown table, as ``docs/api.md`` shows it."""
    kinds = [*map(_kind, _DETAILS), INVALID, _UNFORESEEN, *_NO_OPERATION]
    rows = ["| status | `code` | when |", "|---|---|---|"]
    rows += [f"| {kind.status:d} | `{kind.code}` | {kind.meaning} |" for kind in sorted(kinds)]
    return "\n".join(rows)


def operation_id(route: APIRoute) -> str:
    """Name an operation as its function is named; those of the Open Inference Protocol with what tells them apart."""
    if not route.path.startswith("/v2"):
        return route.name
    return f"v2_{route.name}" + ("_of_version" if "{version}" in route.path else "")


def path_parameters(*names: str) -> dict[str, Any]:
    """Return OpenAPI's description of a path's parameters, for routes that read them in a dependency."""
    return {"parameters": [{"$ref": f"#/components/parameters/{name}"} for name in names]}


def describe(app: FastAPI, open_paths: Collection[str] | None) -> None:
    """Complete the document that FastAPI makes of the routes of ``app``.

    Args:
        app: Where it is running, the examples name the model that it serves, so that they can be tried.
        open_paths: What needs no key to be read; ``None`` where there are no keys.

    """
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(plain(), open_paths)
        service = getattr(app.state, "service", None)
        return app.openapi_schema if service is None else _for(service.classifier.model, app.openapi_schema)

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _rank(said: type[errors.ServiceError] | Kind) -> int:
    """Say where an error comes among those of its status: as in the table above; what is no class of ours, last."""
    return len(_DETAILS) if isinstance(said, Kind) else list(_DETAILS).index(said)


def _add(responses: dict[Any, dict[str, Any]], said: type[errors.ServiceError] | Kind, *, foreign: bool) -> None:
    """Add one kind of error to the responses of an operation."""
    kind = _kind(said)
    response = responses.setdefault(
        int(kind.status), {"description": "", "content": {}, **_HEADERS.get(kind.status, {})}
    )
    line = f"- `{kind.code}`: {kind.meaning}"
    if line not in response["description"].split("\n"):  # a request can be too slow in its head and in its body
        response["description"] = "\n".join(filter(None, (response["description"], line)))
    media_type = "application/json" if foreign else MEDIA_TYPE
    content = response["content"].setdefault(media_type, {"schema": _SHAPES[media_type], "examples": {}})
    content["examples"][kind.code] = {"$ref": f"#/components/examples/{_example_name(kind, foreign=foreign)}"}


def _kind(said: type[errors.ServiceError] | Kind) -> Kind:
    if isinstance(said, Kind):
        return said
    meaning = (said.__doc__ or "").partition(";")[0].strip().rstrip(".")
    return Kind(STATUS[said], said.code, meaning.replace("``", "`") + ".", _DETAILS[said])


def _example_name(kind: Kind, *, foreign: bool) -> str:
    return f"{kind.code}.error" if foreign else kind.code


def _examples() -> dict[str, Any]:
    """Return all examples of answers, and one of each error in each shape."""
    found: dict[str, Any] = dict(examples.ANSWERS)
    for kind in (*map(_kind, _DETAILS), INVALID, _UNFORESEEN):
        ours = problem(kind.status, kind.code, kind.detail).model_dump()
        found[_example_name(kind, foreign=False)] = {"summary": kind.code, "value": ours}
        found[_example_name(kind, foreign=True)] = {"summary": kind.code, "value": {"error": kind.detail}}
    return found


def _completed(schema: dict[str, Any], open_paths: Collection[str] | None) -> dict[str, Any]:
    """Add what FastAPI does not know: keys, and what the operations refer to."""
    components = schema.setdefault("components", {})
    if open_paths is not None:
        components["securitySchemes"] = _SCHEMES
        schema["security"] = [{name: []} for name in _SCHEMES]
        for path, operations in schema["paths"].items():
            for method, operation in operations.items():
                if path in open_paths and method == "get":
                    operation["security"] = []
                else:
                    answers: dict[str, Any] = {}
                    _add(answers, errors.Unauthorized, foreign=is_foreign(path))
                    operation["responses"] |= {str(status): answer for status, answer in answers.items()}
    for path, operations in schema["paths"].items():
        if "{version}" in path:  # described by the same function as the path without
            for operation in operations.values():
                of_version = f"/models/{examples.MODEL}/versions/{examples.VERSION}"
                operation["description"] = operation["description"].replace(f"/models/{examples.MODEL}", of_version)
    components["parameters"] = {
        name: {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, **about}
        for name, about in _PARAMETERS.items()
    }
    # FastAPI would leave out what is null in them.
    used = set(re.findall(r'"#/components/examples/([^"]+)"', json.dumps(schema["paths"])))
    components["examples"] = {name: example for name, example in _examples().items() if name in used}
    return schema


def _for(model: ServedModel, schema: dict[str, Any]) -> dict[str, Any]:
    """Return the document with the name and the version of the model that is served where a request has to say them."""
    served = {"model": model.name, "version": model.version}
    parameters = {
        name: {**parameter, "example": served[name]} for name, parameter in schema["components"]["parameters"].items()
    }
    paths = {
        path: {
            method: {**operation, "description": _asking(operation["description"], model)}
            for method, operation in operations.items()
        }
        for path, operations in schema["paths"].items()
    }
    return {**schema, "components": {**schema["components"], "parameters": parameters}, "paths": paths}


def _asking(description: str, model: ServedModel) -> str:
    quoted = re.sub(
        r"[^\w.~-]", lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), model.name, flags=re.A
    )
    return description.replace(f"/models/{examples.MODEL}", f"/models/{quoted}").replace(
        f"/versions/{examples.VERSION}", f"/versions/{model.version}"
    )
