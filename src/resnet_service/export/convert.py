"""Conversion of a bare state_dict, a training checkpoint or a pickled model to a checkpoint."""

import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from resnet_service.errors import (
    BareStateDict,
    ClassCountMismatch,
    FileNotWritten,
    InvalidLabelSet,
    InvalidMetadata,
    ModelError,
    NonFiniteWeights,
    PickledCode,
    StateDictMismatch,
    SuspiciousModel,
    UnreadableModel,
)
from resnet_service.models import networks
from resnet_service.models.architecture_names import resolve, resolve_given
from resnet_service.models.checkpoint.arrays import Array
from resnet_service.models.checkpoint.contents import STATE_DICT
from resnet_service.models.checkpoint.keys import first_of
from resnet_service.models.checkpoint.torch_files import StoredTensor, read_torch_file
from resnet_service.models.checkpoint.training import Tensors, options_of, tensors_of, text_list
from resnet_service.models.checkpoint.weights import (
    is_safetensors_file,
    is_safetensors_path,
    safetensors_contents,
    save_weights,
)
from resnet_service.models.fitting import Fit, fit, guess
from resnet_service.models.label_forms import (
    NAME_KEYS,
    dump_label_set,
    is_label_set,
    label_set_name,
    labels_of,
    parse_label_forms,
)
from resnet_service.models.labels import ClassLabel, LabelSet, labels_for, read_label_set
from resnet_service.models.metadata import LabelSetReference, ModelMetadata
from resnet_service.models.preprocessing import preprocessing_of
from resnet_service.system.files import atomic_write, check_target, read_model_file, sha256_of
from resnet_service.types import EXPORTED_SUFFIX, SAFETENSORS_SUFFIX, Channels, Interpolation, WeightsDtype
from resnet_service.validation import describe_first

_UNPICKLE_SECONDS = 300
_MAX_NAMES = 3
_PREPROCESSING = ("input_size", "resize_size", "interpolation", "mean", "std")
# Under these keys, training scripts keep the name of the architecture.
_ARCH_KEYS = (
    "arch",
    "model_name",
    "architecture",
    "model_arch",
    "model",
    "backbone",
    "encoder",
    "net",
    "network",
    "name",
)
# Globals of tensors and of containers of plain values.
_PLAIN_GLOBALS = (
    "torch.",
    "collections.",
    "numpy.",
    "_codecs.",
    "builtins.set",
    "builtins.frozenset",
    "__builtin__.set",
)


@dataclass(frozen=True)
class ConvertOptions:
    """Metadata of the checkpoint, and how it is made.

    Args:
        arch: The architecture, in any spelling. By default the one that the file names, or that its weights fit.
        num_classes: To be compared with the rows of the last layer.
        input_size: ``input_size`` to ``std`` are as in ``ModelMetadata``. By default they are those of the file, else
            those with which torchvision or timm publish weights of the architecture.
        resize_size: By default in the architecture's proportion to ``input_size``.
        interpolation: See ``input_size``.
        mean: See ``input_size``.
        std: See ``input_size``.
        label_file: The names of the classes: a label set, or one of the forms of ``models.label_forms``.
        dtype: Type of the stored weights.
        part: The part of the file to take, if several fit.
        binary: Write a network of one output, whose sigmoid is the probability of the second class, as one of two.
        trust_pickle: Run the code of a pickled model, in a child process. Only for files you made yourself.

    """

    arch: str | None = None
    num_classes: int | None = None
    input_size: int | None = None
    resize_size: int | None = None
    interpolation: Interpolation | None = None
    mean: Channels | None = None
    std: Channels | None = None
    label_file: Path | None = None
    dtype: WeightsDtype = "float32"
    part: str | None = None
    binary: bool = False
    trust_pickle: bool = False


DEFAULT_OPTIONS = ConvertOptions()


class Converted(NamedTuple):
    """The metadata of the checkpoint that was written, and where its preprocessing comes from, for a message."""

    metadata: ModelMetadata
    preprocessing_source: str


