"""Graphs built from weights without PyTorch: they compute what PyTorch computes, and refuse weights that do not fit."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from timm.models._efficientnet_blocks import InvertedResidual
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from resnet_service.errors import ClassCountMismatch, NonFiniteWeights, StateDictMismatch, UnknownArchitecture
from resnet_service.imaging.decode import decode
from resnet_service.imaging.preprocess import crop, normalise
from resnet_service.models import architectures, graphs
from resnet_service.models.exported import ExportedModel
from resnet_service.models.graphs import add_class_weights, build_graph
from resnet_service.models.metadata import ModelMetadata
from resnet_service.models.networks import ARCHITECTURES, state_shapes
from resnet_service.runtimes.openvino import OpenVINORuntime
from tests.support.images import EXAMPLES
from tests.support.models import metadata

TOLERANCE = 1e-5  # of the largest |logit|
# Of the largest activation: rounding shows more in one than in a logit. PyTorch's own are off by 2e-4 of float64's.
ACTIVATION_TOLERANCE = 1e-3
LITE0 = "timm/tf_efficientnet_lite0"
FAST = ("resnet18", LITE0)
# 224 and 225 pixels take different SAME paddings.
SHAPES = [(224, 1000), (225, 7)]
Array = NDArray[Any]


@torch.no_grad()
def random_network(arch: str, num_classes: int) -> nn.Module:
    """Return a network in which every number is random; in a fresh one, batch norms are almost the identity.

    Means and variances are random about those of photographs. About 0 and 1, the image would be lost on the way through
    EfficientNet's fifty layers, and the answer would depend on biases alone. As in trained networks, residual blocks
    change their input a little; otherwise a hundred layers would amplify rounding errors beyond the tolerance.
    """
    torch.manual_seed(0)
    model = architectures.build(arch, num_classes).train()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0  # take the statistics of the only batch
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0.5, 0.3)
    for block in model.modules():
        if isinstance(block, (BasicBlock, Bottleneck, InvertedResidual)):
            last = [module for module in block.children() if isinstance(module, nn.BatchNorm2d)][-1]
            nn.init.uniform_(last.weight, 0.2, 0.6)
    facts = facts_of(arch, 64, num_classes)
    reference(model, photographs(facts), facts)
    for norm in norms:
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None
        assert variance is not None
        mean += 0.3 * torch.randn_like(mean) * variance.sqrt()
        variance *= torch.empty_like(variance).uniform_(0.5, 2.0)
    return model.eval()


def arrays(model: nn.Module) -> dict[str, Array]:
    return {key: tensor.numpy() for key, tensor in model.state_dict().items()}


def facts_of(arch: str, side: int, num_classes: int) -> ModelMetadata:
    """Return metadata with a normalisation whose channels all differ."""
    return metadata(
        arch=arch,
        num_classes=num_classes,
        input_size=side,
        resize_size=256,
        mean=(0.4, 0.45, 0.5),
        std=(0.2, 0.25, 0.3),
    )


def photographs(facts: ModelMetadata) -> Array:
    return np.stack([crop(decode(path.read_bytes()).image, facts) for path in sorted(EXAMPLES.glob("*.jpg"))])


def reference(model: nn.Module, pixels: Array, facts: ModelMetadata) -> Array:
    """Return PyTorch's logits for uint8 [N, S, S, 3]."""
    with torch.no_grad():
        logits: Array = model(torch.from_numpy(normalise(pixels, facts)).permute(0, 3, 1, 2)).numpy()
    return logits


def run(model: onnx.ModelProto, pixels: Array) -> dict[str, Array]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"pixels": pixels}), strict=True))


def difference(found: Array, expected: Array) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@contextmanager
def normalisation_left_out(norm: str) -> Iterator[None]:
    """Let one batch norm stay out of its convolution."""
    fold = graphs._folded

    def forgetful(step: Any, state: Mapping[str, Array], epsilon: float) -> tuple[Array, Array]:
        weight, bias = fold(step, state, epsilon)
        return (state[f"{step.name}.weight"], np.zeros_like(bias)) if step.norm == norm else (weight, bias)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "_folded", forgetful)
        yield


