"""Expensive fixtures, created once a session."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from resnet_service.models.discovery import unbundled_models
from tests.support.models import Both, ExportedByCommand, random_checkpoint
from tests.support.servers import REPOSITORY, ServerProcess, cli, server_process

SLOW_SECONDS = 900  # more than any wait inside a slow test: the suite on the installed wheel may take 600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests marked `slow` more time than pyproject.toml gives to each test."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))


def pytest_collection_finish() -> None:
    """Exempt imported objects, such as PyTorch's, from the garbage collection at each start of a service."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a resnet18 with 10 classes and random weights."""
    return random_checkpoint(tmp_path_factory.mktemp("model") / "random.pth")


@pytest.fixture(scope="session")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return that checkpoint exported in FP32; exporting a graph takes many seconds."""
    from resnet_service.export.export import export  # NNCF takes seconds to import, and most tests need none of it

    target = tmp_path_factory.mktemp("exported") / "model.onnx"
    export(checkpoint, target)
    return target


@pytest.fixture(scope="session")
def small_network(tmp_path_factory: pytest.TempPathFactory) -> Both:
    """Return timm's smallest ResNet for 224 pixels with random weights, as checkpoint and exported in FP32."""
    from resnet_service.export.export import export

    folder = tmp_path_factory.mktemp("small")
    path = random_checkpoint(folder / "small.pth", arch="timm/test_resnet", input_size=224, resize_size=256)
    export(path, folder / "small.onnx")
    return Both(path, folder / "small.onnx")


@pytest.fixture(scope="session")
def fashion_exported(tmp_path_factory: pytest.TempPathFactory) -> ExportedByCommand:
    """Return the shipped Fashion-MNIST weights, exported in FP32 by the command line."""
    target = tmp_path_factory.mktemp("exported") / "fashion.onnx"
    done = cli("export", REPOSITORY / "checkpoints" / "resnet18-fashion-mnist.safetensors", "--output", target)
    assert done.returncode == 0, done.stderr
    return ExportedByCommand(target, done)


@pytest.fixture(scope="session")
def imagenet_exported() -> Path:
    """Return the model of `pull`, exported in FP32; fetched once for the checkout, as by `make serve`."""
    done = cli("pull", "--if-missing", timeout=300)
    assert done.returncode == 0, done.stderr
    return unbundled_models(REPOSITORY / "checkpoints")[-1]


@pytest.fixture(scope="session")
def imagenet_checkpoint(imagenet_exported: Path) -> Path:
    """Return the pulled checkpoint, from which the model was exported; older versions pulled a .pth file."""
    checkpoint = imagenet_exported.with_suffix(".safetensors")
    return checkpoint if checkpoint.exists() else checkpoint.with_suffix(".pth")


@pytest.fixture(scope="session")
def imagenet_server(imagenet_exported: Path) -> Iterator[ServerProcess]:
    """Start the real service with the pulled ImageNet model."""
    with server_process("--checkpoint", imagenet_exported) as server:
        yield server
