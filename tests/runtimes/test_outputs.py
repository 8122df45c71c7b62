"""The additional outputs of exported files, and the checks of their metadata."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from resnet_service.errors import InvalidMetadata, InvalidModelOutput, ModelError, NonFiniteWeights
from resnet_service.inference.classifier import Classifier
from resnet_service.models.labels import LabelSet
from resnet_service.runtimes.registry import open_runtime
from tests.support.models import rewritten
from tests.support.servers import REPOSITORY, cli

EXPORTED = REPOSITORY / "checkpoints" / "resnet18-fashion-mnist-int8.onnx"
TRUE: dict[str, Any] = {"embedding": 512, "feature_map": [512, 2, 2]}

Change = Callable[[onnx.GraphProto], None]


def without(name: str) -> Change:
    def change(graph: onnx.GraphProto) -> None:
        graph.output.remove(next(output for output in graph.output if output.name == name))

    return change


def instead(name: str, operator: str, *further: np.ndarray, **attributes: Any) -> Change:
    """Insert an operator before an output, which keeps its name."""

    def change(graph: onnx.GraphProto) -> None:
        old = next(node for node in graph.node if name in node.output)
        for node in graph.node:
            for number, taken in enumerate(node.input):
                if taken == name:
                    node.input[number] = f"{name}_before"
        old.output[list(old.output).index(name)] = f"{name}_before"
        names = [f"{name}_{number}" for number in range(len(further))]
        graph.initializer.extend(map(numpy_helper.from_array, further, names))
        graph.node.append(helper.make_node(operator, [f"{name}_before", *names], [name], **attributes))
        output = next(output for output in graph.output if output.name == name)
        output.type.tensor_type.ClearField("shape")
        if operator == "Cast":
            output.type.tensor_type.elem_type = attributes["to"]

    return change


def from_the_image(graph: onnx.GraphProto) -> None:
    """Make the class weights depend on the image, with the right shape and type."""
    node = next(node for node in graph.node if "class_weights" in node.output)
    constant = node.input[0]
    graph.initializer.append(numpy_helper.from_array(np.array(10, np.int64), "ten"))
    graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.int64), "axis"))
    graph.node.remove(node)
    graph.node.append(helper.make_node("ReduceMean", ["embedding", "axis"], ["mean of it"], keepdims=1))
    graph.node.append(helper.make_node("Add", [constant, "mean of it"], ["class_weights"]))


@pytest.mark.parametrize(
    ("change", "outputs", "kind"),
    [
        (None, {"embedding": 256, "feature_map": [256, 2, 2]}, InvalidMetadata),
        (None, {"embedding": 512, "feature_map": [512, 4, 4]}, InvalidMetadata),
        (None, {"embedding": 512, "feature_map": [512, 1, 4]}, InvalidMetadata),
        (None, {"embedding": 512, "feature_map": [256, 2, 2]}, InvalidMetadata),
        (None, {"embedding": None, "feature_map": [512, 2, 2]}, InvalidMetadata),
        (None, {"embedding": 512, "feature_map": [512, 2, 2, 1]}, InvalidMetadata),
        (None, {"embedding": 0}, InvalidMetadata),
        (None, {"embedding": 2**63, "feature_map": [2**63, 2, 2]}, InvalidMetadata),
        (None, {"embedding": 512}, InvalidMetadata),
        (None, {"embedding": None}, InvalidMetadata),
        (without("embedding"), {}, InvalidMetadata),
        (without("feature_map"), {}, InvalidMetadata),
        (without("class_weights"), {}, InvalidMetadata),
        (instead("class_weights", "Transpose", perm=[1, 0]), {}, InvalidMetadata),
        (instead("class_weights", "Gather", np.arange(9)), {}, InvalidMetadata),
        (instead("class_weights", "Flatten", axis=0), {}, InvalidMetadata),
        (instead("class_weights", "Cast", to=TensorProto.DOUBLE), {}, InvalidMetadata),
        (instead("class_weights", "Mul", np.array(np.nan, np.float32)), {}, NonFiniteWeights),
        (instead("embedding", "Cast", to=TensorProto.INT64), {}, InvalidMetadata),
        (instead("feature_map", "Cast", to=TensorProto.FLOAT16), {}, InvalidMetadata),
        (instead("feature_map", "Transpose", perm=[0, 2, 3, 1]), {}, InvalidMetadata),
        (from_the_image, {}, InvalidMetadata),
    ],
)
def test_what_the_graph_does_not_give_is_refused_when_it_is_opened(
    tmp_path: Path, change: Change | None, outputs: dict[str, object], kind: type[ModelError]
) -> None:
    path = rewritten(EXPORTED, tmp_path / "false.onnx", change, **outputs)
    with pytest.raises(kind) as caught:
        open_runtime(path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["embedding", "feature_map"])
def test_what_is_not_finite_never_gets_ready(tmp_path: Path, name: str) -> None:
    """Its scores are valid; only the additional outputs are not finite."""

    def spoil(graph: onnx.GraphProto) -> None:
        instead(name, "Div", np.zeros((), np.float32))(graph)

    path = rewritten(EXPORTED, tmp_path / "false.onnx", spoil)
    opened = Classifier(open_runtime(path), LabelSet.numbered(10))
    with pytest.raises(InvalidModelOutput):
        opened.warm_up()


def test_the_server_refuses_such_a_file_in_one_line(tmp_path: Path) -> None:
    path = rewritten(EXPORTED, tmp_path / "false.onnx", embedding=256, feature_map=[256, 2, 2])
    done = cli("serve", "--port", "0", "--checkpoint", path, timeout=60)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "which contradict its metadata" in done.stderr


def test_one_rewritten_with_the_truth_is_served(tmp_path: Path) -> None:
    opened = Classifier(open_runtime(rewritten(EXPORTED, tmp_path / "true.onnx", **TRUE)), LabelSet.numbered(10))
    opened.warm_up()
    assert opened.model.outputs.embedding == 512
