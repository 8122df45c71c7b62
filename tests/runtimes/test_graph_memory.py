"""Small files that describe large tensors are refused before OpenVINO allocates them."""

import itertools
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
from onnx import helper, numpy_helper

from fuzz import bombs
from resnet_service.errors import SuspiciousModel
from resnet_service.runtimes import graph_memory
from resnet_service.runtimes.openvino import OpenVINORuntime
from tests.support.models import Both
from tests.support.servers import REPOSITORY

GIGABYTES = (
    "constant_of_shape",
    "expand",
    "tile",
    "range",
    "pad",
    "outer_product",
    "doubling",
    "resize",
    "padded_image",
)


@pytest.mark.parametrize("name", GIGABYTES)
def test_tensors_of_gigabytes_are_refused_before_they_are_computed(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.onnx"
    bombs.MODELS[f"exported_with_{name}"](path)
    assert path.stat().st_size < 500_000
    with pytest.raises(SuspiciousModel, match=r"limit \d.*\), .*compiling .* \(limit \d.*No classifier"):
        OpenVINORuntime.open(path)


def test_a_small_image_may_not_take_gigabytes(tmp_path: Path) -> None:
    """Tensors of 2 GB for an image of 8 pixels are below the limit for the largest images."""
    pixels = helper.make_tensor_value_info("pixels", onnx.TensorProto.UINT8, [1, 8, 8, 3])
    nodes = [
        helper.make_node("Cast", ["pixels"], ["float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Tile", ["float", "repeats"], ["large"]),
        helper.make_node("ReduceMax", ["large"], ["largest"], keepdims=0),
    ]
    repeats = numpy_helper.from_array(np.array([1, 1, 1, 1_000_000]), "repeats")
    logits = helper.make_tensor_value_info("largest", onnx.TensorProto.FLOAT, [])
    graph = helper.make_graph(nodes, "large", [pixels], [logits], [repeats])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    model = openvino.Core().read_model(made.SerializeToString())
    assert 5e8 < graph_memory.measure(model).live < graph_memory.MAX_LIVE_BYTES
    with pytest.raises(SuspiciousModel, match="limit 537,067,520"):
        graph_memory.check_memory(model, 1000)


def test_tensors_whose_size_the_image_decides_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.onnx"
    bombs.MODELS["exported_with_sizes_from_the_image"](path)
    with pytest.raises(SuspiciousModel, match="sizes depend on the image"):
        OpenVINORuntime.open(path)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_real_networks_stay_far_below_the_limits(
    precision: str, small_network: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenth of each limit would do for them."""
    monkeypatch.setattr(graph_memory, "LIVE_ALLOWANCE_BYTES", 0)
    monkeypatch.setattr(graph_memory, "LIVE_BYTES_PER_PIXEL", graph_memory.LIVE_BYTES_PER_PIXEL // 10)
    if precision == "fp32":
        monkeypatch.setattr(graph_memory, "CONSTANT_ALLOWANCE_BYTES", graph_memory.CONSTANT_ALLOWANCE_BYTES // 100)
        OpenVINORuntime.open(small_network.exported)
    else:
        monkeypatch.setattr(graph_memory, "CONSTANT_ALLOWANCE_BYTES", 0)
        OpenVINORuntime.open(REPOSITORY / "checkpoints" / "resnet18-fashion-mnist-int8.onnx")


def test_results_that_nothing_uses_are_not_kept() -> None:
    """OpenVINO's pools also return the positions of the largest values."""

    def model(pools: int) -> openvino.Model:
        names = ["image", *(f"pooled{number}" for number in range(pools))]
        nodes = [
            helper.make_node("MaxPool", [before], [after], kernel_shape=[1, 1])
            for before, after in itertools.pairwise(names)
        ]
        image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 3, 8, 8])
        result = helper.make_tensor_value_info(names[-1], onnx.TensorProto.FLOAT, [1, 3, 8, 8])
        made = helper.make_model(
            helper.make_graph(nodes, "pools", [image], [result]),
            opset_imports=[helper.make_opsetid("", 18)],
            ir_version=10,
        )
        return openvino.Core().read_model(made.SerializeToString())

    assert graph_memory.measure(model(10)) == graph_memory.measure(model(2))


def test_the_live_memory_is_what_is_needed_at_once(tmp_path: Path) -> None:
    """Ten activations one after the other need the memory of two, however many there are."""

    def model(layers: int) -> openvino.Model:
        names = ["pixels.float", *(f"layer{number}" for number in range(layers)), "logits"]
        nodes = [helper.make_node("Cast", ["pixels"], [names[0]], to=onnx.TensorProto.FLOAT)]
        nodes += [helper.make_node("Neg", [before], [after]) for before, after in itertools.pairwise(names)]
        pixels = helper.make_tensor_value_info("pixels", onnx.TensorProto.UINT8, [1, 8, 8, 3])
        logits = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1, 8, 8, 3])
        graph = helper.make_graph(nodes, "chain", [pixels], [logits])
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        return openvino.Core().read_model(made.SerializeToString())

    tensor = 8 * 8 * 3 * 4
    assert graph_memory.measure(model(10)) == graph_memory.GraphMemory(constant=0, live=2 * tensor)
    assert graph_memory.measure(model(2)) == graph_memory.GraphMemory(constant=0, live=2 * tensor)