@pytest.mark.parametrize(("side", "num_classes"), SHAPES)
@pytest.mark.parametrize(
    "arch", [arch if arch in FAST else pytest.param(arch, marks=pytest.mark.slow) for arch in ARCHITECTURES]
)
def test_logits_are_those_of_pytorch(arch: str, side: int, num_classes: int) -> None:
    """In ONNX Runtime for a batch, and in the runtime that serves."""
    network, facts = random_network(arch, num_classes), facts_of(arch, side, num_classes)
    pixels = photographs(facts)
    expected = reference(network, pixels, facts)
    model, outputs = build_graph(arrays(network), facts, "x")
    add_class_weights(model)
    onnx.checker.check_model(model, full_check=True)

    found = run(model, pixels)
    assert difference(found["logits"], expected) < TOLERANCE
    served = OpenVINORuntime(ExportedModel(model.SerializeToString(), facts, "fp32", "", outputs))
    assert difference(served.logits(pixels), expected) < TOLERANCE
    assert np.ptp(expected, axis=0).max() > 0.1 * np.abs(expected).max()  # the answers depend on the image

    # The other outputs are those from which the logits come.
    assert found["feature_map"].shape[1:] == outputs.feature_map
    assert difference(found["feature_map"].mean(axis=(2, 3)), found["embedding"]) < TOLERANCE
    bias = list(network.state_dict().values())[-1].numpy()
    assert difference(found["embedding"] @ found["class_weights"].T + bias, expected) < TOLERANCE
    features = served.features(pixels[0])
    assert features.feature_map is not None
    assert difference(features.embedding, found["embedding"][0]) < ACTIVATION_TOLERANCE
    assert difference(features.feature_map, found["feature_map"][0]) < ACTIVATION_TOLERANCE
    assert served.class_weights is not None
    np.testing.assert_array_equal(served.class_weights, found["class_weights"])


@pytest.mark.parametrize("arch", ["resnet18", pytest.param("resnet50", marks=pytest.mark.slow), LITE0])
def test_a_batch_norm_that_is_not_folded_shows(arch: str) -> None:
    """Each one of them, so that the comparison above would find it."""
    network, facts = random_network(arch, 10), facts_of(arch, 64, 10)
    state, pixels = arrays(network), photographs(facts)[:1]
    expected = reference(network, pixels, facts)
    assert difference(run(build_graph(state, facts, "x").model, pixels)["logits"], expected) < TOLERANCE
    norms = [key.removesuffix(".running_var") for key in state if key.endswith(".running_var")]
    assert len(norms) >= 20
    for norm in norms:
        with normalisation_left_out(norm):
            model, _ = build_graph(state, facts, "x")
        assert difference(run(model, pixels)["logits"], expected) > 1000 * TOLERANCE, norm


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("num_classes", [1, 1000])
def test_keys_and_shapes_are_pytorchs_in_its_order(arch: str, num_classes: int) -> None:
    with torch.device("meta"):
        expected = architectures.build(arch, num_classes).state_dict()
    assert list(state_shapes(arch, num_classes).items()) == [(key, tuple(one.shape)) for key, one in expected.items()]


@pytest.mark.parametrize("arch", FAST)
@pytest.mark.parametrize("side", [8, 33, 97])
def test_any_input_size(arch: str, side: int) -> None:
    network, facts = random_network(arch, 3), facts_of(arch, side, 3)
    pixels = photographs(facts)
    found = run(build_graph(arrays(network), facts, "x").model, pixels)["logits"]
    assert difference(found, reference(network, pixels, facts)) < TOLERANCE


def test_it_is_built_without_pytorch() -> None:
    script = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(('torch', 'torchvision', 'timm', 'nncf', 'onnxscript'))\n"
        "import numpy as np\n"
        "from resnet_service.models.graphs import build_graph\n"
        "from resnet_service.models.networks import state_shapes\n"
        "from resnet_service.models.metadata import ModelMetadata\n"
        "facts = ModelMetadata(arch='resnet18', num_classes=7, input_size=64)\n"
        "state = {key: np.ones(shape, np.float32) for key, shape in state_shapes('resnet18', 7).items()}\n"
        "print(len(build_graph(state, facts, 'x').model.graph.initializer))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "44"  # weights and biases of 20 convolutions and the last layer, mean, deviation