class _Found(NamedTuple):
    """A network in a file, and the facts beside it."""

    content: Any
    tensors: Tensors
    fit: Fit


class _Labels(NamedTuple):
    """The label set of a checkpoint: the reference in it, and the bytes of the file to write beside it, if any."""

    reference: LabelSetReference | None
    data: bytes | None = None


def convert(
    source: Path,
    target: Path,
    options: ConvertOptions = DEFAULT_OPTIONS,
    on_message: Callable[[str], None] = lambda _: None,
) -> Converted:
    """Find the weights of a network in ``source`` and write them to ``target`` as a checkpoint.

    Nothing in ``source`` is executed, unless ``trust_pickle`` says so. A ``.safetensors`` target of an architecture of
    ``networks`` needs no PyTorch.

    Args:
        source: A bare ``state_dict``, a training checkpoint, a whole pickled model, a checkpoint; of ``torch.save`` or
            safetensors.
        target: In the format of its suffix. A label set that was not one of this service's files is written beside it.
        options: What the file does not say, or says wrongly.
        on_message: Called with each message, a sentence without its stop.

    Raises:
        ModelError: The file cannot be read, or has no network that can be served; the message says what to do.
        FileNotWritten: The checkpoint cannot be written.

    """
    check_target(source, target)
    if target.suffix == EXPORTED_SUFFIX:
        raise FileNotWritten(f"{target} names an exported model. Name a checkpoint, such as {target.stem}.safetensors.")
    found = _find(source, options, on_message)
    for text in found.fit.messages:
        on_message(text)
    state = _state(found, str(source), options.dtype)
    rows = found.fit.rows
    if rows == 1 or options.binary:
        state, rows = _as_two_classes(state, found.fit, options.binary, source, target), 2
        on_message("Wrote the one output as two: softmax of (0, x) is 1 - sigmoid(x), sigmoid(x)")
    _check_count(options.num_classes, found, rows, source, on_message)
    labels = _labels(found, rows, options, source, target, on_message)
    metadata, preprocessing_source = _metadata(found, rows, labels.reference, options, source, on_message)
    if labels.data is None:
        labels_for(metadata, source, options.label_file)
    _save(state, target, metadata, options.dtype)
    if labels.data is not None and labels.reference is not None:
        beside = target.with_name(f"{labels.reference.name}.json")
        atomic_write(beside, labels.data)
        on_message(f"Wrote {beside}: the names of the classes, which the checkpoint refers to")
    return Converted(metadata, preprocessing_source)


def _find(source: Path, options: ConvertOptions, on_message: Callable[[str], None]) -> _Found:
    try:
        return _find_in(source, source, options, on_message)
    except (BareStateDict, StateDictMismatch, PickledCode, SuspiciousModel, UnreadableModel):
        if not options.trust_pickle or is_safetensors_path(source):
            raise
    # Without the code in the file, no network was found.
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.pth"
        _unpickle(source, plain)
        return _find_in(plain, source, options, on_message)


def _find_in(path: Path, source: Path, options: ConvertOptions, on_message: Callable[[str], None]) -> _Found:
    where = str(source)
    data = read_model_file(path)
    names: tuple[str, ...] = ()
    if is_safetensors_file(path, data):
        content: Any = safetensors_contents(data, where)
    else:
        content, names = read_torch_file(data, where)
    tensors = tensors_of(content, where)
    if not tensors.found:
        raise _without_weights(content, names, where)
    if options.arch is not None:
        chosen = fit(tensors, resolve_given(options.arch), where, options.part)
        own = _named(content)
        if own and chosen.arch not in own:
            on_message(f"--arch {chosen.arch} is used; the file says {own[0]}")
        return _Found(content, tensors, chosen)
    own = _named(content)
    if own:
        try:
            return _Found(content, tensors, fit(tensors, own, where, options.part))
        except StateDictMismatch as mismatch:
            if _is_checkpoint(content):
                raise
            try:
                chosen = guess(tensors, where, options.part)
            except ModelError:
                raise mismatch from None  # it says what differs from the architecture that the file names
            on_message(f"The file says {own[0]}, but its weights are those of {chosen.arch}, which is used")
            return _Found(content, tensors, chosen)
    chosen = guess(tensors, where, options.part)
    on_message(f"The file names no architecture that is known; its weights are those of {chosen.arch}")
    return _Found(content, tensors, chosen)


