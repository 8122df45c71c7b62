"""The label set of a file to write: the one that an option names, or the names of classes found in the source."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from resnet_service.errors import ClassCountMismatch, InvalidLabelSet
from resnet_service.export.conversion.label_forms import (
    NAME_KEYS,
    dump_label_set,
    is_label_set,
    label_set_name,
    labels_of,
    parse_label_forms,
)
from resnet_service.export.conversion.network import FoundNetwork
from resnet_service.export.conversion.options import ConvertOptions
from resnet_service.models.checkpoint.training import options_of, text_list
from resnet_service.models.labels import ClassLabel, LabelSet, read_label_set
from resnet_service.models.metadata import LabelSetReference
from resnet_service.system.files import atomic_write, check_target, sha256_of


class ChosenLabels(NamedTuple):
    """A label set, the reference to it, and the bytes of its file if that is to be written beside the model."""

    labels: LabelSet | None = None
    reference: LabelSetReference | None = None
    data: bytes | None = None

    def write_beside(self, target: Path, on_message: Callable[[str], None]) -> None:
        """Write the file of a new label set.

        Raises:
            FileNotWritten: The disk is full, or similar.

        """
        if self.data is None or self.reference is None:
            return
        beside = target.with_name(f"{self.reference.name}.json")
        atomic_write(beside, self.data)
        on_message(f"Wrote {beside}: the names of the classes, which the model refers to")


def read_labels(path: Path, target: Path) -> ChosenLabels:
    """Return the labels of the option ``--labels``: a label set, or one of the forms of ``label_forms``.

    Args:
        path: The file.
        target: The model file to write; it gives a new label set its name.

    Raises:
        InvalidLabelSet: The file cannot be read, or names no classes.
        FileNotWritten: The new label set would replace the file.

    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidLabelSet(f"The label file {path} cannot be read: {error.strerror}.") from error
    if is_label_set(data):
        return ChosenLabels(*read_label_set(path))
    name = label_set_name(target)
    labels = parse_label_forms(data, path, name)
    check_target(path, target.with_name(f"{name}.json"))
    return _new_label_set(labels)


def choose_labels(
    found: FoundNetwork,
    rows: int,
    options: ConvertOptions,
    source: Path,
    target: Path,
    on_message: Callable[[str], None],
) -> ChosenLabels:
    """Return the labels of the option, else those of the source, as far as they name ``rows`` classes.

    A checkpoint's reference to its label set is among its metadata, and nothing else in it is looked at.

    Raises:
        InvalidLabelSet: The file of the option cannot be read, or names no classes.
        ClassCountMismatch: It names another number of classes.
        FileNotWritten: The new label set would replace the file.

    """
    if options.label_file is not None:
        chosen = read_labels(options.label_file, target)
        if chosen.labels is not None and chosen.data is not None and len(chosen.labels) != rows:
            raise ClassCountMismatch(
                f"{options.label_file} names {len(chosen.labels)} classes, but {source} has {rows}."
            )
        return chosen
    if found.is_checkpoint:
        return ChosenLabels()
    name = label_set_name(target)
    for key, labels in _labels_in(found.content, name):
        if len(labels) == rows:
            on_message(f"The names of the classes are those of {key} in the file")
            return _new_label_set(labels)
        on_message(f"{key} in the file names {len(labels)} classes, and the last layer has {rows} rows; it is not used")
    if options.binary:
        classes = ClassLabel(index=0, name="negative"), ClassLabel(index=1, name="positive")
        return _new_label_set(LabelSet(name=name, classes=classes))
    return ChosenLabels()


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


def _new_label_set(labels: LabelSet) -> ChosenLabels:
    data = dump_label_set(labels)
    return ChosenLabels(labels, LabelSetReference(name=labels.name, sha256=sha256_of(data)), data)
