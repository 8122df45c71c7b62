"""Conversion of training checkpoints: the same answers, the preprocessing, the labels, and what is said of them."""

import argparse
import copy
import functools
import importlib
import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
import transformers
from torch import nn

from resnet_service.errors import (
    BareStateDict,
    ClassCountMismatch,
    InvalidLabelSet,
    InvalidMetadata,
    ModelError,
    NonFiniteWeights,
    PickledCode,
    StateDictMismatch,
    SuspiciousModel,
    UnknownArchitecture,
    UnreadableModel,
    install_hint,
)
from resnet_service.export.conversion.network import find_network
from resnet_service.export.conversion.options import Converted, ConvertOptions
from resnet_service.export.convert import convert
from resnet_service.export.export import export
from resnet_service.models import architectures
from resnet_service.models.checkpoint.checkpoint import load_checkpoint
from resnet_service.models.checkpoint.weights import record_evaluation
from resnet_service.models.exported import read_exported
from resnet_service.models.labels import labels_for, read_label_set
from resnet_service.models.layouts import RARE_TWINS, layout_of
from resnet_service.models.metadata import MAX_CLASSES, EvaluationRecord
from tests.support.models import random_checkpoint, random_model
from tests.support.servers import REPOSITORY, cli, cli_here, hidden
from tests.support.training import light, light_state

MODEL: Any = random_model(num_classes=3)
# Where the architecture does not matter, one whose file has 5 MB instead of 45.
SMALL_ARCH = "shufflenet_v2_x1_0"
SMALL = random_model(SMALL_ARCH, 3)
IMAGES = torch.rand(2, 3, 64, 64)
NO_ARCH = "The file names no architecture that is known; its weights are those of "
RECORD = EvaluationRecord(dataset="d", sha256="0" * 64, pictures=3, top1=50, top5=100, calibration_error=0.1)


def answers(path: Path) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = load_checkpoint(path).model(IMAGES)
        return found


def converted(folder: Path, content: Any, **options: Any) -> tuple[Path, Converted, list[str]]:
    """Save ``content``, convert the file, and return the checkpoint, what is returned, and the messages."""
    torch.save(content, folder / "source.pth")
    messages: list[str] = []
    target = folder / "model.safetensors"
    return target, convert(folder / "source.pth", target, ConvertOptions(**options), messages.append), messages


class WithHead(nn.Module):
    """The way in which many fine-tune: all but the last layer, and a layer of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*list(copy.deepcopy(MODEL).children())[:-1])
        self.head = nn.Linear(512, 4, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.features(images).flatten(1))
        return found


def sequential_head() -> nn.Module:
    model: nn.Module = copy.deepcopy(MODEL)
    model.fc = nn.Sequential(nn.Dropout(0.2), nn.Linear(512, 4))
    return model.eval()


def of_transformers() -> nn.Module:
    config = transformers.ResNetConfig(  # type: ignore[call-arg]
        embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic", num_labels=4
    )
    model: nn.Module = transformers.ResNetForImageClassification(config).train()
    with torch.no_grad():
        model(torch.randn(4, 3, 64, 64))  # so that batch norms have statistics
    return model.eval()


@pytest.mark.parametrize("make", [WithHead, sequential_head, of_transformers])
@pytest.mark.parametrize("whole", [False, True])
def test_answers_are_those_of_the_network(tmp_path: Path, make: Callable[[], nn.Module], whole: bool) -> None:
    """A whole model is read without running the code that it names: this test's own class is not needed, either."""
    torch.manual_seed(1)
    model = make().eval()
    target, found, _ = converted(tmp_path, model if whole else {"state_dict": model.state_dict(), "epoch": 3})
    assert (found.metadata.arch, found.metadata.num_classes) == ("resnet18", 4)
    with torch.inference_mode():
        wanted = model(IMAGES)
        assert torch.equal(answers(target), getattr(wanted, "logits", wanted))


def dilated() -> Any:
    return torchvision.models.resnet50(replace_stride_with_dilation=[False, True, True])


def without_pool() -> Any:
    model = torchvision.models.resnet18()
    model.maxpool = nn.Identity()
    return model


def of_other_pool() -> Any:
    model = torchvision.models.resnet18()
    model.avgpool = nn.AdaptiveMaxPool2d(1)
    return model


