"""The network in a training checkpoint is found whatever is around it; what differs from an architecture is named."""

import argparse
import collections
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from resnet_service.errors import BareStateDict, StateDictMismatch, SuspiciousModel
from resnet_service.export.conversion.matching import guess, match_architecture
from resnet_service.models import networks
from resnet_service.models.checkpoint.arrays import MAX_TENSORS
from resnet_service.models.layouts import COMMON, COMMON_WITH_PYTORCH, TWINS, archs_of, layout_of
from tests.support.training import light, light_state, tensors_in

STATE = light_state()
Tensors = Mapping[str, torch.Tensor]


def light_tensor(*shape: int) -> torch.Tensor:
    return torch.zeros(()).expand(shape)


def prefixed(prefix: str, state: Tensors = STATE) -> dict[str, torch.Tensor]:
    return {prefix + key: tensor for key, tensor in state.items()}


def without(*prefixes: str) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in STATE.items() if not key.startswith(prefixes)}


def linear(prefix: str, inputs: int, outputs: int) -> dict[str, torch.Tensor]:
    return {f"{prefix}.weight": light_tensor(outputs, inputs), f"{prefix}.bias": light_tensor(outputs)}


KEYS = ("net", "model_state", "network", "weights", "params", "ema", "state_dict", "state_dict_ema", "teacher", "model")


@pytest.mark.parametrize("key", [*KEYS, "student", "model_state_dict", "backbone", "anything"])
def test_any_key_may_hold_the_weights(key: str) -> None:
    found = guess(tensors_in({key: STATE, "epoch": 1}), "file")
    assert (found.arch, found.rows, found.part, found.messages) == ("resnet18", 3, key, ())
    assert found.paths == {name: f"{key}.{name}" for name in STATE}


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "model.",
        "net.",
        "backbone.",
        "encoder.",
        "resnet.",
        "module.model.",
        "model.module.",
        "_orig_mod.",
        "a.b.c.",
    ],
)
def test_any_prefix_may_stand_before_the_keys(prefix: str) -> None:
    for content in (prefixed(prefix), {"state_dict": prefixed(prefix), "epoch": 1}):
        found = guess(tensors_in(content), "file")
        assert (found.arch, found.rows, found.messages) == ("resnet18", 3, ())


def test_what_is_around_the_weights_does_not_matter() -> None:
    parameter = nn.Parameter(torch.ones(2, 2))
    optimizer = torch.optim.Adam([parameter])
    parameter.sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    content = {
        "model": {"backbone": STATE},
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(model="resnet18"),
        "best": np.float64(0.3),
        "history": [np.array([1.0])],
        "rng": np.random.get_state(),
        "torch_rng": torch.get_rng_state(),
        "config": collections.defaultdict(int, {"a": 1}),
    }
    found = guess(tensors_in(content), "file")
    assert (found.part, found.messages) == ("model.backbone", ())


def test_buffers_beside_the_weights_are_left_and_named() -> None:
    lightning = {"state_dict": {**prefixed("model."), "loss.weight": torch.ones(3)}, "epoch": 1}
    assert guess(tensors_in(lightning), "file").messages == ("Left behind, as no part of resnet18: loss.weight",)
    thop = {**STATE, "total_ops": torch.zeros(1), "fc.total_params": torch.zeros(1)}
    assert guess(tensors_in(thop), "file").messages[0].endswith(": total_ops, fc.total_params")
    swa = {"n_averaged": torch.tensor(3), **prefixed("module.")}
    assert guess(tensors_in(swa), "file").messages[0].endswith(": n_averaged")


@pytest.mark.parametrize(
    ("parts", "taken"),
    [
        (("state_dict", "state_dict_ema"), "state_dict_ema"),
        (("model", "model_ema"), "model_ema"),
        (("swa_model", "model"), "swa_model"),
        (("teacher", "student"), "student"),
    ],
)
def test_of_several_the_averaged_then_the_first_but_no_teacher(parts: tuple[str, str], taken: str) -> None:
    content = {part: light_state() for part in parts}
    found = guess(tensors_in(content), "file")
    assert found.part == taken
    (message,) = found.messages
    assert message.startswith("Several parts of the file match: ")
    assert f"Took {taken}" in message
    assert "--part" in message
    for part in parts:
        assert guess(tensors_in(content), "file", part).part == part
    with pytest.raises(BareStateDict, match=rf"no such part. Its parts are {parts[0]}, {parts[1]}\."):
        guess(tensors_in(content), "file", "other")