def _without_weights(content: Any, names: tuple[str, ...], where: str) -> ModelError:
    foreign = [name for name in names if not name.startswith(_PLAIN_GLOBALS) and name.isprintable()]
    if foreign:
        return PickledCode(
            f"{where} is a pickled Python object ({', '.join(foreign[:_MAX_NAMES])}), and no weights are found without "
            "running the code it names. If you made it yourself, run that once: "
            f"resnet-service convert --trust-pickle {where} OUTPUT.safetensors"
        )
    if not isinstance(content, dict):
        return UnreadableModel(f"{where} holds a {type(content).__name__}, not the weights of a network.")
    return UnreadableModel(
        f"{where} has no weights: there is not one tensor in it. Save the network's state_dict: "
        "torch.save(model.state_dict(), FILE)"
    )


def _named(content: Any) -> tuple[str, ...]:
    """Return the architectures that the file's name for its own may stand for."""
    for options in options_of(content):
        for key in _ARCH_KEYS:
            value = options.get(key)
            if isinstance(value, str) and (found := resolve(value)):
                return found
    return ()


def _is_checkpoint(content: Any) -> bool:
    """Whether the file is a checkpoint that this package wrote."""
    return isinstance(content, dict) and "format_version" in content


def _state(found: _Found, where: str, dtype: WeightsDtype) -> dict[str, Array]:
    """Return the architecture's tensors in its order, with zeros for a bias that the file does not have.

    Raises:
        ModelError: A tensor cannot be read, or has NaN, infinity, or numbers beyond ``dtype``.

    """
    state: dict[str, Array] = {}
    for key in found.fit.layout.shapes:
        path = found.fit.paths.get(key)
        if path is not None:
            tensor = found.tensors.found[path]
            state[key] = tensor.array(f"{where}: {path}") if isinstance(tensor, StoredTensor) else np.asarray(tensor)
        elif key in found.fit.layout.classifier:
            state[key] = np.zeros(found.fit.rows, np.float32)
    non_finite = [key for key, array in state.items() if not np.isfinite(array).all()]
    if non_finite:
        raise NonFiniteWeights(f"{where} has NaN or infinity in {first_of(non_finite)}; the training has diverged.")
    largest = float(np.finfo(dtype).max)
    beyond = [key for key, array in state.items() if array.dtype == np.float32 and np.abs(array).max() > largest]
    if beyond:
        raise NonFiniteWeights(f"{where} has weights beyond {dtype} in {first_of(beyond)}. Leave out --dtype {dtype}.")
    return state


def _as_two_classes(
    state: Mapping[str, Array], found: Fit, wanted: bool, source: Path, target: Path
) -> dict[str, Array]:
    if found.rows != 1:
        raise ClassCountMismatch(f"--binary is for a network of one output; {source} has {found.rows}. Leave it out.")
    if not wanted:
        raise ClassCountMismatch(
            f"{source} has one output, as for a sigmoid, and softmax of one number is always 1. Write it as two "
            "classes with equal answers, the negative one first: "
            f"resnet-service convert --binary {source} {target} --arch {found.arch}"
        )
    if any(state[key].ndim > 2 for key in found.layout.classifier):
        raise ClassCountMismatch(f"{source} has one output that is not linear, so that --binary cannot make two of it.")
    return {
        key: np.concatenate([np.zeros_like(array), array]) if key in found.layout.classifier else array
        for key, array in state.items()
    }


