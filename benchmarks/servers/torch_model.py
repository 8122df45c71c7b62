"""Shared code of the servers with PyTorch: transform, network and answer."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import models, transforms

transform = transforms.Compose(
    [
        transforms.Resize(256),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    ]
)


def load(weights: Path, *, threads: int, channels_last: bool = False) -> nn.Module:
    """Return the network in evaluation mode; each call of it uses ``threads`` CPU threads."""
    torch.set_num_threads(threads)
    model: nn.Module = models.resnet18()
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval().to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def prepare(image: Image.Image) -> Tensor:
    """Return the pixels that the network sees: float32 [3, 224, 224]."""
    pixels: Tensor = transform(image.convert("RGB"))
    return pixels


def run(model: nn.Module, pixels: Tensor) -> Tensor:
    """Return logits [N, 1000] of float32 [N, 3, 224, 224]."""
    with torch.inference_mode():
        logits: Tensor = model(pixels)
    return logits


def answer(logits: Tensor) -> dict[str, Any]:
    """Return one image's five most probable classes."""
    scores, classes = torch.softmax(logits, dim=0).topk(5)
    pairs = zip(classes.tolist(), scores.tolist(), strict=True)
    return {"predictions": [{"class_id": class_id, "score": score} for class_id, score in pairs]}
