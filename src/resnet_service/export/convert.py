"""Conversion of a bare state_dict, a training checkpoint or a pickled model to a checkpoint."""

from collections.abc import Callable
from pathlib import Path

from resnet_service.errors import FileNotWritten
from resnet_service.export.conversion.labels import ChosenLabels, choose_labels
from resnet_service.export.conversion.network import (
    FoundNetwork,
    as_two_classes,
    check_count,
    find_network,
    state_of,
)
from resnet_service.export.conversion.options import DEFAULT_OPTIONS, Converted, ConvertOptions
from resnet_service.export.conversion.preprocessing import choose_preprocessing, own_values
from resnet_service.models.checkpoint.contents import STATE_DICT
from resnet_service.models.checkpoint.weights import save_state
from resnet_service.models.labels import labels_for, with_class_names
from resnet_service.models.metadata import ModelMetadata
from resnet_service.models.preprocessing import preprocessing_of
from resnet_service.system.files import check_target
from resnet_service.types import EXPORTED_SUFFIX, SAFETENSORS_SUFFIX

_KNOWN_SUFFIXES = (".pth", ".pt", SAFETENSORS_SUFFIX)


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
        target: In the format of its suffix. It carries the names of the classes.
        options: What the file does not say, or says wrongly.
        on_message: Called with each message; see ``cli.console.message``.

    Raises:
        ModelError: The file cannot be read, or has no network that can be served; the message says what to do.
        FileNotWritten: The checkpoint cannot be written.

    """
    check_target(source, target)
    if target.suffix == EXPORTED_SUFFIX:
        raise FileNotWritten(f"{target} names an exported model. Name a checkpoint, such as {target.stem}.safetensors.")
    found = find_network(source, options, on_message)
    for text in found.match.messages:
        on_message(text)
    state = state_of(found, str(source), options.dtype)
    rows = found.match.rows
    if rows == 1 or options.binary:
        state, rows = as_two_classes(state, found.match, options.binary, source, target), 2
        on_message("Wrote the one output as two: softmax of (0, x) is 1 - sigmoid(x), sigmoid(x)")
    check_count(options.num_classes, found, rows, source, on_message)
    labels = choose_labels(found, rows, options, source, on_message)
    config = source.with_name("config.json")
    if labels.labels is None and not found.is_checkpoint and config.is_file():
        on_message(f"{config} beside the file is not read. If it has the names of the classes: --labels {config}")
    converted = _metadata(found, rows, labels, options, source, on_message)
    if target.suffix not in _KNOWN_SUFFIXES:
        on_message(
            f"{target} is written in PyTorch's format: the suffix decides, and only .safetensors is for the other"
        )
    save_state(state, target, converted.metadata, options.dtype)
    return converted


def _metadata(
    found: FoundNetwork,
    rows: int,
    labels: ChosenLabels,
    options: ConvertOptions,
    source: Path,
    on_message: Callable[[str], None],
) -> Converted:
    arch, where = found.match.arch, str(source)
    own = own_values(found.facts, found.is_checkpoint, where, on_message)
    own |= own_values(found.normalisation(where), True, where, on_message)
    chosen = choose_preprocessing(options, own, preprocessing_of(arch), where)
    facts = {**chosen.values, "arch": arch, "num_classes": rows}
    if found.is_checkpoint:
        stored = {key: value for key, value in found.facts.items() if key != STATE_DICT}
        changed = any(name in own and facts[name] != own[name] for name in chosen.given)
        if stored.get("evaluations") and (changed or arch != stored.get("arch", arch)):
            stored["evaluations"] = ()
            on_message("The recorded evaluations are left out, since they would not hold for the new preprocessing")
        facts = {**stored, **facts}
    metadata = ModelMetadata.parse({**facts, **labels.facts}, where)
    if labels.labels is None:
        labels_for(metadata, source)  # refuses a reference to a file that is not there
        metadata = with_class_names(metadata, source)
    return Converted(metadata, chosen.source)