def _check_count(given: int | None, found: _Found, rows: int, source: Path, on_message: Callable[[str], None]) -> None:
    if given is not None and given != rows:
        raise ClassCountMismatch(
            f"--num-classes is {given}, but the last layer of {source} has {rows} rows. Leave the option out, or "
            "convert the file of the network with as many classes."
        )
    own = next(options_of(found.content)).get("num_classes")
    if given is None and isinstance(own, int) and own != found.fit.rows:
        if _is_checkpoint(found.content):
            raise ClassCountMismatch(
                f"{source} says that there are {own} classes, but its last layer has {rows} rows. If these are right: "
                f"--num-classes {rows}"
            )
        on_message(f"The file says {own} classes; its last layer has {rows} rows, which count")


def _labels(
    found: _Found, rows: int, options: ConvertOptions, source: Path, target: Path, on_message: Callable[[str], None]
) -> _Labels:
    name = label_set_name(target)
    if options.label_file is not None:
        try:
            data = options.label_file.read_bytes()
        except OSError as error:
            raise InvalidLabelSet(f"The label file {options.label_file} cannot be read: {error.strerror}.") from error
        if is_label_set(data):
            return _Labels(read_label_set(options.label_file)[1])
        labels = parse_label_forms(data, options.label_file, name)
        if len(labels) != rows:
            raise ClassCountMismatch(f"{options.label_file} names {len(labels)} classes, but {source} has {rows}.")
        check_target(options.label_file, target.with_name(f"{name}.json"))
        return _new_label_set(labels)
    if _is_checkpoint(found.content):
        own = found.content.get("labels")
        return _Labels(LabelSetReference(**own) if isinstance(own, dict) else None)
    for key, labels in _labels_in(found.content, name):
        if len(labels) == rows:
            on_message(f"The names of the classes are those of {key} in the file")
            return _new_label_set(labels)
        on_message(f"{key} in the file names {len(labels)} classes, and the last layer has {rows} rows; it is not used")
    if options.binary:
        classes = ClassLabel(index=0, name="negative"), ClassLabel(index=1, name="positive")
        return _new_label_set(LabelSet(name=name, classes=classes))
    return _Labels(None)


def _labels_in(content: Any, name: str) -> list[tuple[str, LabelSet]]:
    found = []
    for options in options_of(content):
        for key in NAME_KEYS:
            value = options.get(key)
            labels = None
            try:
                labels = labels_of(text_list(value) or (value if isinstance(value, dict) else None), name)
            except InvalidLabelSet:
                continue
            if labels is not None:
                found.append((key, labels))
    return found


def _new_label_set(labels: LabelSet) -> _Labels:
    data = dump_label_set(labels)
    return _Labels(LabelSetReference(name=labels.name, sha256=sha256_of(data)), data)


