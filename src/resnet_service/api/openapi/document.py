"""The OpenAPI document: tags, introduction, and what FastAPI does not derive from the routes."""

import json
import re
from collections.abc import Collection
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from resnet_service.api.content_negotiation import JSON
from resnet_service.api.openapi import examples
from resnet_service.api.openapi.responses import error_examples, unauthorized
from resnet_service.api.problem_details import is_foreign
from resnet_service.api.schemas import ErrorResponse
from resnet_service.inference.base import ServedModel

PATH = "/openapi.json"

CLASSIFY, EXPLAIN_AND_EMBED, MODEL, OPERATE, OPEN_INFERENCE, HUGGING_FACE = (
    "Classify",
    "Explain and embed",
    "Model",
    "Health and metrics",
    "Open Inference Protocol",
    "Hugging Face",
)
_FOREIGN_ERRORS = 'Errors have the shape `{"error": …}`.'
TAGS = [
    {"name": CLASSIFY, "description": "Classify one image or several."},
    {"name": EXPLAIN_AND_EMBED, "description": "Class activation maps and embeddings."},
    {"name": MODEL, "description": "The served model."},
    {"name": OPERATE, "description": "For orchestrators, load balancers and Prometheus."},
    {"name": OPEN_INFERENCE, "description": f"Version 2, for clients of Triton and KServe. {_FOREIGN_ERRORS}"},
    {"name": HUGGING_FACE, "description": f"For Hugging Face's `InferenceClient`. {_FOREIGN_ERRORS}"},
]
# Relative to the document, so that the same one is right behind any path prefix.
SERVERS = [{"url": ".", "description": "The service that this document comes from."}]
DESCRIPTION = f"""Classifies images with one model, which is loaded when the service starts.

The examples are answers of the model in the repository (`--checkpoint checkpoints/{examples.MODEL}.onnx`) for an image
that every service has:

```console
$ curl -O http://localhost:8080{examples.IMAGE_PATH}
```

Each response has an `X-Request-ID`, which is also in the service's log. Each error has a stable `code`, and a `detail`
for people.
"""

_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key as `Authorization: Bearer KEY`."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key as `X-API-Key: KEY`."},
}
_PARAMETERS = {
    "model": {"description": "The model's name, as in `/metadata`.", "example": examples.MODEL},
    "version": {"description": "The model's version, as in `/metadata`.", "example": examples.VERSION},
}


def operation_id(route: APIRoute) -> str:
    """Name an operation like its function; in the Open Inference Protocol, add what tells it apart."""
    if not route.path.startswith("/v2"):
        return route.name
    return f"v2_{route.name}" + ("_of_version" if "{version}" in route.path else "")


def path_parameters(*names: str) -> dict[str, Any]:
    """Return the OpenAPI part of a route that reads these parameters of its path in a dependency."""
    return {"parameters": [{"$ref": f"#/components/parameters/{name}"} for name in names]}


def install(app: FastAPI, open_paths: Collection[str] | None) -> None:
    """Complete the document that FastAPI derives from the routes of ``app``.

    Args:
        app: While it runs, commands and path parameters name the served model, so that "Try it out" works.
        open_paths: The paths that can be read without a key; ``None`` where no key is needed.

    """
    derive = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(derive(), open_paths)
        service = getattr(app.state, "service", None)
        return app.openapi_schema if service is None else _naming(service.classifier.model, app.openapi_schema)

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _naming(model: ServedModel, document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with the served model in its commands and parameters, in place of the repository's model."""
    # Percent-encoded as in RFC 3986, section 2.1; a file's name may have any characters.
    quoted = re.sub(
        r"[^\w.~-]", lambda odd: "".join(f"%{byte:02X}" for byte in odd[0].encode()), model.name, flags=re.A
    )
    text = json.dumps(document["paths"]).replace(f"/models/{examples.MODEL}", f"/models/{quoted}")
    paths = json.loads(text.replace(f"/versions/{examples.VERSION}", f"/versions/{model.version}"))
    served = {"model": model.name, "version": model.version}
    parameters = {
        name: {**parameter, "example": served[name]} for name, parameter in document["components"]["parameters"].items()
    }
    return {**document, "paths": paths, "components": {**document["components"], "parameters": parameters}}


def _complete(document: dict[str, Any], open_paths: Collection[str] | None) -> dict[str, Any]:
    """Add API keys, and the components that the operations refer to."""
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas[ErrorResponse.__name__] = ErrorResponse.model_json_schema()
    operations = [(path, *item) for path, methods in document["paths"].items() for item in methods.items()]
    # Without keys, an empty list: linters ask whether security was forgotten.
    document["security"] = []
    if open_paths is not None:
        components["securitySchemes"] = _SCHEMES
        document["security"] = [{name: []} for name in _SCHEMES]
    for path, method, operation in operations:
        if (body := operation.get("requestBody", {}).get("content", {}).get(JSON)) is not None:
            body["schema"] = _shared(body["schema"], schemas)
        if open_paths is not None and path in open_paths and method == "get":
            operation["security"] = []
        elif open_paths is not None:
            responses = unauthorized(foreign=is_foreign(path))
            operation["responses"] |= {str(status): response for status, response in responses.items()}
        if "{version}" in path:  # the same function, and so the same description, as the path without a version
            named = f"/models/{examples.MODEL}"
            operation["description"] = operation["description"].replace(named, f"{named}/versions/{examples.VERSION}")
    _give_items(schemas)
    components["parameters"] = {
        name: {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, **described}
        for name, described in _PARAMETERS.items()
    }
    # Added here, since FastAPI would leave out the nulls in them.
    used = set(re.findall(r'"#/components/examples/([^"]+)"', json.dumps(document["paths"])))
    named_examples = {**examples.answers(), **error_examples()}
    components["examples"] = {name: example for name, example in named_examples.items() if name in used}
    return document


def _shared(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """Move a schema and its definitions to ``schemas``; return a reference to it."""
    schemas |= schema.pop("$defs", {})
    schemas[schema["title"]] = schema
    return {"$ref": f"#/components/schemas/{schema['title']}"}


def _give_items(schema: Any) -> None:
    """Write arrays of a fixed length as generators of clients read them: one schema in ``items``, not one per item.

    Pydantic gives ``prefixItems`` alone, and the length beside it.
    """
    if isinstance(schema, dict):
        prefix = schema.get("prefixItems")
        if isinstance(prefix, list) and all(item == prefix[0] for item in prefix):
            schema["items"] = prefix[0]
            del schema["prefixItems"]
    for inner in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        _give_items(inner)
