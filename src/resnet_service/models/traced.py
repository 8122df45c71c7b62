"""Tracing a network so that it also returns its embedding and its feature map.

The last layers are read from the traced graph, where pooling looks the same as a module and as a function.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn

from resnet_service.models.metadata import Outputs

_ATEN = torch.ops.aten

# Operations that pass on their input, possibly in another shape.
_PASS_THROUGH = {
    _ATEN.dropout.default,  # in evaluation mode
    _ATEN.flatten.using_ints,
    _ATEN.view.default,
    _ATEN.reshape.default,
    _ATEN.squeeze.default,
    _ATEN.squeeze.dim,
    _ATEN.squeeze.dims,
    _ATEN.contiguous.default,
    _ATEN.clone.default,
}


class UntraceableModel(ValueError):
    """The network cannot be expressed as a graph; for example, it branches on the data."""


class TracedModel(NamedTuple):
    """A traced network that returns (logits, embedding, feature map), in this order, as far as it has them."""

    network: fx.GraphModule
    outputs: Outputs
    class_weights: Tensor | None  # float32 [classes, C], if there is a feature map


def trace(network: nn.Module, example: Tensor) -> TracedModel:
    """Trace a network, with the activations before its logits as further outputs.

    Args:
        network: In evaluation mode; returns logits [N, classes]. The traced network shares its weights.
        example: An input for a batch of 2 or more; only the first dimension may differ in later calls.

    Raises:
        UntraceableModel: PyTorch cannot make a graph of it.

    """
    try:
        program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    except Exception as error:  # code of other packages runs here and may raise anything
        raise UntraceableModel(type(error).__name__) from error
    # The guards would check each input's shape, which callers have checked.
    traced = program.module(check_guards=False)
    if not isinstance(traced, fx.GraphModule):
        raise TypeError(f"torch.export made a {type(traced).__name__}")
    (end,) = traced.graph.find_nodes(op="output")
    (logits,) = end.args[0]
    nodes, outputs, weights = [logits], Outputs(), None
    if _is(logits, [_ATEN.linear.default]) and len(_shape(logits.args[0])) == 2:
        embedding, weight = logits.args[:2]
        nodes.append(embedding)
        outputs = Outputs(embedding=_shape(embedding)[1])
        feature_map = _pooled(embedding)
        if feature_map is not None and weight.op == "get_attr":
            nodes.append(feature_map)
            outputs = Outputs(embedding=outputs.embedding, feature_map=tuple(_shape(feature_map)[1:]))
            weights = traced.get_parameter(weight.target).detach()
    end.args = (tuple(nodes),)
    # The original code generator would return one tensor, as the network did; this one returns the tuple.
    traced.graph.set_codegen(fx.graph.CodeGen())
    traced.recompile()
    return TracedModel(traced, outputs, weights)


def _pooled(node: fx.Node) -> fx.Node | None:
    """Return the node [N, C, h, w] whose mean over height and width is ``node``, if there is one."""
    while _is(node, _PASS_THROUGH):
        node = node.args[0]  # type: ignore[assignment]
    if _is(node, [_ATEN.adaptive_avg_pool2d.default]):
        is_global = list(node.args[1]) == [1, 1]  # type: ignore[arg-type]
    elif _is(node, [_ATEN.mean.dim]):
        is_global = {axis % 4 for axis in node.args[1]} == {2, 3}  # type: ignore[union-attr, operator]
    else:
        return None
    source = node.args[0]
    return source if is_global and isinstance(source, fx.Node) and len(_shape(source)) == 4 else None


def _is(node: object, operations: Iterable[object]) -> bool:
    return isinstance(node, fx.Node) and node.op == "call_function" and node.target in operations


def _shape(node: object) -> list[int]:
    if not isinstance(node, fx.Node):
        return []
    return list(node.meta["val"].shape)
