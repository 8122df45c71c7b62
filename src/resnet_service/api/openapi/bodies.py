"""The bodies that routes read or write themselves, as OpenAPI describes them."""

from typing import Any

from pydantic import BaseModel

from resnet_service.api.content_negotiation import BINARY, FORM
from resnet_service.api.openapi import examples
from resnet_service.api.uploads import FIELD, FIELDS
from resnet_service.imaging.formats import ACCEPTED_FORMATS

_FORMATS = f"{', '.join(ACCEPTED_FORMATS[:-1])} or {ACCEPTED_FORMATS[-1]}"
_PARAMETERS = "In a form, parameters of the query may be fields, too."
_FILE = {"type": "string", "format": "binary"}

BYTES: dict[str, Any] = {"schema": _FILE}
ENCODED_IMAGE = {**BYTES, "examples": {"sneaker": {"summary": "A sneaker", "externalValue": examples.IMAGE_PATH}}}


def _form(field: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"schema": {"type": "object", "required": [field], "properties": {field: schema}}}


def request_body(content: dict[str, Any], **more: str) -> dict[str, Any]:
    """Return the OpenAPI part of a route that has this body, by media type."""
    return {"requestBody": {"required": True, "content": content, **more}}


def json_body(model: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    """Describe a JSON body that the route parses itself, with the definitions of its schema in place.

    FastAPI collects only the definitions of the bodies that it parses; references to others would lead nowhere.
    """
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def inlined(part: Any) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                return inlined(definitions[part["$ref"].rpartition("/")[2]])
            return {key: inlined(value) for key, value in part.items()}
        return [inlined(value) for value in part] if isinstance(part, list) else part

    return {"schema": inlined(schema), "examples": {"sneaker": {"summary": "A sneaker", "value": example}}}


IMAGE = request_body(
    {
        FORM: _form(FIELD, _FILE),
        "image/*": ENCODED_IMAGE,
        BINARY: ENCODED_IMAGE,
    },
    description=f"A {_FORMATS} image (HEIC with an extra); of an animation, the first frame is used. {_PARAMETERS}",
)
IMAGES = request_body(
    {FORM: _form(FIELDS, {"type": "array", "items": _FILE})},
    description=f"{_FORMATS} images (HEIC with an extra); of an animation, the first frame is used. {_PARAMETERS}",
)
