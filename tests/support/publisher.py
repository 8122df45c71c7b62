"""A stand-in for the host of torchvision's weights."""

import functools
from pathlib import Path

import torch
from torch import nn
from torchvision.models import Weights
from torchvision.transforms._presets import ImageClassification

from resnet_service.system.files import sha256_of
from tests.support.models import random_model


class Publisher:
    """A mirror of torchvision's files with one model, named by its digest as torchvision's files are."""

    def __init__(self, folder: Path, arch: str = "mobilenet_v3_small") -> None:
        self.arch = arch
        self.folder = folder
        self.model: nn.Module = random_model(arch, 1000)
        torch.save(self.model.state_dict(), folder / "file")
        self.digest = sha256_of((folder / "file").read_bytes())
        self.file = (folder / "file").rename(folder / f"{arch}-{self.digest[:8]}.pth")
        self.weights = Weights(
            url=f"https://elsewhere.example/models/{self.file.name}",
            transforms=functools.partial(ImageClassification, crop_size=224, resize_size=232),
            meta={"_metrics": {"ImageNet-1K": {"acc@1": 67.668}}},
        )