@pytest.fixture
def state() -> dict[str, Array]:
    """Return weights of a resnet18 with 10 classes."""
    return {key: np.ones(shape, np.float32) for key, shape in state_shapes("resnet18", 10).items()}


FACTS = metadata()


def test_counters_of_batch_norms_may_be_missing(state: dict[str, Array]) -> None:
    build_graph({key: array for key, array in state.items() if not key.endswith("num_batches_tracked")}, FACTS, "x")


@pytest.mark.parametrize("key", ["conv1.weight", "layer3.0.downsample.1.running_var", "fc.weight", "fc.bias"])
def test_a_missing_key_is_named(state: dict[str, Array], key: str) -> None:
    del state[key]
    with pytest.raises(StateDictMismatch, match=rf"^x does not fit resnet18: missing: {key}\.$"):
        build_graph(state, FACTS, "x")


def test_an_extra_key_is_named(state: dict[str, Array]) -> None:
    state["fc.scale"] = np.ones(3, np.float32)
    with pytest.raises(StateDictMismatch, match=r"^x does not fit resnet18: unexpected: fc\.scale\.$"):
        build_graph(state, FACTS, "x")


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [
        ("fc.weight", (512, 10), r"fc\.weight \[512, 10\] instead of \[10, 512\]"),  # transposed
        ("fc.weight", (), r"fc\.weight \[\] instead"),
        ("fc.bias", (11,), r"fc\.bias \[11\] instead of \[10\]"),
        ("layer2.0.conv1.weight", (64, 128, 3, 3), r"\[64, 128, 3, 3\] instead of \[128, 64, 3, 3\]"),  # transposed
        ("bn1.running_mean", (64, 1), r"bn1\.running_mean \[64, 1\] instead of \[64\]"),
        ("bn1.bias", (1,), r"bn1\.bias \[1\] instead of \[64\]"),  # numpy would broadcast it
    ],
)
def test_another_shape_is_named(state: dict[str, Array], key: str, shape: tuple[int, ...], message: str) -> None:
    state[key] = np.ones(shape, np.float32)
    with pytest.raises(StateDictMismatch, match=rf"of another shape: .*{message}"):
        build_graph(state, FACTS, "x")


def test_another_number_of_classes_is_named(state: dict[str, Array]) -> None:
    with pytest.raises(
        ClassCountMismatch, match=r"x says num_classes=7, but its classifier \(fc\.weight\) has 10 rows"
    ):
        build_graph(state, metadata(num_classes=7), "x")


@pytest.mark.parametrize("key", ["conv1.weight", "layer4.1.bn2.running_var", "fc.bias"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_refused(state: dict[str, Array], key: str, value: float) -> None:
    state[key].flat[0] = value
    with pytest.raises(NonFiniteWeights, match=f"x has NaN or infinity in {key}; the training has diverged"):
        build_graph(state, FACTS, "x")


@pytest.mark.parametrize(("key", "value"), [("bn1.running_var", -1), ("bn1.weight", 3e38)])
def test_a_batch_norm_that_gives_no_number_is_refused(state: dict[str, Array], key: str, value: float) -> None:
    state["conv1.weight"] *= 100
    state[key][3] = value
    with pytest.raises(NonFiniteWeights, match=r"once batch norms are folded: conv1\.weight"):
        build_graph(state, FACTS, "x")


@pytest.mark.parametrize("arch", ["resnet26", "timm/resnet18", "googlenet"])
def test_an_architecture_without_a_graph_is_named(state: dict[str, Array], arch: str) -> None:
    with pytest.raises(UnknownArchitecture, match=rf"no graph of '{arch}' without PyTorch.*wide_resnet101_2"):
        build_graph(state, metadata(arch=arch), "x")
