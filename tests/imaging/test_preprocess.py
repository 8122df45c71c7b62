"""Equality with the reference transforms, on real and made images of many shapes."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.transforms_factory import create_transform
from torchvision.transforms import v2
from torchvision.transforms._presets import ImageClassification
from torchvision.transforms.functional import InterpolationMode

from resnet_service.imaging.preprocess import crop, normalise
from resnet_service.models.metadata import ModelMetadata
from tests.support.images import EXAMPLES, imagenet_photographs, noise
from tests.support.models import metadata

Reference = Callable[[Image.Image, ModelMetadata], np.ndarray]

SHAPES = [(1, 1), (2, 3), (64, 64), (72, 72), (500, 375), (375, 500), (451, 300), (3000, 20), (20, 3000), (257, 256)]
REAL = [*sorted(EXAMPLES.glob("*.jpg")), *(path for path, _ in imagenet_photographs()[:6])]
RECIPES = [
    metadata(input_size=224, resize_size=256),
    metadata(input_size=224, resize_size=232, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3),
    metadata(input_size=64, resize_size=64),
    metadata(input_size=225, resize_size=256, interpolation="lanczos"),
]


def ours(image: Image.Image, recipe: ModelMetadata) -> np.ndarray:
    normalised: np.ndarray = normalise(crop(image, recipe)[np.newaxis], recipe)[0]
    return normalised.transpose(2, 0, 1)


def torchvision_reference(image: Image.Image, recipe: ModelMetadata) -> np.ndarray:
    transform = ImageClassification(
        crop_size=recipe.input_size,
        resize_size=recipe.resize_size,
        mean=recipe.mean,
        std=recipe.std,
        interpolation=InterpolationMode(recipe.interpolation),
    )
    normalised: np.ndarray = transform(image).numpy()
    return normalised


def timm_reference(image: Image.Image, recipe: ModelMetadata) -> np.ndarray:
    transform = create_transform(
        recipe.input_size,
        is_training=False,
        crop_pct=recipe.input_size / (recipe.resize_size + 0.001),
        interpolation=recipe.interpolation,
        mean=recipe.mean,
        std=recipe.std,
    )
    normalised: np.ndarray = transform(image).numpy()
    return normalised


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: f"{recipe.interpolation}{recipe.input_size}")
@pytest.mark.parametrize("reference", [torchvision_reference, timm_reference])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes_equal_the_reference(shape: tuple[int, int], reference: Reference, recipe: ModelMetadata) -> None:
    image = noise(*shape)
    np.testing.assert_allclose(ours(image, recipe), reference(image, recipe), rtol=0, atol=1e-6)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: f"{recipe.interpolation}{recipe.input_size}")
@pytest.mark.parametrize("reference", [torchvision_reference, timm_reference])
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_photographs_equal_the_reference(path: Path, reference: Reference, recipe: ModelMetadata) -> None:
    image = Image.open(path).convert("RGB")
    np.testing.assert_allclose(ours(image, recipe), reference(image, recipe), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(20_000, 3), (3, 20_000), (65_535, 1), (1, 65_535)], ids=str)
def test_slivers_cost_what_their_crop_costs(shape: tuple[int, int]) -> None:
    """Resized in full, the last would have 17 million by 256 pixels."""
    image = noise(*shape)
    begin = time.process_time()
    result = crop(image, RECIPES[0])
    assert time.process_time() - begin < 2
    assert result.shape == (224, 224, 3)
    assert result.std() > 0


def test_slivers_equal_the_reference_to_one_step_of_255() -> None:
    image = noise(3, 2000)
    exact = image.resize((256, 170_666), Image.Resampling.BILINEAR)
    middle = round((170_666 - 224) / 2)
    expected = np.asarray(exact.crop((16, middle, 240, middle + 224))).astype(int)
    assert np.abs(crop(image, RECIPES[0]).astype(int) - expected).max() <= 1


def test_the_reference_of_today_is_the_one_of_the_tutorials() -> None:
    image, recipe = noise(500, 375), RECIPES[0]
    tutorial = v2.Compose(
        [
            v2.Resize(256),
            v2.CenterCrop(224),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(recipe.mean, recipe.std),
        ]
    )
    np.testing.assert_allclose(ours(image, recipe), tutorial(image).numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (224, 224), (300, 299), (31, 97), (1024, 683), (2000, 260)])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_fast_differs_from_exact_by_rounding_alone(size: tuple[int, int], interpolation: str) -> None:
    image = noise(*size)
    facts = metadata(input_size=224, resize_size=256, interpolation=interpolation)
    fast, exact = (crop(image, facts, exact=exact).astype(int) for exact in (False, True))
    assert fast.shape == (224, 224, 3)
    off = np.abs(fast - exact)
    if interpolation == "nearest":  # which of two neighbours is nearer can turn on the last bit
        assert (off > 0).mean() < 0.01
    else:
        assert off.max() <= 1
        assert (off > 0).mean() < 0.01