def of_other_activation() -> Any:
    model = torchvision.models.resnet18()
    model.relu = nn.SiLU()
    return model


def without_activation() -> Any:
    model = torchvision.models.resnet18()
    model.relu = nn.Identity()
    return model


def of_other_epsilon() -> Any:
    return torchvision.models.resnet18(norm_layer=functools.partial(nn.BatchNorm2d, eps=0.1))


def of_average_pools() -> Any:
    return timm.create_model("resnetaa50")


def mobilenet_of_other_activation() -> Any:
    model = torchvision.models.mobilenet_v2()
    model.features[0][2] = nn.ReLU()
    return model


def mobilenet_of_other_stride() -> Any:
    model = torchvision.models.mobilenet_v2()
    model.features[0][0].stride = (1, 1)
    return model


class OwnActivation(nn.Module):
    """A module whose computation nothing but its code says."""


def of_own_activation() -> Any:
    model = torchvision.models.resnet18()
    model.relu = OwnActivation()
    return model


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (dilated, r"stride of .*layer3\.0\.conv2 is \(1, 1\), not 2"),
        (without_pool, "0 modules of max pooling"),
        (of_other_pool, r"avgpool is a torch\.nn\.modules\.pooling\.AdaptiveMaxPool2d"),
        (of_other_activation, r"relu is a torch\.nn\.modules\.activation\.SiLU"),
        (without_activation, r"relu is a .*Identity"),
        (of_other_epsilon, r"eps of .*bn1 is 0\.1, not 1e-05"),
        (of_average_pools, r"(is a .*AvgPool2d|stride of )"),
        (of_own_activation, r"relu is a tests\..*OwnActivation"),
        (mobilenet_of_other_activation, r"features\.0\.2 is a .*\.ReLU"),
        (mobilenet_of_other_stride, r"stride of .*features\.0\.0 is \(1, 1\), not \(2, 2\)"),
    ],
)
def test_a_pickled_network_that_computes_otherwise_is_refused(
    tmp_path: Path, make: Callable[[], nn.Module], words: str
) -> None:
    for content in (make(), {"model": make(), "epoch": 3}):
        with pytest.raises(StateDictMismatch, match=rf"computes otherwise: .*{words}.*state_dict\(\), FILE"):
            converted(tmp_path, content)


@pytest.mark.parametrize(
    "arch", ["resnet18", "resnext50_32x4d", "timm/resnet50", "timm/tf_efficientnet_lite0", "mobilenet_v2", "vgg16_bn"]
)
def test_a_pickled_network_of_an_architecture_is_converted(tmp_path: Path, arch: str) -> None:
    torch.save(light_module(arch), tmp_path / "source.pth")
    options = ConvertOptions(arch=arch)
    assert find_network(tmp_path / "source.pth", options, lambda _: None).match.part == ""


def light_module(arch: str) -> nn.Module:
    """Return an architecture whose tensors have one stored number each."""
    model = architectures.build(arch, 3)
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    one: Any = torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
                    tensors[name] = nn.Parameter(one) if tensors is module._parameters else one
    return model


def test_the_averaged_weights_are_taken_and_nothing_needs_trust(tmp_path: Path) -> None:
    averaged = {f"module.{key}": tensor for key, tensor in MODEL.state_dict().items()}
    content = {
        "model": light_state("resnet18", 3),
        "model_ema": {"n_averaged": torch.tensor(3), **averaged},
        "args": argparse.Namespace(model="resnet18", output_dir=Path()),
        "best": np.float64(0.9),
    }
    target, _, messages = converted(tmp_path, content)
    assert torch.equal(answers(target), MODEL(IMAGES))
    assert messages == [
        "Several parts of the file match: model_ema.module, model. Took model_ema.module, the averaged weights; "
        "--part NAME takes another",
        "Left behind, as no part of resnet18: n_averaged",
    ]


def test_one_output_is_written_as_two_classes_with_the_answers_of_the_sigmoid(tmp_path: Path) -> None:
    model = copy.deepcopy(MODEL)
    model.fc = nn.Linear(512, 1)
    with pytest.raises(ClassCountMismatch, match=r"one output.*softmax of one number is always 1.*convert --binary"):
        converted(tmp_path, model.state_dict())
    target, found, _ = converted(tmp_path, model.state_dict(), binary=True)
    with torch.inference_mode():
        positive = model(IMAGES).sigmoid()
    assert torch.allclose(answers(target).softmax(1), torch.cat([1 - positive, positive], 1), atol=1e-6)
    assert [one.name for one in labels_for(found.metadata, target).classes] == ["negative", "positive"]
    with pytest.raises(ClassCountMismatch, match="--binary is for a network of one output"):
        converted(tmp_path, MODEL.state_dict(), binary=True)


