"""Finding a network in a file of tensors: the part of the file that has an architecture's weights, and its classifier.

A part is told by what stands before the keys of the architecture, its prefix: ``state_dict.module.``, or nothing. It
matches if all tensors of the architecture but the classifier's are there, in their shapes.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from resnet_service.errors import BareStateDict, ModelError, StateDictMismatch
from resnet_service.models import networks
from resnet_service.models.architecture_names import INSTALL_PYTORCH
from resnet_service.models.checkpoint.arrays import Shaped
from resnet_service.models.checkpoint.keys import COUNTER, first_of
from resnet_service.models.checkpoint.torch_files import StoredTensor
from resnet_service.models.checkpoint.training import Tensors
from resnet_service.models.layouts import COMMON, COMMON_WITH_PYTORCH, TWINS, Layout, layout_of
from resnet_service.models.transformers_keys import transformers_key

# Of several parts that match, averaged weights come first: scripts that average evaluate and keep those. A teacher is
# another network. By the words of the prefix.
_AVERAGED = {"ema", "averaged", "avg", "swa"}
_TEACHER = {"teacher"}
# Layers beside the network with one of these words in their path are of the training, not of the answer.
_TRAINING = {
    *("optim", "optimizer", "optimizers", "optimiser", "optimisers", "sched", "scheduler", "schedulers"),
    *("loss", "losses", "criterion", "criterions", "criteria", "metric", "metrics", "accuracy", "acc", "auroc"),
    *("margin", "margins", "arcface", "cosface", "teacher", "ema", "momentum"),
}
# Counters of operations, which thop leaves in a network.
_COUNTS = ("total_ops", "total_params")
# Buffers with which a network normalises its images, by their last names.
_NORMALISATION = {
    **dict.fromkeys(("mean", "pixel_mean", "image_mean"), "mean"),
    **dict.fromkeys(("std", "pixel_std", "image_std"), "std"),
}
_LIKE = 0.6  # of the architecture's tensors, to be called like it
_CHANNELS = 3
_FLOATING = {"FloatStorage", "DoubleStorage", "HalfStorage", "BFloat16Storage"}
_MAX_COMPONENTS = 10  # of a key
_ONNX = "export it from its own code with torch.onnx.export, and convert the .onnx file"


class NoNetwork(BareStateDict):
    """No part of a file is like any architecture."""


class Match(NamedTuple):
    """An architecture's weights in a file.

    Args:
        layout: That of the architecture.
        part: The path of the part, ``""`` for the whole file.
        paths: Where each key of the architecture is. Counters of batch norms and the classifier's bias may be missing.
        rows: The number of the network's outputs.
        messages: What a user should know of the choice, a sentence each.
        normalisation: Where the network itself has the ``mean`` and ``std`` of its images, if it has both.

    """

    layout: Layout
    part: str
    paths: Mapping[str, str]
    rows: int
    messages: tuple[str, ...]
    normalisation: Mapping[str, str]

    @property
    def arch(self) -> str:
        """The name of the architecture."""
        return self.layout.arch


class _Backbone(NamedTuple):
    layout: Layout
    prefix: str
    paths: Mapping[str, str]
    names: Mapping[str, str]  # the key in the file of each key of the architecture


class _Head(NamedTuple):
    paths: Mapping[str, str]
    rows: int
    messages: tuple[str, ...] = ()


def match_architecture(tensors: Tensors, archs: Sequence[str], where: str, part: str | None = None) -> Match:
    """Find the first of ``archs`` that matches.

    Args:
        tensors: Those of the file.
        archs: Architectures of one name, the likeliest first.
        where: The file's name in messages.
        part: The path of the part to take, and of those in it.

    Raises:
        StateDictMismatch: None matches; the message says what differs and what to do.

    """
    index = _suffixes(tensors, part)
    for arch in archs:
        found = _backbones(tensors, index, layout_of(arch))
        if found:
            return _choose(found, tensors, where, part)
    raise _mismatch(tensors, index, [layout_of(archs[0])], where, archs[0])


def guess(tensors: Tensors, where: str, part: str | None = None) -> Match:
    """Find the common architecture whose weights a file has; other arguments as for ``match_architecture``.

    Raises:
        BareStateDict: None matches, or two that the weights cannot tell apart.
        StateDictMismatch: One nearly matches; the message says what differs and what to do.

    """
    index = _suffixes(tensors, part)
    layouts = [layout_of(arch) for arch in COMMON]
    found = [one for layout in layouts for one in _backbones(tensors, index, layout)]
    if not found:
        layouts += _layouts_of_pytorch()
        found = [one for layout in layouts[len(COMMON) :] for one in _backbones(tensors, index, layout)]
    if not found:
        raise _mismatch(tensors, index, layouts, where, None)
    # The keys of resnet18 are among those of resnet34: the architecture of the most keys is the part's.
    largest = {one.prefix: one for one in sorted(found, key=lambda one: len(one.paths))}
    chosen = _choose(list(largest.values()), tensors, where, part)
    if chosen.arch in TWINS:
        raise BareStateDict(
            f"{where} does not name its architecture, and its weights fit {chosen.arch} and {TWINS[chosen.arch]}, "
            f"which compute differently. Say which it is: --arch {chosen.arch} or --arch {TWINS[chosen.arch]}"
        )
    return chosen


def _layouts_of_pytorch() -> list[Layout]:
    try:
        return [layout_of(arch) for arch in COMMON_WITH_PYTORCH]
    except ModuleNotFoundError:  # without PyTorch, the others are not known
        return []


def _suffixes(tensors: Tensors, part: str | None) -> dict[str, list[str]]:
    """Return, for each end of a path, the prefixes that stand before it."""
    index: dict[str, list[str]] = {}
    for path in tensors.found:
        at = len(path)
        for _ in range(_MAX_COMPONENTS):
            at = path.rfind(".", 0, at)
            prefix = path[: at + 1]
            if part is None or prefix.startswith(f"{part.rstrip('.')}."):
                index.setdefault(path[at + 1 :], []).append(prefix)
            if at < 0:
                break
    return index


def _namings(layout: Layout) -> Iterator[dict[str, str]]:
    """Yield the names under which files have an architecture's keys: its own, and for ResNets two others."""
    yield {key: key for key in layout.shapes}
    if layout.arch in networks.ARCHITECTURES and "layer1.0.conv1.weight" in layout.shapes:
        yield {key: _numbered(key) for key in layout.shapes}
        yield {key: transformers_key(key) for key in layout.shapes}


