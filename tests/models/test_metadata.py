from typing import Any

import pytest

from resnet_service.errors import InvalidMetadata
from resnet_service.models.metadata import IMAGENET_MEAN, IMAGENET_STD, ModelMetadata

CLASSIC: dict[str, Any] = {"arch": "resnet18", "num_classes": 1000, "input_size": 224}


def parse(**changes: Any) -> ModelMetadata:
    return ModelMetadata.parse({**CLASSIC, **changes}, "model.pth")


def test_classic_keys_take_imagenet_values_for_the_rest() -> None:
    metadata = parse()
    assert (metadata.resize_size, metadata.interpolation) == (256, "bilinear")
    assert (metadata.mean, metadata.std) == (IMAGENET_MEAN, IMAGENET_STD)


@pytest.mark.parametrize("spelling", [32, (32, 32), [32, 32], (3, 32, 32)])
def test_square_input_in_each_common_form(spelling: object) -> None:
    assert parse(input_size=spelling).input_size == 32
    assert parse(input_size=spelling).resize_size == 36


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"input_size": (224, 192)}, "input_size"),
        ({"input_size": "large"}, "input_size"),
        ({"input_size": 0}, "input_size"),
        ({"num_classes": 0}, "num_classes"),
        ({"num_classes": 10**12}, "num_classes"),
        ({"num_classes": 1}, "convert --binary"),
        ({"provenance": {"source": "\x1b]0;title\x07"}}, "control characters"),
        ({"arch": "../../etc/passwd"}, "arch"),
        ({"arch": "timm/hf-hub:evil/model"}, "arch"),
        ({"std": (0.2, 0.0, 0.2)}, "std"),
        ({"std": (1e-42, 0.2, 0.2)}, "exceed float32"),
        ({"mean": (0.5, 0.5)}, "mean"),
        ({"mean": (0.5, 1e39, 0.5)}, "exceed float32"),
        ({"mean": (float("nan"), 0.5, 0.5)}, "mean"),
        ({"interpolation": "magic"}, "interpolation"),
        ({"resize_size": 64}, "resize_size"),
        ({"labels": {"name": "../secrets", "sha256": "0" * 64}}, "labels.name"),
        ({"labels": {"name": "x", "sha256": "12"}}, "labels.sha256"),
        ({"format_version": 2}, "format_version"),
        ({"epoch": 3}, "epoch"),
    ],
)
def test_invalid_metadata_are_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidMetadata, match=named) as caught:
        parse(**changes)
    assert "model.pth" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_metadata_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse().arch = "resnet34"  # type: ignore[misc]