def test_the_option_wins_over_the_architecture_in_the_file(tmp_path: Path) -> None:
    content = {"arch": "resnet50", "state_dict": SMALL.state_dict()}
    _, found, messages = converted(tmp_path, content, arch="ShuffleNet-V2-X1.0")
    assert found.metadata.arch == SMALL_ARCH
    assert messages == [f"--arch {SMALL_ARCH} is used; the file says resnet50"]
    _, found, messages = converted(tmp_path, content)
    assert found.metadata.arch == SMALL_ARCH
    assert messages == [f"The file says resnet50, but its weights are those of {SMALL_ARCH}, which is used"]


@pytest.mark.parametrize(
    "content",
    [
        {"arch": "ShuffleNet_V2_x1_0"},
        {"arch": "shufflenet-v2-x1-0"},
        {"model_name": SMALL_ARCH},
        {"hyper_parameters": {"arch": SMALL_ARCH}},
        {"args": argparse.Namespace(model=SMALL_ARCH)},
    ],
)
def test_the_architecture_in_the_file_is_found(tmp_path: Path, content: dict[str, Any]) -> None:
    assert converted(tmp_path, {**content, "state_dict": SMALL.state_dict()})[2] == []


@pytest.mark.parametrize("arch", ["ResNet", "resnet18_dilated_output_stride8"])
def test_an_unknown_architecture_in_the_file_is_quoted_and_the_option_needed(tmp_path: Path, arch: str) -> None:
    content = {"arch": arch, "state_dict": SMALL.state_dict()}
    with pytest.raises(UnknownArchitecture, match=rf"'{arch}' as its arch, which is no .* with --arch;"):
        converted(tmp_path, content)
    assert converted(tmp_path, content, arch=SMALL_ARCH)[1].metadata.arch == SMALL_ARCH


def test_rare_networks_of_the_same_weights_are_named(tmp_path: Path) -> None:
    message = converted(tmp_path, MODEL.state_dict())[2][0]
    assert message == f"{NO_ARCH}resnet18. If it is timm/resnetblur18, which has the same keys, name it with --arch"
    for arch, others in RARE_TWINS.items():
        for other in others:
            assert layout_of(other).shapes == layout_of(arch).shapes


def test_mean_and_std_of_the_network_become_those_of_the_metadata(tmp_path: Path) -> None:
    state = {f"model.{key}": tensor for key, tensor in SMALL.state_dict().items()}
    buffers = {"normalize.mean": torch.full((1, 3, 1, 1), 0.25), "normalize.std": torch.full((3,), 0.5)}
    _, found, _ = converted(tmp_path, {**state, **buffers})
    assert (found.metadata.mean, found.metadata.std) == ((0.25,) * 3, (0.5,) * 3)
    buffers["normalize.mean"] *= 255
    with pytest.raises(InvalidMetadata, match=r"the mean 63\.75 63\.75 63\.75 is not of pixels in 0 \.\.\. 1"):
        converted(tmp_path, {**state, **buffers})


def test_a_mean_of_pixels_to_255_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidMetadata, match=r"the mean 123\.7 116\.3 103\.5 is not .* divided by 255"):
        converted(tmp_path, SMALL.state_dict(), mean=(123.7, 116.3, 103.5))


def test_another_suffix_is_said_to_decide_the_format(tmp_path: Path) -> None:
    torch.save(SMALL.state_dict(), tmp_path / "source.pth")
    messages: list[str] = []
    convert(tmp_path / "source.pth", tmp_path / "model.bin", ConvertOptions(), messages.append)
    assert "model.bin is written in PyTorch's format: the suffix decides" in messages[-1]


def test_a_configuration_beside_the_file_is_named_and_gives_the_names(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"id2label": {"0": "cat", "1": "dog", "2": "owl"}}))
    messages = converted(tmp_path, SMALL.state_dict())[2]
    assert messages[-1].endswith(f" is not read. If it has the names of the classes: --labels {config}")
    found = converted(tmp_path, SMALL.state_dict(), label_file=config)[1]
    assert found.metadata.class_names == ("cat", "dog", "owl")


