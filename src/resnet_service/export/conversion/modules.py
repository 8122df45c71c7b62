"""Pickled modules compared with the architecture: weights alone do not say how a network computes with them.

A whole pickled network says so by the classes and attributes of its modules, which are read as data. What its own
classes compute in ``forward`` is not seen; that of every layer in them is.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from resnet_service.errors import StateDictMismatch
from resnet_service.export.conversion.matching import Match, is_of_training
from resnet_service.models import networks
from resnet_service.models.checkpoint.pickles import Object
from resnet_service.models.checkpoint.training import children

_MAX_DEPTH = 60
# These pass on what they get when a network answers.
_NEUTRAL = {"Identity", "Dropout", "Dropout2d", "Flatten", "DropPath", "StochasticDepth", "Sequential", "ModuleDict"}
_LAYERS = {"Conv2d", "Conv2dSame", "BatchNorm2d", "BatchNormAct2d", "SyncBatchNorm", "FrozenBatchNorm2d", "Linear"}
_POOLS = {"AdaptiveAvgPool2d", "FastAdaptiveAvgPool"}
_LIBRARIES = ("torch.", "torchvision.", "timm.", "transformers.")
# Names of activations, in whose place an Identity is no neutral module.
_ACTIVATIONS = ("relu", "act1", "act2", "act3")
_COMPARED = (
    *("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode", "ceil_mode", "output_size"),
    *("eps", "negative_slope", "approximate", "normalized_shape"),
)


class _Module(NamedTuple):
    name: str  # of the class, with its module
    attributes: Mapping[Any, Any]
    is_leaf: bool

    @property
    def kind(self) -> str:
        return self.name.rpartition(".")[2]


def check_modules(content: Any, match: Match, where: str) -> None:
    """Compare the pickled modules of a file with those of the architecture; a file of tensors only has none.

    Raises:
        StateDictMismatch: A layer is of another class or computes otherwise, or one is missing.

    """
    path = next(iter(match.paths.values()))
    modules = {name: module for root in _roots(content, path) for name, module in root.items()}
    modules = {name: module for name, module in modules.items() if not is_of_training(name)}
    if not modules:
        return
    known = match.arch in networks.ARCHITECTURES
    difference = next(_differences_of_known(modules, match) if known else _differences(modules, match), None)
    if difference is not None:
        raise StateDictMismatch(
            f"{where} is a pickled network that has the weights of {match.arch} and computes otherwise: {difference}. "
            "Export it with torch.onnx.export, and convert the .onnx file. If it computes the same, save its weights "
            "alone: torch.save(model.state_dict(), FILE)"
        )


def _roots(content: Any, path: str) -> Iterator[dict[str, _Module]]:
    """Yield the modules of each pickled network of which the tensor at ``path`` is a part, by their paths."""
    visited: set[int] = set()

    def visit(value: Any, at: str, depth: int, root: dict[str, _Module] | None) -> Iterator[dict[str, _Module]]:
        if not isinstance(value, dict | list | tuple | Object) or id(value) in visited or depth > _MAX_DEPTH:
            return
        visited.add(id(value))
        inside = root
        if isinstance(value, Object) and isinstance(value.state, dict) and "_modules" in value.state:
            inside = {} if root is None else root
            inside[at] = _Module(value.name, value.state, not value.state["_modules"])
        for name, child in children(value):
            inner = f"{at}.{name}" if at and name else at or name
            yield from visit(child, inner, depth + 1, inside)
        if root is None and inside is not None and (not at or path.startswith(f"{at}.")):
            yield inside

    yield from visit(content, "", 0, None)


def _differences_of_known(modules: Mapping[str, _Module], match: Match) -> Iterator[str]:
    network = networks.find_network(match.arch)
    used = {path.rpartition(".")[0] for path in match.paths.values()}
    for step in network.steps:
        if not isinstance(step, networks.Convolution):
            continue
        path = match.paths[f"{step.name}.weight"].rpartition(".")[0]
        same = network.same_padding and step.stride > 1 and step.kernel > 1
        wanted: dict[str, Any] = {"stride": step.stride, "dilation": 1, "groups": step.groups, "padding_mode": "zeros"}
        if not same:
            wanted["padding"] = step.kernel // 2
        yield from _compared(modules, path, ("Conv2dSame" if same else "Conv2d",), wanted)
        path = match.paths[f"{step.norm}.weight"].rpartition(".")[0]
        yield from _compared(modules, path, (), {"eps": network.epsilon})
    residual = not network.same_padding
    activation = "ReLU" if residual else "ReLU6"
    expected = {activation, *_POOLS, *_NEUTRAL, *({"MaxPool2d"} if residual else ())}
    pools = 0
    for path, module in modules.items():
        if not (module.is_leaf or path in used):
            continue
        foreign = not module.name.startswith(_LIBRARIES)
        if foreign or module.kind not in (_LAYERS if path in used else expected):
            yield f"{path} is a {module.name}"
        if module.kind == "Identity" and path.rpartition(".")[2] in _ACTIVATIONS:
            yield f"{path} is a {module.name}"
        if module.kind == "MaxPool2d":
            pools += 1
            wanted = {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 1, "ceil_mode": False}
            yield from _compared(modules, path, (), wanted)
        if module.kind == "AdaptiveAvgPool2d":
            yield from _compared(modules, path, (), {"output_size": 1})
    if pools != residual:
        yield f"it has {pools} modules of max pooling, and {match.arch} has {int(residual)}"


def _differences(modules: Mapping[str, _Module], match: Match) -> Iterator[str]:
    """Compare with the modules that PyTorch makes of the architecture."""
    import torch

    from resnet_service.models.architectures import build

    with torch.device("meta"):
        reference = build(match.arch, match.rows)
    prefix = f"{match.part}." if match.part else ""
    head = {path.rpartition(".")[0] for key, path in match.paths.items() if key in match.layout.classifier}
    leaves = {path for path, module in modules.items() if module.is_leaf}
    for name, own in reference.named_modules():
        kind = type(own).__name__
        if next(own.children(), None) is None and kind not in _NEUTRAL and kind != "Linear":
            if prefix + name not in modules:
                yield f"{prefix + name}, a {kind}, is missing"
            else:
                wanted = {key: vars(own)[key] for key in _COMPARED if key in vars(own)}
                yield from _compared(modules, prefix + name, (kind,), wanted)
        leaves.discard(prefix + name)
    for path in sorted(leaves - head):
        if modules[path].kind not in _NEUTRAL or not modules[path].name.startswith(_LIBRARIES):
            yield f"{path} is a {modules[path].name}"


def _compared(
    modules: Mapping[str, _Module], path: str, kinds: tuple[str, ...], wanted: Mapping[str, Any]
) -> Iterator[str]:
    module = modules.get(path)
    if module is None:
        return
    if kinds and module.kind not in kinds:
        yield f"{path} is a {module.name}"
    for name, value in wanted.items():
        found = module.attributes.get(name, value)  # older versions of PyTorch wrote fewer
        if _pair(found) != _pair(value):
            yield f"{name} of {path} is {str(found)[:40]}, not {value}"


def _pair(value: Any) -> Any:
    """Return ``1`` and ``(1, 1)`` in one form."""
    if isinstance(value, list | tuple):
        return tuple(value)
    return (value, value) if type(value) is int else value
