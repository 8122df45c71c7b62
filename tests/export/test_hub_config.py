"""Configurations of repositories: what they mean, and that those which compute otherwise or are hostile are refused."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_service.errors import (
    ClassCountMismatch,
    InvalidLabelSet,
    InvalidMetadata,
    ServiceError,
    UnknownArchitecture,
)
from resnet_service.export.sources.hub_config import HubModel, fits_imagenet, parse_config
from resnet_service.models.labels import ClassLabel, LabelSet
from resnet_service.models.networks import state_shapes

TIMM: dict[str, Any] = {
    "architecture": "resnet50",
    "num_classes": 1000,
    "global_pool": "avg",
    "pretrained_cfg": {
        "tag": "a1_in1k",
        "input_size": [3, 224, 224],
        "test_input_size": [3, 288, 288],
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "crop_mode": "center",
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "license": "apache-2.0",
    },
}
RESNET: dict[str, Any] = {
    "model_type": "resnet",
    "layer_type": "bottleneck",
    "depths": [3, 4, 6, 3],
    "hidden_sizes": [256, 512, 1024, 2048],
    "id2label": {"0": "cat", "1": "dog"},
}
CONVNEXT: dict[str, Any] = {
    "image_processor_type": "ConvNextImageProcessor",
    "size": {"shortest_edge": 224},
    "crop_pct": 0.875,
    "resample": 3,
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.4, 0.5, 0.6],
}
CLIP: dict[str, Any] = {
    **CONVNEXT,
    "image_processor_type": "CLIPImageProcessor",
    "do_center_crop": True,
    "crop_size": {"height": 200, "width": 200},
}


def parsed(config: dict[str, Any], processor: dict[str, Any] | None = CONVNEXT, **changes: Any) -> HubModel:
    files = {"preprocessor_config.json": None if processor is None else json.dumps(processor).encode()}
    return parse_config(json.dumps({**config, **changes}).encode(), files.__getitem__, "acme/it")


def pretrained(**changes: Any) -> dict[str, Any]:
    return {"pretrained_cfg": {**TIMM["pretrained_cfg"], **changes}}


def test_timms_configuration_is_read() -> None:
    model = parsed(TIMM)
    facts = model.metadata
    assert (facts.arch, facts.num_classes, facts.input_size, facts.resize_size) == ("resnet50", 1000, 224, 235)
    assert (facts.interpolation, facts.mean, facts.std) == ("bicubic", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (model.imagenet, model.licence) == (True, "apache-2.0")
    older = {"architecture": "resnet18", "labels": ["a", "b"], "num_classes": 2, **TIMM["pretrained_cfg"]}
    assert [label.name for label in parsed(older).classes] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "arch"),
    [
        ("resnet18", "resnet18"),
        ("wide_resnet50_2", "wide_resnet50_2"),
        ("tf_efficientnet_lite0", "timm/tf_efficientnet_lite0"),
        ("efficientnet_b0", "timm/efficientnet_b0"),  # torchvision's network of this name is another one
        ("resnet26", "timm/resnet26"),
    ],
)
def test_architectures_of_timm_get_our_names(name: str, arch: str) -> None:
    assert parsed(TIMM, architecture=name).metadata.arch == arch


def test_only_weights_that_say_so_have_the_classes_of_imagenet() -> None:
    assert parsed(TIMM).imagenet
    assert parsed(TIMM, **pretrained(tag="fb_in22k_ft_in1k_384")).imagenet
    assert not parsed(TIMM, **pretrained(tag="mine")).imagenet
    assert not parsed(TIMM, num_classes=7).imagenet
    assert not parsed(TIMM, label_names=[f"class {index}" for index in range(1000)]).imagenet


@pytest.mark.parametrize(
    "changes",
    [
        {"model_args": {"output_stride": 16}},
        {"model_args": {"stem_type": "deep"}},
        {"model_args": {"global_pool": "max"}},
        {"model_args": {"in_chans": 1}},
        {"model_args": {"num_classes": 5}},
        {"global_pool": "catavgmax"},
        {"num_classes": 0},
        pretrained(label_offset=1),
    ],
    ids=str,
)
def test_networks_of_timm_that_compute_otherwise_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UnknownArchitecture, match="acme/it"):
        parsed(TIMM, **changes)


def test_the_arguments_that_timm_always_writes_are_accepted() -> None:
    usual = {"num_classes": 1000, "in_chans": 3, "global_pool": "avg", "act_layer": None}
    assert parsed(TIMM, model_args=usual).metadata.arch == "resnet50"


@pytest.mark.parametrize(
    "changes",
    [
        pretrained(crop_mode="squash"),
        pretrained(input_size=[1, 224, 224]),
        pretrained(input_size=[3, 224, 320]),
        pretrained(interpolation="random"),
        pretrained(crop_pct=0),
        pretrained(crop_pct=1e300),
        pretrained(crop_pct=1.5),
        pretrained(mean=[0.5]),
        pretrained(std=[0, 1, 1]),
        pretrained(std=[float("nan"), 1, 1]),
        {"architecture": "../../etc"},
        {"architecture": "ResNet50; rm"},
        {"architecture": ["resnet50"]},
        {"num_classes": 10**9},
        {"pretrained_cfg": 7},
        {"model_args": [1]},
    ],
    ids=str,
)
def test_configurations_of_timm_that_cannot_be_served_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidMetadata) as caught:
        parsed(TIMM, **changes)
    assert "\n" not in str(caught.value)


def test_transformers_configuration_is_read() -> None:
    model = parsed(RESNET)
    facts = model.metadata
    assert (facts.arch, facts.num_classes, facts.input_size, facts.resize_size) == ("resnet50", 2, 224, 256)
    assert (facts.interpolation, facts.mean, facts.std) == ("bicubic", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    older = {**CONVNEXT, "size": 224, "feature_extractor_type": "ConvNextFeatureExtractor"}
    assert parsed(RESNET, older).metadata.resize_size == 256
    crops = {"size": {"shortest_edge": 240}, "crop_size": {"height": 200, "width": 200}, "do_center_crop": True}
    clip = {**CONVNEXT, "image_processor_type": "CLIPImageProcessor", **crops}
    assert (parsed(RESNET, clip).metadata.input_size, parsed(RESNET, clip).metadata.resize_size) == (200, 240)
    plain = parsed(RESNET, {**CONVNEXT, "do_normalize": False}).metadata
    assert (plain.mean, plain.std) == ((0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize("kind", ["ConvNextImageProcessor", "ConvNextImageProcessorFast", "ConvNextFeatureExtractor"])
def test_keys_without_effect_are_accepted(kind: str) -> None:
    """As the versions of transformers write them."""
    without_effect = {
        "crop_size": None,
        "data_format": "channels_first",
        "default_to_square": False,
        "device": None,
        "do_center_crop": None,
        "do_convert_rgb": None,
        "do_pad": None,
        "do_flip_channel_order": False,
        "pad_size": None,
        "size": {"shortest_edge": 224, "longest_edge": None},
        "processor_class": "It",
    }
    processor = {**CONVNEXT, "image_processor_type": kind, **without_effect}
    assert parsed(RESNET, processor, torch_dtype="float32", label2id={"cat": 0}).metadata.resize_size == 256


@pytest.mark.parametrize("key", ["quantization_config", "auto_map"])
@pytest.mark.parametrize("config", [TIMM, RESNET], ids=["timm", "transformers"])
def test_weights_that_need_other_code_are_refused(config: dict[str, Any], key: str) -> None:
    with pytest.raises(UnknownArchitecture, match=key):
        parsed(config, **{key: {"bits": 8}})


def test_labels_that_transformers_made_up_are_no_labels() -> None:
    assert parsed(RESNET, id2label={"0": "LABEL_0", "1": "LABEL_1"}).classes == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"downsample_in_bottleneck": True},
        {"downsample_in_first_stage": True},
        {"hidden_act": "gelu"},
        {"num_channels": 1},
        {"problem_type": "multi_label_classification"},
        {"depths": [3, 4, 6, 4]},
        {"embedding_size": 32},
        {"hidden_sizes": [64, 128, 256, 512]},
        {"layer_type": "other"},
        {"model_type": "vit"},
        {"unheard_of": 1},
        {"model_type": None},
        {"model_type": "\x1b[31m"},
    ],
    ids=str,
)
def test_networks_of_transformers_that_compute_otherwise_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UnknownArchitecture) as caught:
        parsed(RESNET, **changes)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "processor",
    [
        None,
        {**CONVNEXT, "size": {"shortest_edge": 384}},
        {**CONVNEXT, "size": {"height": 224, "width": 224}},
        {**CONVNEXT, "image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 224}},
        {
            **CONVNEXT,
            "image_processor_type": "ViTImageProcessor",
            "size": 224,
            "do_center_crop": True,
            "crop_size": 224,
        },
        {**CONVNEXT, "do_resize": False},
        {**CONVNEXT, "do_rescale": False},
        {**CONVNEXT, "rescale_factor": 1.0},
        {**CONVNEXT, "resample": 5},
        {**CONVNEXT, "size": {"shortest_edge": 10**9}},
        {**CONVNEXT, "size": "large"},
        {"size": 224},
        {**CONVNEXT, "do_flip_channel_order": True},
        {**CONVNEXT, "size": 224, "default_to_square": True},
        {**CONVNEXT, "do_pad": True},
        {**CONVNEXT, "do_grayscale": True},
        {**CONVNEXT, "do_center_crop": True},
        {**CONVNEXT, "rescale_offset": True},
        {**CONVNEXT, "rescale_offset": False},
        {**CONVNEXT, "\x1b[2J": 1},
        {**CONVNEXT, "size": {"shortest_edge": 224, "longest_edge": 300}},
        {**CONVNEXT, "size": {"shortest_edge": 224, "height": 300}},
        {**CONVNEXT, "image_processor_type": None},
        {**CONVNEXT, "image_processor_type": "ConvNextLikeProcessor"},
        {**CLIP, "image_processor_type": "PoolFormerImageProcessor", "crop_pct": 0.9},
        {**CLIP, "image_processor_type": "LevitImageProcessor"},
        {**CLIP, "image_processor_type": "ViTImageProcessor"},
    ],
    ids=str,
)
def test_preprocessing_that_the_service_does_not_have_is_refused(processor: dict[str, Any] | None) -> None:
    with pytest.raises(InvalidMetadata) as caught:
        parsed(RESNET, processor)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "error"),
    [
        ({"0": "cat", "2": "dog"}, InvalidLabelSet),
        ({"0": "cat", "x": "dog"}, InvalidLabelSet),
        ({"0": "cat", "1": ""}, InvalidLabelSet),
        ({"0": "cat", "1": "\x1b[2J"}, InvalidLabelSet),
        ({"0": "cat", "1": "d" * 201}, InvalidLabelSet),
        ({"0": "cat", "1": 5}, InvalidMetadata),
    ],
)
def test_names_of_classes_are_checked(names: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        parsed(RESNET, id2label=names)


def test_another_number_of_names_than_of_classes_is_refused() -> None:
    with pytest.raises(ClassCountMismatch):
        parsed(TIMM, num_classes=3, label_names=["a", "b"])


def test_the_classes_of_imagenet_are_recognised_in_their_order() -> None:
    imagenet = LabelSet.parse(Path("labels/imagenet1k.json").read_bytes(), Path("labels/imagenet1k.json"))
    words = tuple(
        ClassLabel(index=label.index, name=f"{label.name.title()}, Genus species") for label in imagenet.classes
    )
    ids = tuple(ClassLabel(index=label.index, id=label.id, name="?") for label in imagenet.classes)
    assert fits_imagenet(words, imagenet)
    assert fits_imagenet(ids, imagenet)
    assert not fits_imagenet(words[::-1], imagenet)
    assert not fits_imagenet(words[:-1], imagenet)
    assert not fits_imagenet((), imagenet)


@pytest.mark.parametrize(("layer_type", "depths", "arch"), [("basic", 2, "resnet18"), ("bottleneck", 3, "resnet50")])
def test_every_key_of_transformers_becomes_torchvisions(layer_type: str, depths: int, arch: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(**{**RESNET, "layer_type": layer_type, "model_type": "resnet"})
    if layer_type == "basic":
        config.depths, config.hidden_sizes = [depths] * 4, [64, 128, 256, 512]
    state = {
        key: value.numpy() for key, value in transformers.ResNetForImageClassification(config).state_dict().items()
    }
    renamed = parsed(RESNET).rename(state)
    assert {key: array.shape for key, array in renamed.items()} == state_shapes(arch, 2)


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"7", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b'{"num_classes": ' + b"9" * 5000 + b"}"],
    ids=lambda data: f"{data[:8]!r}",
)
def test_what_is_no_configuration_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidMetadata, match=r"config\.json of acme/it"):
        parse_config(data, lambda name: None, "acme/it")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=10), values, max_size=4),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([TIMM, RESNET]), st.data())
def test_any_value_of_any_key_is_a_model_or_one_of_our_errors(config: dict[str, Any], data: st.DataObject) -> None:
    content = json.loads(json.dumps(config))
    target = content
    key = data.draw(st.sampled_from([*content, "model_args", "label_names", "label_descriptions", "num_channels"]))
    if isinstance(content.get(key), dict) and data.draw(st.booleans()):
        target = content[key]
        key = data.draw(st.sampled_from([*target, "label_offset", "crop_pct"]))
    target[key] = data.draw(VALUES)
    processor = {**CONVNEXT, data.draw(st.sampled_from([*CONVNEXT, "crop_size"])): data.draw(VALUES)}
    with contextlib.suppress(ServiceError):
        parsed(content, processor)
