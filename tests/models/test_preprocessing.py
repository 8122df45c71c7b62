"""The preprocessing of an architecture is that of the library that publishes its weights."""

import pytest
import torchvision
from timm.data.config import resolve_data_config
from timm.models import create_model

from resnet_service.models import networks
from resnet_service.models.architectures import published_preprocessing
from resnet_service.models.preprocessing import preprocessing_of


@pytest.mark.parametrize("arch", networks.ARCHITECTURES)
def test_what_is_known_without_pytorch_is_what_the_libraries_say(arch: str) -> None:
    assert preprocessing_of(arch) == published_preprocessing(arch)


@pytest.mark.parametrize("arch", ["efficientnet_b3", "mobilenet_v2", "swin_v2_t"])
def test_torchvision(arch: str) -> None:
    transforms = next(iter(torchvision.models.get_model_weights(arch))).transforms()
    found = preprocessing_of(arch)
    assert ([found.input_size], [found.resize_size]) == (transforms.crop_size, transforms.resize_size)
    assert (found.interpolation, list(found.mean)) == (transforms.interpolation.value, transforms.mean)
    assert found.source == f"torchvision's configuration of {arch}"


@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv3_small_050", "tf_efficientnet_lite0"])
def test_timm(name: str) -> None:
    config = resolve_data_config({}, model=create_model(name))  # type: ignore[no-untyped-call]
    found = preprocessing_of(f"timm/{name}")
    assert (3, found.input_size, found.input_size) == config["input_size"]
    assert found.resize_size == int(found.input_size / config["crop_pct"])
    assert (found.interpolation, found.mean, found.std) == (config["interpolation"], config["mean"], config["std"])
    assert found.source == f"timm's configuration of {name}"


def test_another_size_keeps_the_proportion() -> None:
    assert preprocessing_of("resnet18").for_size(112) == 128