def _metadata(
    found: _Found,
    rows: int,
    labels: LabelSetReference | None,
    options: ConvertOptions,
    source: Path,
    on_message: Callable[[str], None],
) -> tuple[ModelMetadata, str]:
    """Return the metadata: the options', else the file's, else the architecture's; and the source of preprocessing."""
    arch = found.fit.arch
    base = preprocessing_of(arch)
    own = next(options_of(found.content))
    given = {name: getattr(options, name) for name in _PREPROCESSING if getattr(options, name) is not None}
    for name, value in given.items():
        _check_value(name, value, f"--{name.replace('_', '-')}")
    filed: dict[str, Any] = {}
    for name in _PREPROCESSING:
        if name in own and own[name] is not None:
            try:
                filed[name] = _check_value(name, own[name], f"{source} has a wrong {name}")
            except InvalidMetadata as error:
                if _is_checkpoint(found.content):
                    raise
                on_message(f"{name} in the file is not used: {error}")
    sides = {"input_size": base.input_size, "resize_size": base.resize_size}
    if "input_size" in filed:
        sides = {"input_size": filed["input_size"], "resize_size": base.for_size(filed["input_size"])}
    sides |= {name: filed[name] for name in sides if name in filed}
    if "input_size" in given:
        ratio = sides["resize_size"] / sides["input_size"]
        sides = {"input_size": given["input_size"], "resize_size": math.floor(given["input_size"] * ratio)}
    sides |= {name: given[name] for name in sides if name in given}
    if sides["resize_size"] < sides["input_size"]:
        raise InvalidMetadata(
            f"The input of {sides['input_size']} pixels is larger than the {sides['resize_size']} pixels that an "
            "image's "
            "shorter side is resized to. Give a smaller --input-size or a larger --resize-size."
        )
    facts = {
        **{name: getattr(base, name) for name in ("interpolation", "mean", "std")},
        **filed,
        **given,
        **sides,
        "arch": arch,
        "num_classes": rows,
        "labels": labels,
    }
    if _is_checkpoint(found.content):
        facts = {**{key: value for key, value in own.items() if key != STATE_DICT}, **facts}
        changed = [
            name for name in (*_PREPROCESSING, "arch") if name in own and name in facts and facts[name] != own[name]
        ]
        if own.get("evaluations") and any(name in given or name == "arch" for name in changed):
            facts["evaluations"] = ()
            on_message("The recorded evaluations are left out, since they would not hold for the new preprocessing")
    return ModelMetadata.parse(facts, str(source)), _sources(filed, given, base.source)


def _check_value(name: str, value: Any, about: str) -> Any:
    """Return a value of the preprocessing as ``ModelMetadata`` has it, or raise ``InvalidMetadata`` with ``about``."""
    sides = {"input_size": 8 if name == "resize_size" else 224, "resize_size": 4096}
    try:
        metadata = ModelMetadata.model_validate({"arch": "any", "num_classes": 2, **sides, name: value})
    except ValidationError as error:
        raise InvalidMetadata(f"{about}: {describe_first(error).removeprefix(f'{name}: ')}") from error
    return getattr(metadata, name)


def _sources(filed: Mapping[str, Any], given: Mapping[str, Any], base: str) -> str:
    """Return where the preprocessing comes from, as in "std from the options, else from timm's configuration"."""
    from_file = [name for name in filed if name not in given]
    if len(from_file) == len(_PREPROCESSING):
        return "from the file"
    parts = [
        f"{' and '.join(name.replace('_', ' ') for name in names)} from {origin}"
        for names, origin in ((list(given), "the options"), (from_file, "the file"))
        if names
    ]
    if len(from_file) + len(given) < len(_PREPROCESSING):
        parts.append(f"else from {base}" if parts else f"from {base}")
    return ", ".join(parts)


def _save(state: Mapping[str, Array], target: Path, metadata: ModelMetadata, dtype: WeightsDtype) -> None:
    if target.suffix == SAFETENSORS_SUFFIX and metadata.arch in networks.ARCHITECTURES:
        stored = {key: array.astype(dtype) if array.dtype == np.float32 else array for key, array in state.items()}
        save_weights(stored, target, metadata)
        return
    import torch

    from resnet_service.models.checkpoint.checkpoint import save_checkpoint
    from resnet_service.models.checkpoint.state_dict import build_network

    tensors = {key: torch.tensor(array) for key, array in state.items()}
    save_checkpoint(build_network(tensors, metadata, str(target)), target, metadata, dtype=getattr(torch, dtype))


def _unpickle(source: Path, target: Path) -> None:
    command = [sys.executable, "-m", "resnet_service.export.unpickle", str(source), str(target)]
    try:
        child = subprocess.run(  # noqa: S603 - our own module; the paths are arguments, never a shell's
            command, capture_output=True, text=True, timeout=_UNPICKLE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise PickledCode(f"{source} did not unpickle within {_UNPICKLE_SECONDS} seconds.") from error
    if child.returncode != 0:
        reason = (child.stderr.strip().splitlines() or ["no message"])[-1]
        raise PickledCode(
            f"{source} could not be unpickled ({reason}). A pickled model needs the modules it was made with: "
            "run this command where the training code can be imported."
        )
