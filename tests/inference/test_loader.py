"""Loading the model in parallel with the import of the web framework."""

import asyncio
import importlib.util
import os
import platform
import subprocess
import sys
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest
import safetensors.torch

from resnet_service.errors import InvalidModelOutput
from resnet_service.inference.classifier import Classifier
from resnet_service.inference.loader import ModelLoader, open_classifier
from resnet_service.settings import Settings
from tests.support.images import CAT
from tests.support.models import random_model
from tests.support.servers import server_process

MODEL = "checkpoints/resnet18-fashion-mnist-int8.onnx"

BEFORE = """
import sys
from pathlib import Path
from resnet_service.inference.loader import open_classifier
from resnet_service.runtimes.registry import find_runtime
from resnet_service.settings import Settings

settings = Settings(checkpoint=Path(sys.argv[1]))
find_runtime(settings.checkpoint)
before = set(sys.modules)
"""
AFTER = """
print(*(set(sys.modules) - before))
"""


COUNTS_HEAPS = """
import atexit, ctypes, gc, sys, tempfile

def count():
    libc = ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p
    with tempfile.NamedTemporaryFile() as file:
        stream = ctypes.c_void_p(libc.fopen(file.name.encode(), b"w"))
        libc.malloc_info(0, stream)
        libc.fclose(stream)
        print("heaps:", file.read().count(b"<heap "), "threshold:", gc.get_threshold()[0], file=sys.stderr)

atexit.register(count)
"""


def imported_by(step: str, model: str) -> set[str]:
    command = [sys.executable, "-c", BEFORE + step + AFTER, f"checkpoints/{model}"]
    return set(subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout.split())


LISTS_MODULES = """
import atexit, os, pathlib, sys
atexit.register(lambda: pathlib.Path(os.environ["IMPORTED"]).write_text("\\n".join(list(sys.modules))))
"""


def test_a_server_imports_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(LISTS_MODULES)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    imports = tmp_path / "imported"
    with server_process("--checkpoint", MODEL, PYTHONPATH=path, IMPORTED=str(imports)) as server:
        for path in ("/metadata", "/openapi.json", "/metrics", "/"):
            assert httpx.get(server.url + path, timeout=10).status_code == HTTPStatus.OK
        assert httpx.post(f"{server.url}/predict", content=CAT.read_bytes(), timeout=10).status_code == HTTPStatus.OK
        broken = httpx.post(f"{server.url}/predict", content=CAT.read_bytes()[:1000], timeout=10)
        assert broken.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    imported = set(imports.read_text().split())
    assert "fastapi.routing" in imported
    # Parts of packages: a package is listed although the import failed.
    unused = {"openvino.tools.ovc.convert", "pydantic.v1.main", "rich.console", "torch.nn"}
    assert all(importlib.util.find_spec(name) for name in unused)
    assert imported & unused == set()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such heaps")
def test_all_threads_of_a_server_share_one_heap_in_which_garbage_is_looked_for_seldom(tmp_path: Path) -> None:
    """``malloc_info`` lists each heap; there must be only one, even after NumPy has started threads."""
    (tmp_path / "sitecustomize.py").write_text(COUNTS_HEAPS)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    with server_process("--checkpoint", MODEL, "--workers", "2", PYTHONPATH=path) as server:
        for _ in range(8):
            httpx.post(f"{server.url}/predict", content=CAT.read_bytes(), timeout=10).raise_for_status()
        server.stop()
    assert "heaps: 1 threshold: 5000\n" in server.log


def test_what_is_imported_is_never_looked_through_again() -> None:
    script = (
        "import gc\n"
        "from resnet_service.system.memory import gc_frozen\n"
        "with gc_frozen():\n"
        "    assert not gc.isenabled()\n"
        "    import fastapi\n"
        "print(gc.isenabled(), gc.get_freeze_count() > 10_000, len(gc.get_objects()) < 1_000)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "True True True"


@pytest.mark.slow
@pytest.mark.parametrize("model", ["resnet18-fashion-mnist-int8.onnx", "resnet18-fashion-mnist.safetensors"])
def test_two_threads_never_import_the_same(model: str) -> None:
    """The second thread could see a half-imported module."""
    framework = imported_by("import resnet_service.server.server", model)
    assert {"fastapi", "uvicorn"} <= framework
    assert imported_by("open_classifier(settings)", model) & framework == set()


def test_a_model_that_cannot_answer_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Classifier) -> None:
        raise InvalidModelOutput("NaN")

    monkeypatch.setattr(Classifier, "warm_up", fail)
    with pytest.raises(InvalidModelOutput):
        open_classifier(Settings(checkpoint=Path(MODEL)))


def test_the_architecture_may_be_in_any_spelling(tmp_path: Path) -> None:
    state = {key: tensor.contiguous() for key, tensor in random_model().state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "bare.safetensors")
    settings = Settings(checkpoint=tmp_path / "bare.safetensors", arch="ResNet-18", runtime="openvino")
    classifier = asyncio.run(ModelLoader(settings).result())
    assert classifier.model.metadata.arch == "resnet18"
