"""ONNX files as other programs write them: small classifiers, and files that are none."""

import itertools
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


def wide_windows() -> onnx.ModelProto:
    """Return 64 kB whose windows have 3 GB: one filter of 73 x 73 pixels, at each position of an image of 224."""
    nodes = [
        helper.make_node("Conv", ["image", "filter"], ["filtered"], pads=[36] * 4),
        helper.make_node("GlobalAveragePool", ["filtered"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["mean"]),
        helper.make_node("Gemm", ["mean", "matrix"], ["scores"]),
    ]
    return _of_224_pixels(nodes, filter=np.ones((1, 3, 73, 73), np.float32), matrix=np.ones((1, CLASSES), np.float32))


def sparse_windows() -> onnx.ModelProto:
    """Return the same of a filter of 2 x 2 pixels that are 72 apart, in less than a kilobyte."""
    model = wide_windows()
    model.graph.node[0].attribute.append(helper.make_attribute("dilations", [72, 72]))
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((1, 3, 2, 2), np.float32), "filter"))
    return model


def endless_pools() -> onnx.ModelProto:
    """Return a thousand pools that OpenVINO computes in seconds, and the reference implementation in half an hour."""
    names = ["image", *(f"pooled{number}" for number in range(1000))]
    nodes = [helper.make_node("MaxPool", [a], [b], kernel_shape=[1, 1]) for a, b in itertools.pairwise(names)]
    nodes += [
        helper.make_node("GlobalAveragePool", [names[-1]], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["mean"]),
        helper.make_node("Gemm", ["mean", "matrix"], ["scores"]),
    ]
    return _of_224_pixels(nodes, matrix=np.ones((3, CLASSES), np.float32))


def _of_224_pixels(nodes: Sequence[onnx.NodeProto], **arrays: np.ndarray) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    image, scores = value("image", [1, 3, 224, 224]), value("scores", [1, CLASSES])
    graph = helper.make_graph(nodes, "other", [image], [scores], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


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
