"""Small files that describe hours of arithmetic are refused before any of it begins."""

from typing import Any

import numpy as np
import openvino
import pytest
from onnx import TensorProto, helper, numpy_helper

from fuzz import bombs
from resnet_service.errors import SuspiciousModel
from resnet_service.runtimes import graph_work
from resnet_service.runtimes.openvino import OpenVINORuntime
from tests.support.models import Both
from tests.support.servers import REPOSITORY


@pytest.mark.parametrize("name", ["convolved_constants", "a_large_filter", "large_pools"])
def test_computations_of_hours_are_refused_before_they_begin(name: str) -> None:
    cost = bombs.measure(f"exported_with_{name}", seconds=20)
    assert cost.answer == SuspiciousModel.code
    assert cost.seconds < 5
    assert cost.megabytes < 200


def test_real_networks_stay_far_below_the_limits(small_network: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundredth of the allowance would do for them, with a byte of the file for each 10 pixels."""
    monkeypatch.setattr(graph_work, "WORK_ALLOWANCE", graph_work.WORK_ALLOWANCE // 100)
    monkeypatch.setattr(graph_work, "CONSTANT_WORK_ALLOWANCE", graph_work.CONSTANT_WORK_ALLOWANCE // 100)
    for path in (small_network.exported, REPOSITORY / "checkpoints" / "resnet18-fashion-mnist-int8.onnx"):
        OpenVINORuntime.open(path)


def node(operator: str, shapes: list[list[int]], *, outputs: int = 1, **attributes: Any) -> openvino.Model:
    """Return a graph of one operator, whose first input is the image and whose others are weights."""
    names = ["image", *(f"weight{number}" for number in range(1, len(shapes)))]
    made = [f"out{number}" for number in range(outputs)]
    weights = [
        numpy_helper.from_array(np.zeros(shape, np.float32), name)
        for name, shape in zip(names[1:], shapes[1:], strict=True)
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, shapes[0])
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in made]
    graph = helper.make_graph([helper.make_node(operator, names, made, **attributes)], "one", [image], results, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return openvino.Core().read_model(model.SerializeToString())


@pytest.mark.parametrize(
    ("operator", "shapes", "attributes", "work"),
    [
        ("Conv", [[1, 4, 9, 9], [6, 4, 3, 3]], {}, 6 * 7 * 7 * 4 * 9),
        ("Conv", [[1, 4, 9, 9], [6, 2, 3, 3]], {"group": 2}, 6 * 7 * 7 * 2 * 9),
        ("ConvTranspose", [[1, 4, 9, 9], [4, 6, 3, 3]], {}, 4 * 9 * 9 * 6 * 9),
        ("MaxPool", [[1, 4, 9, 9]], {"kernel_shape": [3, 3]}, 4 * 7 * 7 * 9),
        ("MatMul", [[1, 50, 7], [7, 11]], {}, 50 * 7 * 11),
        ("Gemm", [[70, 5], [70, 11]], {"transA": 1}, 5 * 70 * 11),
        ("Einsum", [[2, 5, 7], [7, 11]], {"equation": "...ij,jk->...ik"}, 2 * 5 * 7 * 11),
        ("LRN", [[1, 4, 9, 9]], {"size": 3}, 4 * 9 * 9 * 3),
    ],
)
def test_each_multiplication_is_counted_once(
    operator: str, shapes: list[list[int]], attributes: dict[str, Any], work: int
) -> None:
    found = graph_work.measure(node(operator, shapes, **attributes))
    # Operators that change the type or the shape may stand around it.
    assert work <= found.inference <= work + 750
    assert found.constant <= 750


def test_a_recurrent_layer_takes_its_weights_at_each_step() -> None:
    model = node("LSTM", [[50, 1, 7], [1, 44, 7], [1, 44, 11]], outputs=3, hidden_size=11)
    assert graph_work.measure(model).inference > 50 * 44 * (7 + 11)
