"""Models for tests: real architectures with random weights."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from resnet_service.metadata import ModelMetadata
from resnet_service.prepare import architectures
from resnet_service.prepare.checkpoint import save_checkpoint


def metadata(**changes: Any) -> ModelMetadata:
    """Return metadata of a resnet18 with 10 classes for 64 pixels, with ``changes``."""
    facts: dict[str, Any] = {"arch": "resnet18", "num_classes": 10, "input_size": 64, "resize_size": 72}
    return ModelMetadata(**{**facts, **changes})


def random_model(arch: str = "resnet18", num_classes: int = 10, seed: int = 0) -> nn.Module:
    """Return an untrained network whose batch norms have statistics, so that its answers depend on the picture."""
    torch.manual_seed(seed)
    model = architectures.build(arch, num_classes).train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(4, 3, 64, 64))
    return model.eval()


def random_checkpoint(path: Path, **changes: Any) -> Path:
    facts = metadata(**changes)
    save_checkpoint(random_model(facts.arch, facts.num_classes), path, facts)
    return path