def test_of_several_that_differ_one_must_be_named() -> None:
    content = {"net1": light_state(), "net2": light_state()}
    with pytest.raises(StateDictMismatch, match=r"several networks with other weights: net1, net2\. .*--part net1;"):
        guess(tensors_in(content), "file")
    assert guess(tensors_in(content), "file", "net2").part == "net2"
    module = nn.Sequential(collections.OrderedDict(first=resnet18(), second=nn.Identity()))
    module.second = module.first
    assert guess(tensors_in(module.state_dict()), "file").part == "first"


BESIDE: dict[str, Tensors] = {
    "a norm before the classifier": {
        **STATE,
        **{f"bnneck.{name}": light_tensor(512) for name in ("weight", "bias", "running_mean")},
    },
    "beside the backbone": {
        **prefixed("backbone.", without("fc.")),
        **{f"norm.{name}": light_tensor(512) for name in ("weight", "bias")},
        **linear("head", 512, 3),
    },
    "low-rank changes": {
        **STATE,
        "layer1.0.conv1.lora_A": light_tensor(4, 64),
        "layer1.0.conv1.lora_B": light_tensor(64, 4),
    },
    "a mean alone": {**prefixed("model."), "normalize.mean": light_tensor(3)},
    "a scale": {**STATE, "conv1.scale": light_tensor(64)},
}


@pytest.mark.parametrize("state", BESIDE.values(), ids=BESIDE)
def test_what_the_answer_may_need_is_refused(state: Tensors) -> None:
    for content in (state, {"state_dict": state, "optimizer": {"exp_avg": torch.zeros(3)}}):
        with pytest.raises(StateDictMismatch, match=r"layers besides those of resnet18: .*--part"):
            guess(tensors_in(content), "file")


def test_several_dicts_are_compared_as_one() -> None:
    content = {"backbone": without("fc."), "norm": {"weight": light_tensor(512)}, "head": linear("fc", 512, 3)}
    with pytest.raises(StateDictMismatch, match=r"besides those of resnet18: norm\.weight"):
        guess(tensors_in(content), "file")


def test_layers_of_the_training_are_left_and_named() -> None:
    content = {**prefixed("model."), **linear("arcface_margin", 512, 4), **linear("aux.loss_fn", 3, 3)}
    (message,) = guess(tensors_in(content), "file").messages
    assert message.startswith("Left behind, as no part of resnet18: arcface_margin.weight")


def test_a_student_is_found_beside_a_teacher_of_another_architecture() -> None:
    content = {"teacher": light_state("resnet34"), "student": STATE}
    for found in (guess(tensors_in(content), "file"), match_architecture(tensors_in(content), ["resnet18"], "file")):
        assert (found.arch, found.part) == ("resnet18", "student")


@pytest.mark.parametrize("arch", [*COMMON, *COMMON_WITH_PYTORCH])
def test_each_common_architecture_is_told_by_its_weights(arch: str) -> None:
    state = light_state(arch, 5)
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    assert archs_of(shapes) == ((arch, TWINS[arch]) if arch in TWINS else (arch,))
    tensors = tensors_in(prefixed("model.", state))
    assert match_architecture(tensors, [arch], "file").rows == 5
    if arch in TWINS:
        assert layout_of(TWINS[arch]).shapes == layout_of(arch).shapes
        with pytest.raises(BareStateDict, match=rf"--arch {arch} or --arch {TWINS[arch]}"):
            guess(tensors, "file")
    else:
        assert guess(tensors, "file").arch == arch