@pytest.mark.filterwarnings("ignore")  # TorchScript is deprecated; its files are still there
def test_without_pytorch_the_extra_is_named_for_what_only_it_knows(tmp_path: Path) -> None:
    script: Any = torch.jit.script(nn.Sequential(nn.Linear(2, 2)))
    script.save(tmp_path / "script.pt")
    without = hidden(tmp_path / "hidden")
    torch.save({"arch": "mobilenetv3_small_100", "state_dict": MODEL.state_dict()}, tmp_path / "timm.pth")
    for options in (["--trust-pickle", tmp_path / "script.pt"], [tmp_path / "timm.pth"]):
        done = cli("convert", *options, tmp_path / "o.safetensors", PYTHONPATH=without)
        assert done.returncode == 1
        assert "[torch]'" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    state = {**SMALL.state_dict(), "fc.weight": torch.ones(3, 1024, dtype=torch.int8)}
    for content in (state, {"arch": SMALL_ARCH, "state_dict": state}):
        with pytest.raises(StateDictMismatch, match=r"type int8 in fc\.weight, .* before quantization"):
            converted(tmp_path, content)


@pytest.mark.parametrize("arch", [None, 3])
def test_what_is_no_architecture_is_none(tmp_path: Path, arch: Any) -> None:
    assert converted(tmp_path, {"arch": arch, "state_dict": SMALL.state_dict()})[2] == [NO_ARCH + SMALL_ARCH]


def test_preprocessing_is_that_of_the_architecture(tmp_path: Path) -> None:
    """For EfficientNet-Lite0, ImageNet's standard values would give other answers."""
    model = random_model("timm/tf_efficientnet_lite0", 4)
    _, found, _ = converted(tmp_path, {"arch": "tf_efficientnet_lite0", "state_dict": model.state_dict()})
    facts = found.metadata
    assert (facts.input_size, facts.resize_size, facts.interpolation) == (224, 256, "bicubic")
    assert (facts.mean, facts.std) == ((0.5,) * 3, (0.5,) * 3)
    assert found.preprocessing_source == "from timm's configuration of tf_efficientnet_lite0"


def test_a_bare_state_dict_is_served_with_the_preprocessing_of_its_architecture(tmp_path: Path) -> None:
    torch.save(random_model("timm/tf_efficientnet_lite0", 4).state_dict(), tmp_path / "bare.pth")
    facts = load_checkpoint(tmp_path / "bare.pth", arch="timm/tf_efficientnet_lite0").metadata
    assert (facts.interpolation, facts.mean, facts.std) == ("bicubic", (0.5,) * 3, (0.5,) * 3)


def test_a_dict_of_four_keys_is_served_as_it_is_converted(tmp_path: Path) -> None:
    """What is stated stays; what is not comes from the architecture, in both ways."""
    arch = "timm/tf_efficientnet_lite0"
    content = {"arch": arch, "state_dict": random_model(arch, 4).state_dict(), "num_classes": 4, "input_size": 112}
    _, found, _ = converted(tmp_path, content)
    for read in (load_checkpoint(tmp_path / "source.pth").metadata, found.metadata):
        assert (read.resize_size, read.interpolation, read.mean, read.std) == (128, "bicubic", (0.5,) * 3, (0.5,) * 3)
    torch.save({**content, "mean": (0.1, 0.2, 0.3), "interpolation": "bilinear"}, tmp_path / "source.pth")
    facts = load_checkpoint(tmp_path / "source.pth").metadata
    assert (facts.mean, facts.interpolation, facts.std) == ((0.1, 0.2, 0.3), "bilinear", (0.5,) * 3)


def test_twins_are_both_named(tmp_path: Path) -> None:
    torch.save(random_model("timm/efficientnet_lite0", 4).state_dict(), tmp_path / "bare.pth")
    with pytest.raises(BareStateDict) as caught:
        load_checkpoint(tmp_path / "bare.pth")
    names = ["timm/tf_efficientnet_lite0", "timm/efficientnet_lite0"]
    assert (
        f"keys are those of {' and '.join(names)}, which compute differently: give --arch {names[0]} or "
        f"--arch {names[1]}, or"
    ) in str(caught.value)
    assert "OUTPUT.safetensors --arch NAME" in str(caught.value)


