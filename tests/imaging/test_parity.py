"""The service's path, from file to logits, against torchvision's own pipeline for the same weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms._presets import ImageClassification

from resnet_service.imaging.decode import decode
from resnet_service.imaging.preprocess import crop
from resnet_service.models.checkpoint.checkpoint import load_checkpoint
from resnet_service.runtimes.registry import open_runtime
from tests.support.images import EXAMPLES, imagenet_photographs
from tests.support.models import random_checkpoint

IMAGES = [*sorted(EXAMPLES.glob("*.jpg")), *(path for path, _ in imagenet_photographs()[:3])]


OTHERS = ["regnet_y_400mf", "shufflenet_v2_x0_5"]


@pytest.mark.parametrize(
    "arch", ["resnet18", "mobilenet_v3_small", *(pytest.param(arch, marks=pytest.mark.slow) for arch in OTHERS)]
)
def test_logits_equal_torchvision(tmp_path: Path, arch: str) -> None:
    path = random_checkpoint(tmp_path / "model.pth", arch=arch, num_classes=1000, input_size=224, resize_size=256)
    runtime = open_runtime(path, "torch")
    model = load_checkpoint(path).model
    reference = ImageClassification(crop_size=224, resize_size=256)
    for image in IMAGES:
        with torch.inference_mode():
            expected = model(reference(Image.open(image).convert("RGB"))[None]).numpy()
        pixels = crop(decode(image.read_bytes()).image, runtime.metadata)
        np.testing.assert_allclose(runtime.logits(pixels[np.newaxis]), expected, rtol=0, atol=1e-4)
