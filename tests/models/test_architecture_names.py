"""Architectures are found under the names that people write."""

from pathlib import Path

import pytest

from resnet_service.errors import UnknownArchitecture
from resnet_service.models.architecture_names import canonical, canonical_for, resolve, resolve_given


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("resnet18", "resnet18"),
        ("ResNet18", "resnet18"),
        ("resnet-18", "resnet18"),
        ("ResNet_18", "resnet18"),
        ("torchvision.models.resnet50", "resnet50"),
        ("resnet18.a1_in1k", "resnet18"),
        ("MobileNetV2", "mobilenet_v2"),
        ("timm/resnet18", "timm/resnet18"),
        ("tf_efficientnet_lite0", "timm/tf_efficientnet_lite0"),
        ("mobilenetv3_small_050", "timm/mobilenetv3_small_050"),
    ],
)
def test_spelling_does_not_matter(name: str, first: str) -> None:
    assert resolve(name)[0] == first


def test_a_name_of_both_libraries_stands_for_both() -> None:
    assert resolve("efficientnet_b0") == ("efficientnet_b0", "timm/efficientnet_b0")


@pytest.mark.parametrize("name", ["ResNet", "", "None", "my network", "/", "x" * 10_000, "googlenet"])
def test_other_names_stand_for_none(name: str) -> None:
    assert not [arch for arch in resolve(name) if not arch.startswith("timm/")]


def test_the_nearest_names_are_suggested() -> None:
    with pytest.raises(
        UnknownArchitecture, match=r"^--arch resnt18: there is no such architecture\. .*nearest.* resnet18"
    ):
        resolve_given("resnt18")
    with pytest.raises(UnknownArchitecture, match="mobilenet_v2"):
        resolve_given("MobileNet-V22")
    with pytest.raises(UnknownArchitecture, match="Name one of torchvision's or timm's"):
        resolve_given("zzzzzzzzzz")


@pytest.mark.parametrize(
    ("name", "arch"),
    [
        ("EfficientNet-Lite0", "timm/efficientnet_lite0"),
        ("tf_efficientnet_lite0", "timm/tf_efficientnet_lite0"),
        ("ResNet50", "resnet50"),
        ("timm/ResNet50", "timm/resnet50"),
        ("MobileNetV2", "mobilenet_v2"),
    ],
)
def test_an_option_stands_for_the_likeliest(name: str, arch: str) -> None:
    assert canonical(name) == arch == resolve_given(name)[0]


def test_exported_models_name_their_own() -> None:
    assert canonical_for(Path("model.onnx"), "no such architecture") == "no such architecture"
    assert canonical_for(Path("model.pth"), None) is None
    with pytest.raises(UnknownArchitecture):
        canonical_for(Path("model.pth"), "no such architecture")