def _numbered(key: str) -> str:
    """Return a ResNet's key in ``nn.Sequential(*resnet.children())``, which fastai makes, too."""
    numbers = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7, "fc": 9}
    module, _, rest = key.partition(".")
    return f"{numbers[module]}.{rest}"


def _backbones(tensors: Tensors, index: Mapping[str, list[str]], layout: Layout) -> list[_Backbone]:
    found = []
    backbone = layout.backbone
    for names in _namings(layout):
        for prefix in index.get(names[next(iter(backbone))], ()):
            if all(
                key.endswith(COUNTER) or _has(tensors, prefix + names[key], shape) for key, shape in backbone.items()
            ):
                paths = {key: prefix + names[key] for key in backbone if prefix + names[key] in tensors.found}
                found.append(_Backbone(layout, prefix, paths, names))
    return found


def _has(tensors: Tensors, path: str, shape: tuple[int, ...]) -> bool:
    return path in tensors.found and tuple(tensors.found[path].shape) == shape


def _choose(found: list[_Backbone], tensors: Tensors, where: str, part: str | None) -> Match:
    found = sorted(found, key=lambda one: _rank(one.prefix))  # stable: of one rank, the first in the file
    heads = [(one, _head(tensors, one, where)) for one in found]
    complete = [(one, head) for one, head in heads if isinstance(head, _Head)]
    if not complete:
        _refuse_quantized(tensors, where)
        raise next(head for _, head in heads if isinstance(head, ModelError))
    chosen, head = complete[0]
    messages = list(head.messages)
    if next(iter(chosen.names.values())).startswith("resnet.embedder."):
        messages.append("The names are those of transformers; its options are taken to be the default ones")
    if len(complete) > 1:
        parts = ", ".join(_path_of(one.prefix) for one, _ in complete)
        equals = [(one, head) for one, head in complete if _rank(one.prefix) == _rank(chosen.prefix)]
        if not all(_same(tensors, complete[0], other) for other in equals[1:]):
            raise StateDictMismatch(
                f"{where} has several networks with other weights: {parts}. Name the one to take, such as "
                f"--part {_path_of(chosen.prefix)}; several together, as an ensemble, are not one model that can be "
                "served."
            )
        averaged = ", the averaged weights" if _rank(chosen.prefix) == 0 else ""
        messages.append(
            f"Several parts of the file match: {parts}. Took {_path_of(chosen.prefix)}{averaged}; "
            "--part NAME takes another"
        )
    used = {*chosen.paths.values(), *head.paths.values()}
    others = tuple(
        one.prefix for one in found if one.prefix != chosen.prefix and not chosen.prefix.startswith(one.prefix)
    )
    left = [path for path in tensors.found if path not in used and not (others and path.startswith(others))]
    layers = [path for path in left if _is_layer(tensors, path)]
    # Of an optimizer and the like, nothing is said: training checkpoints have them.
    sections = {tensors.section(path) for path in used}
    beside = [path for path in left if len(sections) > 1 or tensors.section(path) in sections]
    normalisation = _normalisation(tensors, beside)
    layers += [
        path
        for path in beside
        if path not in layers and path not in normalisation.values() and _may_be_needed(tensors, path)
    ]
    if layers and (part is None or any(path.startswith(chosen.prefix) for path in layers)):
        raise StateDictMismatch(
            f"{where} has layers besides those of {chosen.layout.arch}: {first_of(layers)}; without them, it would "
            "compute something else. If it is another architecture, name it with --arch; if they are of no use for the "
            f"answer, name the part to take: --part {_path_of(chosen.prefix) or 'NAME'}; else {_ONNX}."
        )
    section = next(iter(sections)) if len(sections) == 1 else ""
    beside = [path.removeprefix(section) for path in beside if path not in normalisation.values()]
    if beside:
        messages.append(f"Left behind, as no part of {chosen.layout.arch}: {first_of(beside)}")
    paths = {**chosen.paths, **head.paths}
    return Match(chosen.layout, _path_of(chosen.prefix), paths, head.rows, tuple(messages), normalisation)


