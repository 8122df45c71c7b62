"""Examples in the OpenAPI document: requests with an image of the page, and answers of the repository's model.

``examples.json`` has the answers by the names that the routes use, with VERSION for the version of the service. A test
sends each request, and compares the answers.
"""

import base64
import json
from importlib.resources import files
from typing import Any

from resnet_service import __version__
from resnet_service.api import example_model

MODEL, VERSION = example_model.NAME, example_model.VERSION
# An image that every service has.
IMAGE_PATH = "/web/samples/sneaker.png"
_ENCODED = base64.b64encode((files("resnet_service") / "web" / "samples" / "sneaker.png").read_bytes()).decode()

HUGGING_FACE_REQUEST: dict[str, Any] = {"inputs": _ENCODED, "parameters": {"top_k": 2}}
INFERENCE_REQUEST: dict[str, Any] = {
    "id": "1",
    "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [_ENCODED]}],
    "outputs": [{"name": "probabilities", "parameters": {"classification": 3}}],
}


def answers() -> dict[str, Any]:
    """Return the examples of answers, each with its summary, by name."""
    text = (files("resnet_service") / "api" / "openapi" / "examples.json").read_text()
    named: dict[str, Any] = json.loads(text.replace('"VERSION"', f'"{__version__}"'))
    return named
