"""Names of classes in the forms in which people keep them, turned into a label set.

The forms: a text file with one name a line, and as JSON or in a checkpoint: a list of names, index to name, index to
id and name (ImageNet's ``class_index``), class to index (torchvision's ``class_to_idx``), Hugging Face's ``id2label``.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from resnet_service.errors import InvalidLabelSet
from resnet_service.models.labels import ClassLabel, LabelSet
from resnet_service.models.metadata import MAX_CLASSES
from resnet_service.validation import describe_first

# Where files have the names, beside other things.
NAME_KEYS = (
    "classes",
    "class_names",
    "class_to_idx",
    "idx_to_class",
    "id2label",
    "label2id",
    "labels",
    "label_names",
    "categories",
)
# Where the numbers of classes may be names themselves, the key says which is which.
_BY_NAME = ("class_to_idx", "label2id")
_BY_INDEX = ("idx_to_class", "id2label")
_MAX_BYTES = 20_000_000
_FORMS = "one name a line, a JSON list of names, or a JSON object of index to name or of name to index"


def is_label_set(data: bytes) -> bool:
    """Whether a file is a label set of this service, with whatever mistakes in it."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return False
    classes = content.get("classes") if isinstance(content, dict) else None
    return isinstance(classes, list) and any(isinstance(one, dict) for one in classes)


def parse_label_forms(data: bytes, where: Path, name: str) -> LabelSet:
    """Return the label set ``name`` of a file in any of the forms.

    Raises:
        InvalidLabelSet: Of no known form; indices that do not count up from 0; an empty name.

    """
    if len(data) > _MAX_BYTES:
        raise InvalidLabelSet(f"{where} is too large for a file of names.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidLabelSet(f"{where} is not text in UTF-8. Give {_FORMS}.") from error
    content: Any
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        # Empty lines at the end are none; between names, they are refused below.
        content = (
            None if text.lstrip().startswith(("{", "[")) else [line.strip() for line in text.rstrip().splitlines()]
        )
    labels = None
    if isinstance(content, dict):
        keys = [key for key in NAME_KEYS if isinstance(content.get(key), dict | list)]
        found = [(key, labels_of(content[key], name, key)) for key in keys]
        first = agreeing(((key, one) for key, one in found if one is not None), str(where))
        labels = first[1] if first else None if keys else labels_of(content, name)
    else:
        labels = labels_of(content, name)
    if labels is None:
        raise InvalidLabelSet(f"{where} does not name the classes in a known form. Give {_FORMS}, from 0 on.")
    return labels


def agreeing(found: Iterable[tuple[str, LabelSet]], where: str) -> tuple[str, LabelSet] | None:
    """Return the first of the label sets under the keys of a file, if there is one; no other is kept.

    Raises:
        InvalidLabelSet: Another one of as many classes has other names, or another order.

    """
    first = None
    names: list[str] = []
    for key, labels in found:
        others = [label.name for label in labels.classes]
        if first is None:
            first, names = (key, labels), others
        elif len(others) == len(names) and others != names:
            raise InvalidLabelSet(
                f"{where} names the classes twice, and {first[0]} and {key} differ in names or order. Give the right "
                "ones in the order of the network's outputs: --labels FILE"
            )
    return first


def labels_of(content: Any, name: str, key: str = "") -> LabelSet | None:
    """Return the label set that a list or dict stands for, or ``None``; ``key`` is what the file has it under.

    Raises:
        InvalidLabelSet: More names than a model may have classes, or a name that is empty, too long or not printable.

    """
    if isinstance(content, list | tuple | Mapping) and len(content) > MAX_CLASSES:
        raise InvalidLabelSet(f"There are {len(content):,} names of classes; the limit is {MAX_CLASSES:,}.")
    names: list[tuple[str | None, str]] = []
    if isinstance(content, list | tuple):
        entries = list(content)
    elif isinstance(content, Mapping) and content:
        by_index = _by_index(content, key)
        if by_index.keys() != set(range(len(content))):
            return None
        entries = [by_index[index] for index in range(len(content))]
    else:
        return None
    for entry in entries:
        if isinstance(entry, str):
            names.append((None, entry))
        elif isinstance(entry, list | tuple) and len(entry) == 2 and all(isinstance(part, str) for part in entry):
            names.append((entry[0], entry[1]))
        else:
            return None
    try:
        classes = tuple(ClassLabel(index=index, id=one[0], name=one[1]) for index, one in enumerate(names))
        return LabelSet(name=name, classes=classes)
    except ValidationError as error:
        raise InvalidLabelSet(f"The names of the classes are not valid: {describe_first(error)}") from error


def _by_index(content: Mapping[Any, Any], key: str) -> dict[int, Any]:
    numbers = all(type(value) is int for value in content.values())
    if key in _BY_NAME or (numbers and key not in _BY_INDEX):
        return {value: str(name) for name, value in content.items()} if numbers else {}
    return {
        int(index): str(value) if type(value) is int else value
        for index, value in content.items()
        if re.fullmatch(r"\d{1,6}", str(index), re.ASCII)
    }
