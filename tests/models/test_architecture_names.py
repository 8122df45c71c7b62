"""Architectures are found under the names that people write."""

import pytest

from resnet_service.errors import UnknownArchitecture
from resnet_service.models.architecture_names import resolve, resolve_given


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
