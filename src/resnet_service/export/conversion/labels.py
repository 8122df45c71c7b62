"""The names of the classes for a file to write: those of an option, or those found in the source.

No label file is written: the model carries the names.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from resnet_service.errors import ClassCountMismatch, InvalidLabelSet
from resnet_service.export.conversion.label_forms import (
    NAME_KEYS,
    agreeing,
    is_label_set,
    labels_of,
    parse_label_forms,
)
from resnet_service.export.conversion.network import FoundNetwork
from resnet_service.export.conversion.options import ConvertOptions
from resnet_service.models.checkpoint.training import options_of, text_list
from resnet_service.models.labels import SHIPPED, LabelSet, read_label_set
from resnet_service.models.metadata import LabelSetReference

# The name of the label set of a model that carries names only.
_OWN = "own"


class ChosenLabels(NamedTuple):
    """The names of the classes, and the reference to the label set if they are those of one."""

    labels: LabelSet | None = None
    reference: LabelSetReference | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """The metadata that says so; none if no labels were chosen."""
        if self.labels is None:
            return {}
        shipped = self.reference is not None and self.reference.name in SHIPPED
        names = None if shipped else tuple(label.name for label in self.labels.classes)
        return {"labels": self.reference, "class_names": names}


def read_labels(path: Path) -> ChosenLabels:
    """Return the labels of the option ``--labels``: a label set, or one of the forms of ``label_forms``.

    Raises:
        InvalidLabelSet: The file cannot be read, or names no classes.

    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidLabelSet(f"The label file {path} cannot be read: {error.strerror}.") from error
    if is_label_set(data):
        return ChosenLabels(*read_label_set(path))
    return ChosenLabels(parse_label_forms(data, path, _OWN))


def choose_labels(
    found: FoundNetwork,
    rows: int,
    options: ConvertOptions,
    source: Path,
    on_message: Callable[[str], None],
) -> ChosenLabels:
    """Return the labels of the option, else those of the source, as far as they name ``rows`` classes.

    A checkpoint's reference to its label set is among its metadata, and nothing else in it is looked at.

    Raises:
        InvalidLabelSet: The file of the option cannot be read, or names no classes; or the source contradicts itself.
        ClassCountMismatch: The option names another number of classes.

    """
    if options.label_file is not None:
        chosen = read_labels(options.label_file)
        if chosen.labels is not None and len(chosen.labels) != rows:
            raise ClassCountMismatch(
                f"{options.label_file} names {len(chosen.labels)} classes, but {source} has {rows}."
            )
        return chosen
    if found.is_checkpoint:
        return ChosenLabels()
    fitting = agreeing(_labels_in(found.content, rows, on_message), str(source))
    if fitting is not None:
        key, labels = fitting
        on_message(f"The names of the classes are those of {key} in the file")
        return ChosenLabels(labels)
    if options.binary:
        return ChosenLabels(LabelSet.of_names(_OWN, ("negative", "positive")))
    return ChosenLabels()


def _labels_in(content: Any, rows: int, on_message: Callable[[str], None]) -> Iterator[tuple[str, LabelSet]]:
    """Yield the labels under each key that may have them, of those that name ``rows`` classes."""
    seen: set[int] = set()  # a pickle may have the same names under all keys
    for options in options_of(content):
        for key in NAME_KEYS:
            value = options.get(key)
            if id(value) in seen:
                continue
            seen.add(id(value))
            try:
                labels = labels_of(text_list(value) or (value if isinstance(value, dict) else None), _OWN, key)
            except InvalidLabelSet:
                continue
            if labels is not None and len(labels) == rows:
                yield key, labels
            elif labels is not None:
                on_message(
                    f"{key} in the file names {len(labels)} classes, and the last layer has {rows} rows; it is not used"
                )
