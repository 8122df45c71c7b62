"""Write the OpenAPI document of the service to ``docs/openapi.json``; a test compares the two."""

import json
from pathlib import Path

from resnet_service.api.app import create_app
from resnet_service.inference.fake import FakeClassifier
from resnet_service.settings import Settings

TARGET = Path("docs/openapi.json")


def document() -> str:
    """Return the document with one value a line, so that diffs are readable."""
    described = create_app(Settings(), FakeClassifier()).openapi()
    return json.dumps(described, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    TARGET.write_text(document())
