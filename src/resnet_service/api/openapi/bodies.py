"""The bodies that routes read or write themselves, as OpenAPI describes them."""

from typing import Any

from pydantic import BaseModel

from resnet_service.api.content_negotiation import BINARY, FORM
from resnet_service.api.uploads import FIELD, FIELDS
from resnet_service.imaging.formats import ACCEPTED_FORMATS

_FORMATS = f"{', '.join(ACCEPTED_FORMATS[:-1])} or {ACCEPTED_FORMATS[-1]}"
_PARAMETERS = "In a form, parameters of the query may be fields, too."
_FILE = {"type": "string", "format": "binary"}

BYTES: dict[str, Any] = {"schema": _FILE}


def _form(field: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"schema": {"type": "object", "required": [field], "properties": {field: schema}}}


def request_body(content: dict[str, Any], **more: str) -> dict[str, Any]:
    """Return the OpenAPI part of a route that has this body, by media type."""
    return {"requestBody": {"required": True, "content": content, **more}}


def json_body(model: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    """Describe a JSON body that the route parses itself.

    FastAPI collects only the schemas of the bodies that it parses; ``document`` moves this one to the others.
    """
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"schema": schema, "examples": {"sneaker": {"summary": "A sneaker", "value": example}}}


IMAGE = request_body(
    {
        FORM: _form(FIELD, _FILE),
        "image/*": BYTES,
        BINARY: BYTES,
    },
    description=f"A {_FORMATS} image (HEIC with an extra); of an animation, the first frame is used. {_PARAMETERS}",
)
IMAGES = request_body(
    {FORM: _form(FIELDS, {"type": "array", "items": _FILE})},
    description=f"{_FORMATS} images (HEIC with an extra); of an animation, the first frame is used. {_PARAMETERS}",
)