def _same(tensors: Tensors, one: tuple[_Backbone, _Head], other: tuple[_Backbone, _Head]) -> bool:
    """Whether two parts are one network, under two names."""
    first, second = ({**backbone.paths, **head.paths} for backbone, head in (one, other))
    if first.keys() != second.keys() or one[0].layout != other[0].layout:
        return False
    return all(_equal(tensors.found[first[key]], tensors.found[second[key]]) for key in first)


def _equal(one: Shaped, other: Shaped) -> bool:
    if isinstance(one, StoredTensor) and isinstance(other, StoredTensor):
        if (one.storage, one.offset, one.strides) == (other.storage, other.offset, other.strides):
            return True
        try:
            return bool(np.array_equal(one.array(""), other.array("")))
        except ModelError:
            return False
    return isinstance(one, np.ndarray) and isinstance(other, np.ndarray) and bool(np.array_equal(one, other))


def _normalisation(tensors: Tensors, paths: Sequence[str]) -> dict[str, str]:
    """Return the paths of ``mean`` and ``std`` of the images among ``paths``, if both are there, once."""
    found = [(_NORMALISATION.get(path.rpartition(".")[2]), path) for path in paths]
    named = [(name, path) for name, path in found if name and math.prod(tensors.found[path].shape) == _CHANNELS]
    return (
        {name: path for name, path in named if name}
        if sorted(name or "" for name, _ in named) == ["mean", "std"]
        else {}
    )


def _may_be_needed(tensors: Tensors, path: str) -> bool:
    """Whether a tensor beside the network may take part in the answer, by its name and type."""
    tensor = tensors.found[path]
    floating = tensor.dtype.kind == "f" if isinstance(tensor, np.ndarray) else _is_floating(tensor)
    return floating and not _words(path) & _TRAINING and path.rpartition(".")[2] not in _COUNTS


def _is_floating(tensor: Shaped) -> bool:
    return isinstance(tensor, StoredTensor) and tensor.storage.kind in _FLOATING


def _words(path: str) -> set[str]:
    return set(re.split(r"[._]", path.lower()))


def is_of_training(path: str) -> bool:
    """Whether a path has a word of what is of the training, not of the answer."""
    return bool(_words(path) & _TRAINING)


def _rank(prefix: str) -> int:
    words = _words(prefix)
    return 0 if words & _AVERAGED else 2 if words & _TEACHER else 1


def _path_of(prefix: str) -> str:
    return prefix.rstrip(".")


