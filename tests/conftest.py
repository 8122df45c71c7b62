"""Fixtures that are dear: made once a session."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from resnet_service.default_model import pulled_models
from support.models import random_checkpoint
from support.servers import REPOSITORY, ServerProcess, cli, server_process


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a resnet18 with 10 classes and random weights."""
    return random_checkpoint(tmp_path_factory.mktemp("model") / "random.pth")


@pytest.fixture(scope="session")
def imagenet_packed() -> Path:
    """Return what `pull` brings, packed in FP32; fetched once for the checkout, as `make serve` does it."""
    done = cli("pull", "--if-missing", timeout=300)
    assert done.returncode == 0, done.stderr
    return pulled_models(REPOSITORY / "checkpoints")[-1]


@pytest.fixture(scope="session")
def imagenet_checkpoint(imagenet_packed: Path) -> Path:
    """Return the checkpoint that was pulled, of which the packed model was made."""
    return imagenet_packed.with_suffix(".pth")


@pytest.fixture(scope="session")
def imagenet_server(imagenet_packed: Path) -> Iterator[ServerProcess]:
    """Start the real service with the pulled ImageNet model."""
    with server_process("--checkpoint", imagenet_packed) as server:
        yield server
