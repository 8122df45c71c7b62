"""ONNX files as other programs write them: small classifiers, and files that are none."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE, CLASSES, CHANNELS = 16, 3, 4

Change = Callable[[onnx.ModelProto], None]


def value(name: str, shape: Sequence[int | str | None] | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    made: onnx.ValueInfoProto = helper.make_tensor_value_info(name, kind, shape)
    return made


def weights() -> dict[str, np.ndarray]:
    dice = np.random.default_rng(1)
    shapes = {"filters": (CHANNELS, 3, 3, 3), "matrix": (CLASSES, CHANNELS), "offsets": (CLASSES,)}
    return {name: dice.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def classifier(
    *,
    layout: str = "NCHW",
    batch: int | str = "n",
    side: int | str = SIDE,
    kind: int = TensorProto.FLOAT,
    after: Sequence[tuple[str, dict[str, Any]]] = (),
    out_shape: Sequence[int | str] | None = None,
    opset: int = 18,
    ir_version: int = 10,
) -> onnx.ModelProto:
    """Return one convolution, pooled, with a linear layer; ``after`` are operators that follow."""
    nodes, image = [], "image"
    if kind != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", [image], ["numbers"], to=TensorProto.FLOAT))
        image = "numbers"
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", [image], ["channels_first"], perm=[0, 3, 1, 2]))
        image = "channels_first"
    nodes += [
        helper.make_node("Conv", [image, "filters"], ["filtered"], pads=[1, 1, 1, 1]),
        # The names of the service's own inputs and outputs must not be in the way.
        helper.make_node("Relu", ["filtered"], ["pixels"]),
        helper.make_node("GlobalAveragePool", ["pixels"], ["scale"]),
        helper.make_node("Flatten", ["scale"], ["class_weights"]),
        helper.make_node("Gemm", ["class_weights", "matrix", "offsets"], ["embedding"], transB=1),
    ]
    last = "embedding"
    for number, (operator, attributes) in enumerate(after):
        nodes.append(helper.make_node(operator, [last], [f"after{number}"], **attributes))
        last = f"after{number}"
    shape = [batch, 3, side, side] if layout == "NCHW" else [batch, side, side, 3]
    initializers = [numpy_helper.from_array(array, name) for name, array in weights().items()]
    graph = helper.make_graph(
        nodes, "other", [value("image", shape, kind)], [value(last, out_shape or [batch, CLASSES])], initializers
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def scores(normalised: np.ndarray) -> np.ndarray:
    """Compute what ``classifier`` does in numpy: float32 [N, 3, S, S] to [N, classes]."""
    held = weights()
    padded = np.pad(normalised, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    filtered = np.einsum("nchwij,ocij->nohw", windows, held["filters"])
    pooled = np.maximum(filtered, 0).mean(axis=(2, 3))
    result: np.ndarray = pooled @ held["matrix"].T + held["offsets"]
    return result


def written(path: Path, model: onnx.ModelProto, change: Change | None = None) -> Path:
    if change is not None:
        change(model)
    path.write_bytes(model.SerializeToString())
    return path