def _is_layer(tensors: Tensors, path: str) -> bool:
    """Whether a tensor has the weights of a layer that may take part in the answer."""
    return path.endswith("weight") and len(tensors.found[path].shape) > 1 and not _words(path) & _TRAINING


def _head(tensors: Tensors, backbone: _Backbone, where: str) -> _Head | StateDictMismatch:
    """Return the classifier of a backbone, or the error that says what is wrong with it."""
    layout, prefix = backbone.layout, backbone.prefix
    paths = {key: prefix + backbone.names[key] for key in layout.classifier}
    shapes = {key: tuple(tensors.found[path].shape) for key, path in paths.items() if path in tensors.found}
    matching = {key for key, shape in shapes.items() if shape and shape[1:] == layout.shapes[key][1:]}
    rows = {shapes[key][0] for key in matching}
    if matching == layout.classifier and len(rows) == 1:
        return _Head(paths, rows.pop())
    weight = next((key for key in layout.classifier if key.endswith(".weight")), "")
    bias = weight.removesuffix("weight") + "bias"
    if {weight, bias} != layout.classifier or len(layout.shapes[weight]) != 2:
        names = ", ".join(sorted(paths.values()))
        return StateDictMismatch(f"{where} has another classifier than {layout.arch}, which has {names}; {_ONNX}.")
    taken = set(backbone.paths.values())
    for parent in _parents(prefix):
        layers = [
            path
            for path in tensors.found
            if path.startswith(parent)
            and path not in taken
            and (parent == prefix or not path.startswith(prefix))
            and _is_layer(tensors, path)
        ]
        if layers:
            return _found_head(tensors, backbone, layers, weight, where)
    return StateDictMismatch(
        f"{where} has the weights of {layout.arch} without a classifier ({weight}): it gives features, no classes. "
        "Convert the file of the whole classifier, or train a last layer for it."
    )


def _parents(prefix: str) -> Iterator[str]:
    """Yield ``a.b.``, ``a.``, and the empty prefix."""
    while prefix:
        yield prefix
        prefix = prefix[: prefix.rstrip(".").rfind(".") + 1]
    yield ""


def _found_head(
    tensors: Tensors, backbone: _Backbone, layers: list[str], weight: str, where: str
) -> _Head | StateDictMismatch:
    arch, features = backbone.layout.arch, backbone.layout.shapes[weight][1]
    module = layers[0].removesuffix("weight")
    siblings = f"{module.rstrip('.').rpartition('.')[0]}."
    norms = [
        path
        for path in tensors.found
        if path.endswith("running_mean") and path.startswith(siblings) and siblings != "."
    ]
    norms = [path for path in norms if path not in backbone.paths.values()]
    shape = tuple(tensors.found[layers[0]].shape)
    if len(layers) > 1 or norms:
        return StateDictMismatch(
            f"{where} has {arch} with a classifier of several layers ({first_of([*layers, *norms])}), where {arch} "
            f"has one linear layer. Train it with one linear layer, or {_ONNX}."
        )
    if len(shape) != 2 or shape[1] != features:
        return StateDictMismatch(
            f"{where} has {arch} with another classifier: {layers[0]} has the shape {list(shape)}, and {arch} gives "
            f"{features} features. Train it with the architecture's own classifier, or {_ONNX}."
        )
    bias = f"{module}bias"
    paths = {weight: layers[0]}
    messages = []
    if layers[0] != backbone.prefix + backbone.names[weight]:
        known = "" if layers[0].endswith(weight) else f", {weight} of {arch}"
        messages.append(f"Took {layers[0]} as the last layer{known}")
    if bias in tensors.found:
        if tuple(tensors.found[bias].shape) != shape[:1]:
            return StateDictMismatch(
                f"{where} has a last layer whose bias, {bias}, has another length than its weight."
            )
        paths[weight.removesuffix("weight") + "bias"] = bias
    else:
        messages.append("The last layer has no bias; zeros were written")
    return _Head(paths, shape[0], tuple(messages))


