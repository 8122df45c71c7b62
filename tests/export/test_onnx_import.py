"""Third-party ONNX files: imported, they answer as before; what is no image classifier is refused in a sentence."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from resnet_service.errors import (
    AccuracyLossExceeded,
    ClassCountMismatch,
    FileNotWritten,
    InvalidMetadata,
    ModelError,
    ServiceError,
    SuspiciousModel,
    UnreadableModel,
)
from resnet_service.export.conversion.options import ConvertOptions
from resnet_service.export.onnx_import import import_onnx
from resnet_service.imaging.preprocess import normalise
from resnet_service.inference.classifier import Classifier
from resnet_service.models.exported import read_exported
from resnet_service.models.labels import LabelSet, labels_for
from resnet_service.models.metadata import ModelMetadata
from resnet_service.runtimes.openvino import OpenVINORuntime
from resnet_service.system.files import sha256_of
from tests.support import third_party
from tests.support.images import encoded, noise
from tests.support.models import random_model
from tests.support.servers import cli_here
from tests.support.third_party import CHANNELS, CLASSES, SIDE, classifier, scores, value, weights, written

IMAGE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def imported(tmp_path: Path, source: Path, **options: Any) -> OpenVINORuntime:
    target = tmp_path / "imported.onnx"
    import_onnx(source, target, ConvertOptions(**options))
    return OpenVINORuntime.open(target)


def image_of(metadata: ModelMetadata) -> np.ndarray:
    return IMAGE[: metadata.input_size, : metadata.input_size]


def channels_first(metadata: ModelMetadata) -> np.ndarray:
    result: np.ndarray = normalise(image_of(metadata)[np.newaxis], metadata).transpose(0, 3, 1, 2)
    return result


# --- Files of PyTorch's exporters


def exported_by_torch(path: Path, network: nn.Module, *, new: bool, dynamic: bool) -> Path:
    example = torch.zeros(2 if dynamic else 1, 3, 64, 64)
    if new:
        shapes = ({0: torch.export.Dim.DYNAMIC},) if dynamic else None
        program = torch.onnx.export(network, (example,), dynamo=True, verbose=False, dynamic_shapes=shapes)
        assert program is not None
        path.write_bytes(program.model_proto.SerializeToString())
    else:
        axes = {"x": {0: "n"}, "y": {0: "n"}} if dynamic else None
        torch.onnx.export(
            network, (example,), path, dynamo=False, input_names=["x"], output_names=["y"], dynamic_axes=axes
        )
    return path


@pytest.mark.filterwarnings("ignore")  # of the exporters, about their own parts
@pytest.mark.parametrize(
    ("arch", "new", "dynamic", "softmax", "outputs"),
    [
        ("timm/test_resnet", False, False, False, {"embedding": 96, "feature_map": [96, 2, 2]}),
        ("timm/test_efficientnet", True, True, False, {"embedding": 256, "feature_map": [256, 2, 2]}),
        ("timm/test_vit", False, True, False, {"embedding": 64, "feature_map": None}),
        ("timm/test_resnet", True, False, True, {"embedding": 96, "feature_map": [96, 2, 2]}),
    ],
)
def test_networks_that_pytorch_exported_answer_as_in_pytorch(
    tmp_path: Path, arch: str, new: bool, dynamic: bool, softmax: bool, outputs: dict[str, object]
) -> None:
    network = random_model(arch, 7) if arch != "timm/test_vit" else vision_transformer()
    whole = nn.Sequential(network, nn.Softmax(1)) if softmax else network
    source = exported_by_torch(tmp_path / "model.onnx", whole.eval(), new=new, dynamic=dynamic)
    runtime = imported(tmp_path, source, resize_size=72)
    metadata = runtime.metadata
    assert metadata.packing is not None
    assert metadata.packing.outputs is not None
    assert metadata.packing.outputs.model_dump(mode="json") == outputs
    with torch.inference_mode():
        expected = network(torch.from_numpy(channels_first(metadata))).numpy()[0]
    assert np.ptp(expected) > 0.05  # the scores differ, so that their equality means something
    assert np.abs(runtime.logits(image_of(metadata)[np.newaxis])[0] - expected).max() < 1e-3

    served = Classifier(runtime, LabelSet.numbered(7))
    served.warm_up()
    answer = served.classify(encoded(noise(90, 80), "PNG"), 7)
    assert sum(one.score for one in answer.predictions) == pytest.approx(1, abs=1e-4)
    assert len({round(one.score, 4) for one in answer.predictions}) > 1


def vision_transformer() -> nn.Module:
    import timm

    torch.manual_seed(0)
    network: nn.Module = timm.create_model("test_vit", num_classes=7, img_size=64)
    nn.init.normal_(network.get_parameter("head.weight"))
    return network


# --- Graphs of other programs


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("batch", [1, "n", -1])
def test_both_orders_of_axes_and_any_batch_are_imported(tmp_path: Path, layout: str, batch: int | str) -> None:
    source = written(tmp_path / "model.onnx", classifier(layout=layout, batch=batch))
    runtime = imported(tmp_path, source, mean=(0.1, 0.2, 0.3), std=(0.3, 0.2, 0.1))
    actual = runtime.logits(image_of(runtime.metadata)[np.newaxis])
    np.testing.assert_allclose(actual, scores(channels_first(runtime.metadata)), atol=1e-3)
    assert runtime.outputs.feature_map == (CHANNELS, SIDE, SIDE)
    assert runtime.class_weights is not None
    np.testing.assert_allclose(runtime.class_weights, weights()["matrix"], atol=1e-6)
    features = runtime.features(image_of(runtime.metadata))
    assert features.feature_map is not None
    np.testing.assert_allclose(features.feature_map.mean(axis=(1, 2)), features.embedding, atol=1e-4)


def test_a_network_that_takes_uint8_normalises_for_itself(tmp_path: Path) -> None:
    source = written(tmp_path / "model.onnx", classifier(kind=TensorProto.UINT8, layout="NHWC"))
    runtime = imported(tmp_path, source)
    pixels = image_of(runtime.metadata)
    expected = scores(pixels[np.newaxis].transpose(0, 3, 1, 2).astype(np.float32))
    np.testing.assert_allclose(runtime.logits(pixels[np.newaxis]), expected, rtol=1e-4)
    with pytest.raises(InvalidMetadata, match="Leave out --mean and --std"):
        imported(tmp_path, source, mean=(0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("after", "out_shape"),
    [
        ([("Softmax", {})], None),
        ([("Softmax", {"axis": 1}), ("Identity", {})], None),
        ([("LogSoftmax", {"axis": -1})], None),
    ],
)
def test_a_softmax_at_the_end_is_left_out(
    tmp_path: Path, after: list[tuple[str, dict[str, Any]]], out_shape: list[int | str] | None
) -> None:
    messages: list[str] = []
    source = written(tmp_path / "model.onnx", classifier(after=after, out_shape=out_shape))
    import_onnx(source, tmp_path / "imported.onnx", ConvertOptions(), messages.append)
    runtime = OpenVINORuntime.open(tmp_path / "imported.onnx")
    actual = runtime.logits(image_of(runtime.metadata)[np.newaxis])
    np.testing.assert_allclose(actual, scores(channels_first(runtime.metadata)), atol=1e-3)
    assert any("Left out the softmax" in message for message in messages)


def test_scores_of_one_pixel_are_flattened(tmp_path: Path) -> None:
    """As in the SqueezeNets: [N, classes, 1, 1], after a convolution."""
    model = classifier(out_shape=["n", CLASSES, 1, 1])
    del model.graph.node[-2:]
    filters = weights()["matrix"].reshape(CLASSES, CHANNELS, 1, 1)
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(filters, "matrix"))
    model.graph.node.append(helper.make_node("Conv", ["scale", "matrix", "offsets"], ["embedding"]))
    runtime = imported(tmp_path, written(tmp_path / "model.onnx", model))
    actual = runtime.logits(image_of(runtime.metadata)[np.newaxis])
    np.testing.assert_allclose(actual, scores(channels_first(runtime.metadata)), atol=1e-3)
    assert runtime.outputs.embedding is None


def test_a_pool_of_one_corner_gives_no_class_activation_map(tmp_path: Path) -> None:
    model = classifier()
    pool = next(node for node in model.graph.node if node.op_type == "GlobalAveragePool")
    pool.op_type = "AveragePool"
    pool.attribute.extend(
        helper.make_attribute(name, [side, side]) for name, side in (("kernel_shape", 8), ("strides", 16))
    )
    runtime = imported(tmp_path, written(tmp_path / "model.onnx", model))
    assert (runtime.outputs.embedding, runtime.outputs.feature_map) == (CHANNELS, None)


def weights_as_inputs(model: onnx.ModelProto) -> None:
    model.graph.input.extend(value(one.name, list(one.dims)) for one in model.graph.initializer)


def other_operator_sets(model: onnx.ModelProto) -> None:
    """As tf2onnx writes them, whether they are used or not."""
    model.opset_import.add(domain="ai.onnx.ml", version=2)


def other_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(value("pixels", ["n", CHANNELS, SIDE, SIDE]))


def unused_input(model: onnx.ModelProto) -> None:
    """Of a training graph; the scores do not depend on it."""
    model.graph.input.append(value("labels", ["n"]))
    model.graph.node.append(helper.make_node("Sum", ["labels"], ["loss"]))


def full_name_of_the_domain(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "ai.onnx"


@pytest.mark.parametrize(
    "change", [weights_as_inputs, other_operator_sets, other_output, unused_input, full_name_of_the_domain]
)
def test_habits_of_other_makers_are_imported(tmp_path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = classifier(opset=8, ir_version=3) if change is weights_as_inputs else classifier()
    runtime = imported(tmp_path, written(tmp_path / "model.onnx", model, change))
    actual = runtime.logits(image_of(runtime.metadata)[np.newaxis])
    np.testing.assert_allclose(actual, scores(channels_first(runtime.metadata)), atol=1e-3)


def test_a_size_that_the_file_leaves_open_is_an_option(tmp_path: Path) -> None:
    source = written(tmp_path / "model.onnx", classifier(side="s"))
    with pytest.raises(InvalidMetadata, match="--input-size PIXELS"):
        imported(tmp_path, source)
    with pytest.raises(InvalidMetadata, match="limits are 8 and 4096"):
        imported(tmp_path, source, input_size=10**9)
    runtime = imported(tmp_path, source, input_size=24)
    assert (runtime.metadata.input_size, runtime.outputs.feature_map) == (24, (CHANNELS, 24, 24))
    with pytest.raises(InvalidMetadata, match="takes images of 16 pixels, but --input-size is 24"):
        imported(tmp_path, written(tmp_path / "fixed.onnx", classifier()), input_size=24)


def test_one_of_several_outputs_is_chosen_by_the_number_of_classes(tmp_path: Path) -> None:
    model = classifier()
    model.graph.output.append(value("class_weights", ["n", CHANNELS]))
    source = written(tmp_path / "model.onnx", model)
    with pytest.raises(UnreadableModel, match=r"several outputs that could be the scores.*--num-classes"):
        imported(tmp_path, source)
    messages: list[str] = []
    found = import_onnx(source, tmp_path / "one.onnx", ConvertOptions(num_classes=CLASSES), messages.append)
    assert found.metadata.num_classes == CLASSES
    assert messages[0] == "Left out one other output"


def test_the_command_writes_labels_preprocessing_and_the_origin(tmp_path: Path) -> None:
    classes = [{"index": index, "name": name} for index, name in enumerate(("ant", "bee", "cat"))]
    labels = tmp_path / "animals.json"
    labels.write_text(json.dumps({"name": "animals", "classes": classes}))
    source = written(tmp_path / "My Model-v2.onnx", classifier(batch=1))
    target = tmp_path / "animals.onnx"
    done = cli_here("convert", source, target, "--labels", labels, "--mean", "0.5", "0.5", "0.5", "--resize-size", "20")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"Wrote {target}: my_model_v2 from My Model-v2.onnx, 3 classes, 16 pixels from 20, bilinear, mean 0.5 0.5 0.5, "
        "std 0.229 0.224 0.225 (resize size and mean from the options, input size from the file, else from ImageNet's "
        "standard values)"
    )
    metadata = read_exported(target).metadata
    assert metadata.labels is not None
    assert metadata.provenance is not None
    assert metadata.packing is not None
    digest = sha256_of(source.read_bytes())
    assert (metadata.labels.name, metadata.provenance.sha256, metadata.packing.checkpoint_sha256) == (
        "animals",
        digest,
        digest,
    )
    answer = cli_here("classify", "--checkpoint", target, "--json", "tests/data/fashion-mnist/bag/00018.png")
    assert answer.returncode == 0, answer.stderr
    assert any(name in answer.stdout for name in ("ant", "bee", "cat"))
    again = cli_here("convert", target, tmp_path / "again.onnx")
    assert "is an exported model. Serve it as it is, or" in again.stderr


@pytest.mark.parametrize(
    "options", [["--dtype", "float16"], ["--part", "model"], ["--binary"], ["--trust-pickle"]], ids=lambda one: one[0]
)
def test_options_of_checkpoints_are_refused_by_name(tmp_path: Path, options: list[str]) -> None:
    source = written(tmp_path / "model.onnx", classifier())
    done = cli_here("convert", source, tmp_path / "imported.onnx", *options)
    assert done.returncode == 1
    assert done.stderr.endswith(f". Leave out {options[0]}.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_the_model_carries_the_names_of_the_classes(tmp_path: Path) -> None:
    source = written(tmp_path / "model.onnx", classifier())
    names = tmp_path / "names.txt"
    names.write_text("ant\nbee\ncat\n")
    target = tmp_path / "imported.onnx"
    messages: list[str] = []
    found = import_onnx(source, target, ConvertOptions(label_file=names), messages.append)
    assert [one.name for one in labels_for(found.metadata, target).classes] == ["ant", "bee", "cat"]
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "names.txt", "imported.onnx"}
    names.write_text("ant\nbee\n")
    with pytest.raises(ClassCountMismatch, match="has 3 classes, but --labels or --num-classes says 2"):
        imported(tmp_path, source, label_file=names)


# --- What is refused


def second_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(value("bias", ["n", CLASSES]))
    model.graph.node.append(helper.make_node("Add", ["embedding", "bias"], ["sum"]))
    model.graph.output[0].name = "sum"


def detector(model: onnx.ModelProto) -> None:
    del model.graph.output[:]
    model.graph.output.extend([value("pixels", ["n", 100, 4]), value("scale", ["n", 100, 91])])


def no_image(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "filters"


def external(model: onnx.ModelProto) -> None:
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="model.onnx.data")


def sparse(model: onnx.ModelProto) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "values")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "indices")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [9]))


def custom(model: onnx.ModelProto) -> None:
    model.graph.node[1].domain = "com.example"


def function(model: onnx.ModelProto) -> None:
    model.functions.append(helper.make_function("com.example", "F", ["x"], ["y"], [], []))


def unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type = "Nonsense"


def missing_input(model: onnx.ModelProto) -> None:
    del model.graph.node[0].input[1:]


def wrong_attribute(model: onnx.ModelProto) -> None:
    model.graph.node[1].attribute.append(helper.make_attribute("nonsense", 1))


def infinite(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full_like(weights()["filters"], np.inf), "filters"))


def own_softmax(model: onnx.ModelProto) -> None:
    """Made of its parts, so that there is no node to leave out."""
    model.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
    model.graph.node.extend(
        [
            helper.make_node("Exp", ["embedding"], ["exp"]),
            helper.make_node("ReduceSum", ["exp", "axis"], ["total"], keepdims=1),
            helper.make_node("Div", ["exp", "total"], ["probabilities"]),
        ]
    )
    model.graph.output[0].name = "probabilities"


def softmax_of_pairs(model: onnx.ModelProto) -> None:
    """Three questions with two answers each."""
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.ones((6, CHANNELS), np.float32), "matrix"))
    model.graph.initializer[2].CopyFrom(numpy_helper.from_array(np.arange(6, dtype=np.float32), "offsets"))
    for name, shape in (("pairs", [-1, 3, 2]), ("flat", [-1, 6])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), name))
    model.graph.node.extend(
        [
            helper.make_node("Reshape", ["embedding", "pairs"], ["paired"]),
            helper.make_node("Softmax", ["paired"], ["answers"], axis=-1),
            helper.make_node("Reshape", ["answers", "flat"], ["all"]),
        ]
    )
    model.graph.output[0].CopyFrom(value("all", ["n", 6]))


def hidden_sigmoid(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array(1, np.float32), "one"))
    model.graph.node.append(helper.make_node("Sigmoid", ["embedding"], ["each"]))
    model.graph.node.append(helper.make_node("Mul", ["each", "one"], ["product"]))
    model.graph.output[0].name = "product"


def one_output(model: onnx.ModelProto) -> None:
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(weights()["matrix"][:1], "matrix"))
    model.graph.initializer[2].CopyFrom(numpy_helper.from_array(weights()["offsets"][:1], "offsets"))
    model.graph.output[0].CopyFrom(value("embedding", ["n", 1]))


def training_dropout(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "share"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "training"))
    model.graph.node.append(helper.make_node("Dropout", ["embedding", "share", "training"], ["dropped"]))
    model.graph.output[0].name = "dropped"


def terabyte(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array([2**19, 2**19], np.int64), "shape"))
    model.graph.node.extend(
        [
            helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
            helper.make_node("ReduceSum", ["zeros"], ["total"], keepdims=0),
            helper.make_node("Add", ["embedding", "total"], ["sum"]),
        ]
    )
    model.graph.output[0].name = "sum"


@pytest.mark.parametrize(
    ("model", "change", "error", "words"),
    [
        (classifier(), second_input, UnreadableModel, r"depend on 2 inputs \(image .*bias .*one image as input"),
        (classifier(), detector, UnreadableModel, r"not an image classifier.*\[\?, 100, 4\].*\[\?, 100, 91\]"),
        (classifier(), no_image, UnreadableModel, "depend on no input"),
        (classifier(batch=8), None, UnreadableModel, "exactly 8 images at once"),
        (
            classifier(kind=TensorProto.FLOAT16),
            None,
            UnreadableModel,
            r"takes float16.*float32 or uint8.*model\.float\(\)",
        ),
        (classifier(opset=6), None, UnreadableModel, "version 6; the oldest supported is 7"),
        (classifier(after=[("Sigmoid", {})]), None, UnreadableModel, "ends in a Sigmoid.*exclude each other"),
        (classifier(after=[("Softmax", {"axis": 0})]), None, UnreadableModel, "over axis 0"),
        (classifier(), own_softmax, UnreadableModel, "gives probabilities.*without its softmax"),
        (classifier(), softmax_of_pairs, UnreadableModel, r"over axis -1 of values of the shape \[1, 3, 2\]"),
        (classifier(), hidden_sigmoid, UnreadableModel, r"scores in 0 \.\.\. 1 only.*Export the network without it"),
        (classifier(), one_output, UnreadableModel, r"one output.*torch\.cat\(\[torch\.zeros_like\(x\), x\], 1\)$"),
        (classifier(), training_dropout, UnreadableModel, r"Dropout that computes as in training.*model\.eval\(\)"),
        (classifier(), external, SuspiciousModel, r"another file.*onnx\.save\("),
        (classifier(), sparse, SuspiciousModel, "sparse weights"),
        (classifier(), custom, SuspiciousModel, "outside the ONNX standard"),
        (classifier(), function, SuspiciousModel, "functions"),
        (classifier(), terabyte, SuspiciousModel, "compiling .*1,099,511,6"),
        (classifier(), unknown_operator, SuspiciousModel, "the operator 'Nonsense', which no image classifier needs"),
        (classifier(), missing_input, SuspiciousModel, "operator Conv that lacks an input"),
        (classifier(), wrong_attribute, UnreadableModel, "not a valid ONNX file: .*nonsense"),
        (classifier(), infinite, ModelError, "NaN or infinity"),
    ],
)
def test_what_is_no_image_classifier_is_refused_in_a_sentence(
    tmp_path: Path,
    model: onnx.ModelProto,
    change: Callable[[onnx.ModelProto], None] | None,
    error: type[ServiceError],
    words: str,
) -> None:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    source = written(tmp_path / "model.onnx", copy, change)
    with pytest.raises(error, match=words) as caught:
        imported(tmp_path, source)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 600
    assert not (tmp_path / "imported.onnx").exists()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (classifier(side=20, batch=1, layout="NHWC"), None),
        (classifier(), "shape"),
    ],
)
def test_images_must_be_square_and_in_colour(tmp_path: Path, model: onnx.ModelProto, words: str | None) -> None:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    dims = copy.graph.input[0].type.tensor_type.shape.dim
    if words is None:
        dims[1].dim_value = 30
    else:
        dims[1].dim_value = 1
    with pytest.raises(
        UnreadableModel, match=r"\[30, 20\] pixels" if words is None else r"\[\?, 1, 16, 16\], not .*x\.mean\(1, True\)"
    ):
        imported(tmp_path, written(tmp_path / "model.onnx", copy))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (third_party.wide_windows, "windows of a convolution"),
        (third_party.sparse_windows, "windows of a convolution"),
        (third_party.endless_pools, " steps "),
    ],
)
def test_what_the_reference_implementation_cannot_compute_is_refused_before(
    make: Callable[[], onnx.ModelProto], words: str, tmp_path: Path
) -> None:
    """In a process of its own, which is killed after 40 s and may take 2 GB more than its libraries."""
    source = written(tmp_path / "model.onnx", make())
    assert source.stat().st_size < 100_000
    command = (sys.executable, "-m", "resnet_service", "convert", source, tmp_path / "out.onnx")
    done = subprocess.run(
        ("prlimit", f"--as={6 * 2**30}", *command), capture_output=True, text=True, timeout=40, check=False
    )
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.onnx").exists()


def test_the_advice_on_weights_in_another_file_works(tmp_path: Path) -> None:
    source = tmp_path / "my model.onnx"
    onnx.save(classifier(), source, save_as_external_data=True, size_threshold=0)
    with pytest.raises(SuspiciousModel, match=r"external_data=False") as caught:
        imported(tmp_path, source)
    line = str(caught.value).rpartition("in Python: ")[2]
    subprocess.run([sys.executable, "-c", line], cwd=tmp_path, check=True, timeout=60)
    runtime = imported(tmp_path, tmp_path / "whole.onnx")
    actual = runtime.logits(image_of(runtime.metadata)[np.newaxis])
    np.testing.assert_allclose(actual, scores(channels_first(runtime.metadata)), atol=1e-3)


def test_numbers_of_classes_must_agree(tmp_path: Path) -> None:
    source = written(tmp_path / "model.onnx", classifier())
    with pytest.raises(ClassCountMismatch, match="has 3 classes, but --labels or --num-classes says 5"):
        imported(tmp_path, source, num_classes=5)
    hidden = classifier()
    hidden.graph.output[0].type.tensor_type.ClearField("shape")
    with pytest.raises(ClassCountMismatch, match="has 3 classes"):
        imported(tmp_path, written(tmp_path / "hidden.onnx", hidden), num_classes=5)


def test_a_target_of_another_kind_is_refused(tmp_path: Path) -> None:
    source = written(tmp_path / "model.onnx", classifier())
    with pytest.raises(FileNotWritten, match=r"does not end in \.onnx"):
        import_onnx(source, tmp_path / "model.pth", ConvertOptions())
    with pytest.raises(FileNotWritten, match="is the file to read"):
        import_onnx(source, source, ConvertOptions())


def test_a_different_answer_of_openvino_writes_nothing(tmp_path: Path) -> None:
    """OpenVINO adds the two constants first; in the order of the file, adding a large number rounds the scores away."""
    model = classifier()
    for name, number in (("large", 1e9), ("back", -1e9)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(number, np.float32), name))
    last = model.graph.output[0].name
    model.graph.node.append(helper.make_node("Add", [last, "large"], ["lost"]))
    model.graph.node.append(helper.make_node("Add", ["lost", "back"], ["rounded"]))
    model.graph.output[0].name = "rounded"
    source = written(tmp_path / "model.onnx", model)
    with pytest.raises(AccuracyLossExceeded, match=r"differ from those of .* by \d"):
        imported(tmp_path, source)
    assert not (tmp_path / "imported.onnx").exists()


@pytest.mark.parametrize("share", [0.2, 0.7, 0.99])
def test_truncated_files_are_refused(tmp_path: Path, share: float) -> None:
    whole = classifier().SerializeToString()
    source = tmp_path / "model.onnx"
    source.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UnreadableModel, match="not a complete ONNX file"):
        imported(tmp_path, source)


def test_other_kinds_of_file_are_named(tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("model/model.onnx", classifier().SerializeToString())
    done = cli_here("convert", source, tmp_path / "imported.onnx")
    assert done.returncode == 1
    assert "Unpack it, and name the file in it: model/model.onnx" in done.stderr or "torch.save" in done.stderr


def test_serving_one_names_the_command_that_imports_it(tmp_path: Path) -> None:
    source = written(tmp_path / "model.onnx", classifier())
    with pytest.raises(InvalidMetadata, match=r"Import it: resnet-service convert .*model\.onnx OUTPUT\.onnx"):
        read_exported(source)
