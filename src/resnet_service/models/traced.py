"""How a network ends: what its last layer takes, and the feature map that was averaged into it, as further outputs.

The tail is read from the traced graph, where it does not matter whether pooling was a module or a function.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn

from resnet_service.models.metadata import Outputs

_ATEN = torch.ops.aten

# They hand on what they take, in another shape or none.
_CARRIES = {
    _ATEN.dropout.default,  # of a network in evaluation mode
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
    """The network does what a traced graph cannot hold, such as choosing its way by the data."""


class TracedModel(NamedTuple):
    """A traced network that returns (logits, embedding, feature map), as far as it has them, in this order."""

    network: fx.GraphModule
    outputs: Outputs
    class_weights: Tensor | None  # float32 [classes, C], where there is a feature map


def trace(network: nn.Module, example: Tensor) -> TracedModel:
    """Trace a network, and have it return what comes before its logits.

    Args:
        network: In evaluation mode; gives logits [N, classes]. The traced one shares its weights.
        example: An input for a batch of 2 or more; only its first dimension may differ in later calls.

    Raises:
        UntraceableModel: PyTorch cannot make a graph of it.

    """
    try:
        program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    except Exception as error:  # of torch's own and Python's errors, any can come out of foreign code
        raise UntraceableModel(type(error).__name__) from error
    # Guards would check each input's shape; who calls has done so.
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
        feature_map = _averaged(embedding)
        if feature_map is not None and weight.op == "get_attr":
            nodes.append(feature_map)
            outputs = Outputs(embedding=outputs.embedding, feature_map=tuple(_shape(feature_map)[1:]))
            weights = traced.get_parameter(weight.target).detach()
    end.args = (tuple(nodes),)
    # The traced code packs its result as the network did, and the network gave one tensor.
    traced.graph.set_codegen(fx.graph.CodeGen())
    traced.recompile()
    return TracedModel(traced, outputs, weights)


def _averaged(node: fx.Node) -> fx.Node | None:
    """Return what ``node`` is the mean over height and width of, [N, C, h, w], if it is one."""
    while _is(node, _CARRIES):
        node = node.args[0]  # type: ignore[assignment]
    if _is(node, [_ATEN.adaptive_avg_pool2d.default]):
        globally = list(node.args[1]) == [1, 1]  # type: ignore[arg-type]
    elif _is(node, [_ATEN.mean.dim]):
        globally = {axis % 4 for axis in node.args[1]} == {2, 3}  # type: ignore[union-attr, operator]
    else:
        return None
    source = node.args[0]
    return source if globally and isinstance(source, fx.Node) and len(_shape(source)) == 4 else None


def _is(node: object, operations: Iterable[object]) -> bool:
    return isinstance(node, fx.Node) and node.op == "call_function" and node.target in operations


def _shape(node: object) -> list[int]:
    if not isinstance(node, fx.Node):
        return []
    return list(node.meta["val"].shape)