@pytest.mark.parametrize("arch", networks.ARCHITECTURES)
def test_layouts_without_pytorch_are_those_with_it(arch: str) -> None:
    from resnet_service.models import architectures

    few, many = architectures.shapes_of(arch, 10), architectures.shapes_of(arch, 11)
    assert layout_of(arch).shapes == few
    assert layout_of(arch).classifier == {key for key in few if few[key] != many[key]}


NUMBERS = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
HEADS: dict[str, tuple[dict[str, torch.Tensor], str]] = {
    "Dropout and Linear": (
        {**without("fc."), **linear("fc.1", 512, 4)},
        "Took fc.1.weight as the last layer, fc.weight of resnet18",
    ),
    "another name": ({**without("fc."), **linear("classifier", 512, 4)}, "Took classifier.weight as the last layer"),
    "beside a backbone": (
        {**prefixed("backbone.", without("fc.")), **linear("head", 512, 4)},
        "Took head.weight as the last layer",
    ),
    "numbered children": (
        {
            **{
                f"features.{NUMBERS[module]}.{rest}": tensor
                for key, tensor in without("fc.").items()
                for module, _, rest in [key.partition(".")]
            },
            **linear("classifier", 512, 4),
        },
        "Took classifier.weight as the last layer",
    ),
    "no bias": ({**without("fc."), "fc.weight": light_tensor(4, 512)}, "no bias; zeros were written"),
}


@pytest.mark.parametrize(("state", "message"), HEADS.values(), ids=HEADS)
def test_a_classifier_of_one_linear_layer_is_found(state: Tensors, message: str) -> None:
    found = guess(tensors_in(state), "file")
    assert (found.arch, found.rows) == ("resnet18", 4)
    assert any(message in one for one in found.messages)


def mobilenet(change: Callable[[nn.Module], None]) -> dict[str, torch.Tensor]:
    from torchvision.models import mobilenet_v2

    with torch.device("meta"):
        model = mobilenet_v2(num_classes=5)
        change(model)
    return light(model.state_dict())


def replace_classifier(model: Any) -> None:
    model.classifier = nn.Linear(1280, 4)


def replace_last(model: Any) -> None:
    model.classifier[1] = nn.Sequential(nn.Dropout(), nn.Linear(1280, 4))


@pytest.mark.parametrize("change", [replace_classifier, replace_last])
def test_a_changed_classifier_of_a_mobilenet_is_found(change: Callable[[nn.Module], None]) -> None:
    found = guess(tensors_in(mobilenet(change)), "file")
    assert (found.arch, found.rows) == ("mobilenet_v2", 4)


ELSE: dict[str, tuple[dict[str, Any], str]] = {
    "a head of several layers": (
        {**without("fc."), **linear("fc.0", 512, 64), **linear("fc.3", 64, 3)},
        r"a classifier of several layers \(fc\.0\.weight, fc\.3\.weight\).*one linear layer",
    ),
    "a head with a batch norm": (
        {**without("fc."), "fc.0.running_mean": light_tensor(512), **linear("fc.1", 512, 3)},
        r"several layers \(fc\.1\.weight, fc\.0\.running_mean\)",
    ),
    "a head of other features": (
        {**without("fc."), **linear("fc", 1024, 3)},
        r"fc\.weight has the shape \[3, 1024\], and resnet18 gives 512 features",
    ),
    "no head": (without("fc."), r"without a classifier \(fc\.weight\).*features, no classes\. Convert"),
    "one channel": (
        {**STATE, "conv1.weight": light_tensor(64, 1, 7, 7)},
        r"images of 1 channel; the service gives three\. .*repeat\(1, 3, 1, 1\) / 3",
    ),
    "five channels": ({**STATE, "conv1.weight": light_tensor(64, 5, 7, 7)}, r"images of 5 channels; .*Train it"),
    "the stem for CIFAR": (
        {**STATE, "conv1.weight": light_tensor(64, 3, 3, 3)},
        r"variant of resnet18 for small images.*conv1\.weight, is 3x3 where resnet18 has 7x7.*torch\.onnx\.export",
    ),
    "a layer after the classifier": (
        {**prefixed("backbone."), **linear("head", 3, 4)},
        r"layers besides those of resnet18: head\.weight.*--part backbone",
    ),
    "a layer within": (
        {**STATE, "layer1.0.attention.weight": light_tensor(64, 64)},
        r"layers besides those of resnet18: layer1\.0\.attention\.weight",
    ),
    "layers whose names contain those of a training's parts": (
        {**prefixed("model."), **linear("semantic_head", 512, 4)},
        r"layers besides those of resnet18: semantic_head\.weight",
    ),
    "a block less": (without("layer3.1."), r"does not fit resnet18: missing: layer3\.1\.conv1\.weight.*--arch NAME"),
    "no names": (
        {str(index): tensor for index, tensor in enumerate(STATE.values())},
        r"122 tensors without names.*torch\.save\(model\.state_dict\(\), FILE\)",
    ),
    "another network": (
        {"encoder.weight": light_tensor(3, 3), "decoder.weight": light_tensor(3, 3)},
        r"fit no common architecture \(encoder\.weight, decoder\.weight\)\. Name its architecture with --arch NAME",
    ),
}