@pytest.mark.parametrize("name", ["ResNet-18", "timm/ResNet18", "torchvision.models.resnet18"])
def test_loading_takes_names_as_converting_does(tmp_path: Path, name: str) -> None:
    torch.save(MODEL.state_dict(), tmp_path / "bare.pth")
    arch = "timm/resnet18" if name.startswith("timm/") else "resnet18"
    assert load_checkpoint(tmp_path / "bare.pth", arch=name).metadata.arch == arch


def test_the_command_says_what_it_wrote(tmp_path: Path) -> None:
    content = {"state_dict": SMALL.state_dict(), "input_size": [3, 192, 192], "std": "wrong"}
    torch.save(content, tmp_path / "source.pth")
    target = tmp_path / "model.safetensors"
    done = cli_here("convert", tmp_path / "source.pth", target, "--mean", "0.5", "0.5", "0.5")
    assert done.returncode == 0, done.stderr
    *others, wrote = done.stderr.splitlines()
    assert wrote == (
        f"Wrote {target}: {SMALL_ARCH}, 3 classes, 192 pixels from 219, bilinear, mean 0.5 0.5 0.5, "
        "std 0.229 0.224 0.225 (mean from the options, input size from the file, else from torchvision's configuration "
        f"of {SMALL_ARCH})"
    )
    assert others[0] == NO_ARCH + SMALL_ARCH
    assert others[1].startswith("std in the file is not used: ")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_classes": 7}, ClassCountMismatch, r"--num-classes is 7, but the last layer of .*source\.pth has 3 rows"),
        ({"input_size": 3}, InvalidMetadata, "--input-size: .*8"),
        ({"std": (0.0, 1.0, 1.0)}, InvalidMetadata, "--std: .*above zero"),
        ({"resize_size": 100}, InvalidMetadata, "224 pixels is larger than the 100 .*--input-size.*--resize-size"),
        ({"label_file": Path("labels/imagenet1k.json")}, ClassCountMismatch, "1000 classes"),
    ],
)
def test_messages_name_the_options(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        converted(tmp_path, SMALL.state_dict(), **options)
    assert [path.name for path in tmp_path.iterdir()] == ["source.pth"]


def test_the_checkpoint_carries_the_names_of_the_classes_and_no_file_is_written(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\nowl\n")
    content = {"state_dict": SMALL.state_dict(), "classes": ["a", "b", "c"]}
    target, found, _ = converted(tmp_path, content, label_file=tmp_path / "names.txt")
    assert [one.name for one in labels_for(found.metadata, target).classes] == ["cat", "dog", "owl"]
    assert found.metadata.labels is None
    assert {path.name for path in tmp_path.iterdir()} == {"source.pth", "names.txt", target.name}
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    with pytest.raises(ClassCountMismatch, match=r"names\.txt names 2 classes, but .* has 3"):
        converted(tmp_path, content, label_file=tmp_path / "names.txt")


def test_a_converted_and_an_exported_model_alone_have_the_names(tmp_path: Path) -> None:
    classes = [{"index": index, "name": name} for index, name in enumerate(("cat", "dog", "owl"))]
    (tmp_path / "pets.json").write_text(json.dumps({"name": "pets", "classes": classes}))
    _, reference = read_label_set(tmp_path / "pets.json")
    source = random_checkpoint(tmp_path / "source.pth", num_classes=3, labels=reference)
    state = torch.load(source, weights_only=True)
    state.pop("class_names")  # as version 1.0.0 wrote it
    torch.save(state, source)
    elsewhere = tmp_path / "a" / "model.safetensors"
    elsewhere.parent.mkdir()
    convert(source, elsewhere)
    export(elsewhere, tmp_path / "b" / "model.onnx")
    convert(elsewhere, tmp_path / "c" / "model.pth")
    for path in (elsewhere, tmp_path / "b" / "model.onnx", tmp_path / "c" / "model.pth"):
        (tmp_path / "alone" / path.parent.name).mkdir(parents=True)
        alone = path.rename(tmp_path / "alone" / path.parent.name / path.name)
        metadata = read_exported(alone).metadata if alone.suffix == ".onnx" else load_checkpoint(alone).metadata
        assert metadata.labels == reference
        assert [one.name for one in labels_for(metadata, alone).classes] == ["cat", "dog", "owl"]
        assert len(list(alone.parent.iterdir())) == 1


def test_names_of_an_option_replace_those_of_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\nowl\n")
    source = random_checkpoint(tmp_path / "source.pth", num_classes=3, arch=SMALL_ARCH, class_names=("a", "b", "c"))
    target = tmp_path / "model.safetensors"
    assert convert(source, target).metadata.class_names == ("a", "b", "c")
    found = convert(source, target, ConvertOptions(label_file=tmp_path / "names.txt"))
    assert found.metadata.class_names == ("cat", "dog", "owl")
    (tmp_path / "fashion-mnist.json").write_bytes((REPOSITORY / "labels" / "fashion-mnist.json").read_bytes())
    with pytest.raises(ClassCountMismatch, match="names 10 classes"):
        convert(source, target, ConvertOptions(label_file=tmp_path / "fashion-mnist.json"))


@pytest.mark.parametrize(
    "names",
    [
        {"classes": ["cat", "dog", "owl"], "class_to_idx": {"cat": 1, "dog": 0, "owl": 2}},
        {"classes": ["cat", "dog", "owl"], "args": {"class_names": ["cat", "owl", "dog"]}},
    ],
)
def test_orders_that_contradict_each_other_are_refused(tmp_path: Path, names: dict[str, Any]) -> None:
    with pytest.raises(InvalidLabelSet, match=r"classes and class_\w+ differ in names or order.*--labels"):
        converted(tmp_path, {"state_dict": SMALL.state_dict(), **names})


def test_control_characters_in_names_are_not_used(tmp_path: Path) -> None:
    _, found, _ = converted(tmp_path, {"state_dict": SMALL.state_dict(), "classes": ["a\x1b[2J", "b", "c"]})
    assert found.metadata.class_names is None
    (tmp_path / "names.json").write_text(json.dumps(["a\x1b[2J", "b", "c"]))
    with pytest.raises(InvalidLabelSet, match=r"not valid: .*control characters"):
        converted(tmp_path, SMALL.state_dict(), label_file=tmp_path / "names.json")


@pytest.mark.parametrize(
    "names",
    [
        {"classes": ["cat", "dog", "owl"]},
        {"classes": np.array(["cat", "dog", "owl"])},
        {"classes": np.array(["cat", "dog", "owl"], dtype=object)},
        {"class_to_idx": {"dog": 1, "cat": 0, "owl": 2}},
        {"hyper_parameters": {"class_names": ("cat", "dog", "owl")}},
        {"idx_to_class": {0: "cat", 1: "dog", 2: "owl"}},
        {"classes": ["cat", "dog", "owl"], "class_to_idx": {"dog": 1, "cat": 0, "owl": 2}},
    ],
)
def test_names_in_the_file_are_used(tmp_path: Path, names: dict[str, Any]) -> None:
    target, found, messages = converted(tmp_path, {"state_dict": SMALL.state_dict(), **names})
    assert [one.name for one in labels_for(found.metadata, target).classes] == ["cat", "dog", "owl"]
    assert any(text.startswith("The names of the classes are those of ") for text in messages)


def everywhere(names: Callable[[], Any]) -> dict[str, Any]:
    """Return names under all keys at which they are looked for; the same object is stored once."""
    keys = ("classes", "class_names", "labels", "label_names", "categories", "id2label", "idx_to_class")
    options = ("hyper_parameters", "hparams", "args", "opt", "config", "cfg", "params", "meta", "model_args")
    return {option: {key: names() for key in keys} for option in options} | {key: names() for key in keys}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["the same list", "arrays", "too long an array"])
def test_many_names_take_little_memory(kind: str, tmp_path: Path) -> None:
    """Each name takes 500 bytes as a label, and a pickle of a megabyte can have the same names under 70 keys."""
    many = [f"name {number}" for number in range(MAX_CLASSES + 1 if kind.startswith("too") else 2000)]
    array = np.array(many)
    content = everywhere(lambda: array.copy() if kind == "arrays" else array if "array" in kind else many)
    source = tmp_path / "named.pth"
    torch.save({"state_dict": SMALL.state_dict(), **content}, source)
    tracemalloc.start()
    try:
        found = convert(source, tmp_path / "model.safetensors")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.metadata.class_names is None
    assert peak < source.stat().st_size * 2 + 40e6


def test_names_that_do_not_fit_are_not_used(tmp_path: Path) -> None:
    _, found, messages = converted(tmp_path, {"state_dict": SMALL.state_dict(), "classes": ["cat", "dog"]})
    assert found.metadata.class_names is None
    assert "classes in the file names 2 classes, and the last layer has 3 rows; it is not used" in messages


def test_a_checkpoint_keeps_its_metadata_and_loses_records_that_no_longer_hold(tmp_path: Path) -> None:
    source = random_checkpoint(tmp_path / "source.pth", arch=SMALL_ARCH, mean=(0.1, 0.2, 0.3), interpolation="bicubic")
    record_evaluation(source, RECORD)
    before = load_checkpoint(source).metadata
    found = convert(source, tmp_path / "model.safetensors")
    assert found.metadata.model_copy(update={"library_versions": {}}) == before.model_copy(
        update={"library_versions": {}}
    )
    assert found.preprocessing_source == "from the file"
    messages: list[str] = []
    found = convert(source, tmp_path / "model.safetensors", ConvertOptions(std=(1, 1, 1)), messages.append)
    assert found.metadata.evaluations == ()
    assert "evaluations are left out" in messages[0]


def test_weights_that_are_no_numbers_are_refused_by_the_name_of_the_source(tmp_path: Path) -> None:
    state = {key: tensor.clone() for key, tensor in SMALL.state_dict().items()}
    state["fc.bias"][0] = 1e6
    with pytest.raises(NonFiniteWeights, match=r"source\.pth has weights beyond float16 in fc\.bias.*--dtype float16"):
        converted(tmp_path, state, dtype="float16")
    state["fc.bias"][0] = torch.nan
    with pytest.raises(NonFiniteWeights, match=r"source\.pth has NaN or infinity in fc\.bias"):
        converted(tmp_path, state)


def test_other_architectures_and_types_are_written_by_pytorch(tmp_path: Path) -> None:
    model = random_model("timm/test_resnet", 4)
    target, found, _ = converted(tmp_path, {"arch": "test_resnet", "state_dict": model.half().state_dict()})
    assert (found.metadata.arch, found.metadata.input_size) == ("timm/test_resnet", 160)
    assert torch.allclose(answers(target), model.float()(IMAGES))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_known_architectures_are_converted_without_pytorch(tmp_path: Path, suffix: str) -> None:
    source, target = tmp_path / f"source{suffix}", tmp_path / "model.safetensors"
    state = {f"model.{key}": tensor.contiguous() for key, tensor in MODEL.state_dict().items()}
    safetensors.torch.save_file(state, source) if suffix == ".safetensors" else torch.save({"net": state}, source)
    done = cli("convert", source, target, PYTHONPATH=hidden(tmp_path / "hidden"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(f"{NO_ARCH}resnet18. If ")
    assert f"\nWrote {target}: resnet18, 3 classes, 224 pixels" in done.stderr
    assert torch.equal(answers(target), MODEL(IMAGES))


def test_without_pytorch_other_architectures_and_formats_name_the_extra(tmp_path: Path) -> None:
    source, target = tmp_path / "source.pth", tmp_path / "model.safetensors"
    torch.save(SMALL.state_dict(), source)
    known = random_checkpoint(tmp_path / "known.pth")
    for arguments in ([source, target], [source, target, "--arch", "mobilenet_v2"], [known, tmp_path / "model.pth"]):
        done = cli("convert", *arguments, PYTHONPATH=hidden(tmp_path / "hidden"))
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert install_hint("torch") in done.stderr


class Hidden:
    """An object whose weights are visible only after its code has run."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return exec, (f"open({str(self.canary)!r}, 'w').close()",)


def test_without_trust_nothing_runs_and_with_it_messages_name_the_file(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    with pytest.raises(PickledCode, match=r"builtin\w*\.exec.*source\.pth OUTPUT\.safetensors"):
        converted(tmp_path, {"state_dict": Hidden(canary)})
    converted(tmp_path, {"state_dict": SMALL.state_dict(), "other": Hidden(canary)}, trust_pickle=True)
    assert not canary.exists()  # the weights were found without
    with pytest.raises(UnreadableModel, match=r"source\.pth has no weights") as caught:
        converted(tmp_path, {"state_dict": Hidden(canary)}, trust_pickle=True)
    assert canary.exists()
    assert "plain.pth" not in str(caught.value)


def test_trusted_code_is_found_in_the_current_folder_and_no_other_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_training.py").write_text(
        "def rebuild(state):\n    return state\n\n"
        "class Run:\n    def __reduce__(self):\n        return rebuild, (self.state,)\n"
    )
    (tmp_path / "torch.py").write_text("raise SystemExit('this is not PyTorch')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    run = importlib.import_module("my_training").Run()
    run.state = SMALL.state_dict()
    path, _, _ = converted(tmp_path, run, trust_pickle=True)
    assert path.exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"part": "layre"}, BareStateDict, "no such part. Its parts are model"),
        ({"arch": "resnet34"}, StateDictMismatch, "does not fit resnet34"),
        ({"arch": "resnt18"}, UnknownArchitecture, "nearest"),
        ({"num_classes": 4}, ClassCountMismatch, "--num-classes is 4"),
    ],
)
def test_trusted_code_does_not_run_where_an_option_is_wrong(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    canary = tmp_path / "canary"
    content = {"model": MODEL.state_dict(), "other": Hidden(canary)}
    with pytest.raises(error, match=message):
        converted(tmp_path, content, trust_pickle=True, **options)
    assert not canary.exists()


def test_trusted_code_does_not_run_in_files_beyond_a_limit_or_damaged(tmp_path: Path) -> None:
    canary, source = tmp_path / "canary", tmp_path / "source.pth"
    tensor = torch.zeros(())
    with pytest.raises(SuspiciousModel, match="more than 20,000 tensors"):
        converted(tmp_path, {"many": [tensor] * 20_001, "other": Hidden(canary)}, trust_pickle=True)
    torch.save({"other": Hidden(canary)}, source)
    source.write_bytes(source.read_bytes()[:-100])
    with pytest.raises(UnreadableModel, match="damaged"):
        convert(source, tmp_path / "model.pth", ConvertOptions(trust_pickle=True))
    assert not canary.exists()


@pytest.mark.parametrize("arch", [None, "resnet34"])
def test_trusted_code_runs_where_the_tensors_are_those_of_no_network(tmp_path: Path, arch: str | None) -> None:
    """As of an optimizer, which is beside an object that hides the network."""
    content = {"optimizer": {"exp_avg": torch.zeros(2, 2)}, "net": [Opaque()], "arch": arch}
    with pytest.raises(ModelError):
        converted(tmp_path, content)
    assert converted(tmp_path, content, trust_pickle=True)[1].metadata.num_classes == 4


class Opaque:
    """An object that is made by its own code of numbers that are no tensors."""

    def __reduce__(self) -> Any:
        return eval, ("__import__('torchvision').models.resnet18(num_classes=4).eval()",)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["hidden", "script"])
def test_a_trusted_file_is_reduced_to_its_weights(tmp_path: Path, form: str) -> None:
    source, target = tmp_path / "source.pt", tmp_path / "model.safetensors"
    if form == "script":
        torch.jit.script(MODEL).save(source)
    else:
        torch.save({"learner": [Opaque()], "epoch": 3}, source)
    with pytest.raises(ModelError):
        convert(source, target)
    metadata = convert(source, target, ConvertOptions(trust_pickle=True)).metadata
    assert metadata.num_classes == (3 if form == "script" else 4)
    if form == "script":
        assert torch.equal(answers(target), MODEL(IMAGES))


def test_a_file_of_one_number_for_each_tensor_is_refused_when_its_weights_are_read(tmp_path: Path) -> None:
    with pytest.raises(UnreadableModel, match=r"conv1\.weight has no numbers, or more than its storage"):
        converted(tmp_path, light(MODEL.state_dict()))


def test_a_label_set_of_this_service_is_referred_to(tmp_path: Path) -> None:
    classes = [{"index": index, "name": name} for index, name in enumerate(("cat", "dog", "owl"))]
    (tmp_path / "pets.json").write_text(json.dumps({"name": "pets", "classes": classes}))
    _, found, _ = converted(tmp_path, SMALL.state_dict(), label_file=tmp_path / "pets.json")
    assert found.metadata.labels is not None
    assert found.metadata.labels.name == "pets"
    assert found.metadata.class_names == ("cat", "dog", "owl")
    assert os.listdir(tmp_path).count("pets.json") == 1