def _mismatch(
    tensors: Tensors, index: Mapping[str, list[str]], layouts: Sequence[Layout], where: str, named: str | None
) -> BareStateDict | StateDictMismatch:
    """Return the error that says what differs from the architecture that the file is most like."""
    _refuse_quantized(tensors, where)
    if not index:
        whole = _suffixes(tensors, None)
        parts = dict.fromkeys(_path_of(one.prefix) for layout in layouts for one in _backbones(tensors, whole, layout))
        names = [part for part in parts if part] or _tops(tensors)
        return BareStateDict(f"{where} has no such part. Its parts are {first_of(names)}.")
    likenesses = [_likeness(tensors, index, layout) for layout in layouts]
    share, layout, prefix = max(likenesses, key=lambda one: one[0])
    if share < _LIKE and not named:
        if all(part.isdigit() for path in tensors.found for part in path.split(".")):
            return StateDictMismatch(
                f"{where} has {len(tensors.found)} tensors without names, so that nothing says what each is. "
                "Save the network's state_dict: torch.save(model.state_dict(), FILE)"
            )
        return NoNetwork(
            f"{where} has weights that fit no common architecture ({first_of(tensors.found)}). Name its architecture "
            f"with --arch NAME, if torchvision or timm has it; else {_ONNX}."
            + ("" if len(layouts) > len(COMMON) else f" Ten are known without PyTorch. {INSTALL_PYTORCH}")
        )
    matching = [arch for arch in COMMON if named and _backbones(tensors, index, layout_of(arch))]
    if matching:
        return StateDictMismatch(
            f"{where} does not fit {named}; its weights are those of {matching[-1]}: --arch {matching[-1]}"
        )
    return StateDictMismatch(_difference(tensors, layout, prefix, where))


def _refuse_quantized(tensors: Tensors, where: str) -> None:
    if tensors.unread:
        raise StateDictMismatch(
            f"{where} has quantized weights ({first_of(tensors.unread)}), which are not read. Convert the network as "
            "it was before quantization; `resnet-service export --precision int8` quantizes it."
        )


def _tops(tensors: Tensors) -> list[str]:
    """Return the first two components of all paths."""
    return list(dict.fromkeys(".".join(path.split(".")[:2]) for path in tensors.found))


def _likeness(tensors: Tensors, index: Mapping[str, list[str]], layout: Layout) -> tuple[float, Layout, str]:
    counts: dict[str, int] = {}
    backbone = layout.backbone
    for key, shape in backbone.items():
        for prefix in index.get(key, ()):
            counts[prefix] = counts.get(prefix, 0) + (tuple(tensors.found[prefix + key].shape) == shape)
    prefix, count = max(counts.items(), key=lambda item: item[1], default=("", 0))
    return count / len(backbone), layout, prefix


def _difference(tensors: Tensors, layout: Layout, prefix: str, where: str) -> str:
    arch, backbone = layout.arch, layout.backbone
    stem = next(iter(backbone))
    shape = tuple(tensors.found[prefix + stem].shape) if prefix + stem in tensors.found else backbone[stem]
    if len(shape) == 4 and shape[1] != 3 and (shape[0], *shape[2:]) == (backbone[stem][0], *backbone[stem][2:]):
        advice = (
            f"For grey images, the same network for three channels has the weights W.repeat(1, 3, 1, 1) / 3 in {stem}: "
            "save it so, and give its mean and std three times."
            if shape[1] == 1
            else "Train it with three."
        )
        channels = f"{shape[1]} channel{'s' * (shape[1] > 1)}"
        return f"{where} has {arch} for images of {channels}; the service gives three. {advice}"
    if len(shape) == 4 and shape[2:] != backbone[stem][2:]:
        return (
            f"{where} has a variant of {arch} for small images, as for CIFAR: its first layer, {stem}, is "
            f"{shape[2]}x{shape[3]} where {arch} has {backbone[stem][2]}x{backbone[stem][3]}. torchvision and timm "
            f"have no such network; {_ONNX}."
        )
    missing = [key for key in backbone if prefix + key not in tensors.found and not key.endswith(COUNTER)]
    other = [
        f"{key} {list(tensors.found[prefix + key].shape)} instead of {list(expected)}"
        for key, expected in backbone.items()
        if prefix + key in tensors.found and tuple(tensors.found[prefix + key].shape) != expected
    ]
    problems = [
        f"{problem}: {first_of(names)}"
        for problem, names in (("missing", missing), ("of another shape", other))
        if names
    ]
    return (
        f"{where} does not fit {arch}: {'; '.join(problems)}. Name its architecture with --arch NAME, if torchvision "
        f"or timm has it; else {_ONNX}."
    )