@pytest.mark.parametrize(("content", "message"), ELSE.values(), ids=ELSE)
def test_for_all_else_one_sentence_says_what_differs(content: dict[str, Any], message: str) -> None:
    with pytest.raises((StateDictMismatch, BareStateDict), match=f"^the file .*{message}") as caught:
        guess(tensors_in(content), "the file")
    assert "\n" not in str(caught.value)


def test_what_is_named_is_taken_whatever_is_beside_it() -> None:
    tensors = tensors_in({**prefixed("backbone."), **linear("head", 3, 4)})
    found = guess(tensors, "file", "backbone")
    assert (found.rows, found.messages) == (3, ("Left behind, as no part of resnet18: head.weight, head.bias",))


@pytest.mark.filterwarnings("ignore")
def test_quantized_weights_are_named() -> None:
    quantize: Any = torch.ao.quantization.quantize_dynamic
    model = quantize(nn.Sequential(nn.Linear(2, 2)), {nn.Linear}, dtype=torch.qint8)
    content = {**without("fc."), **{f"fc.{key}": value for key, value in model.state_dict().items()}}
    with pytest.raises(StateDictMismatch, match=r"quantized weights \(fc\..*before quantization"):
        guess(tensors_in(content), "file")


def test_a_wrong_architecture_is_corrected() -> None:
    with pytest.raises(StateDictMismatch, match="does not fit resnet34; its weights are those of resnet18: --arch"):
        match_architecture(tensors_in(STATE), ["resnet34"], "file")
    with pytest.raises(StateDictMismatch, match="does not fit mobilenet_v2; its weights are those of resnet18: --arch"):
        match_architecture(tensors_in(STATE), ["mobilenet_v2"], "file")
    with pytest.raises(StateDictMismatch, match=r"layers besides those of resnet18: layer1\.2\.conv1\.weight"):
        match_architecture(tensors_in(light_state("resnet34")), ["resnet18"], "file")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["m{}.conv1.weight", "a." * 100 + "{}.conv1.weight", "m{}.head.weight"])
def test_a_file_of_many_tensors_is_searched_in_seconds(name: str) -> None:
    tensor = STATE["conv1.weight"]
    with pytest.raises(BareStateDict, match="no common architecture"):
        guess(tensors_in({name.format(index): tensor for index in range(MAX_TENSORS)}), "file")
    with pytest.raises(SuspiciousModel, match=r"the file has more than 20,000 tensors"):
        tensors_in({name.format(index): tensor for index in range(MAX_TENSORS + 1)})


def test_shared_and_deep_containers_are_visited_once_and_not_beyond_a_depth() -> None:
    level: Any = {"weight": torch.zeros(1)}
    for _ in range(200):
        level = {"a": level, "b": level}
    assert tensors_in(level).found == {}
    wide = [STATE] * 10_000
    assert len(tensors_in({"a": wide}).found) == len(STATE)
