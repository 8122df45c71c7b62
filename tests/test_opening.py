"""Opening the model beside the import of the web framework."""

import subprocess
import sys

import pytest

BEFORE = """
import sys
from pathlib import Path
from resnet_service.opening import open_classifier
from resnet_service.runtime import find_runtime
from resnet_service.settings import Settings

settings = Settings(checkpoint=Path(sys.argv[1]))
find_runtime(settings.checkpoint)
before = set(sys.modules)
"""
AFTER = """
print(*(set(sys.modules) - before))
"""


def imported_by(step: str, model: str) -> set[str]:
    command = [sys.executable, "-c", BEFORE + step + AFTER, f"checkpoints/{model}"]
    return set(subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize("model", ["resnet18-fashion-mnist-int8.onnx", "resnet18-fashion-mnist.pth"])
def test_two_threads_never_import_the_same(model: str) -> None:
    """The second could meet half a module."""
    framework = imported_by("import resnet_service.server", model)
    assert {"fastapi", "uvicorn"} <= framework
    assert imported_by("open_classifier(settings)", model) & framework == set()
