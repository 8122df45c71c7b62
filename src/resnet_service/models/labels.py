"""Label sets: the names of a model's classes.

A label set is a JSON file ``{"name": …, "classes": [{"index": 0, "id": …, "name": …}, …]}``, one entry per class, in
the order of the network's outputs. A model names its set together with the file's SHA-256, so that an edited, reordered
or wrong set is refused at start. It carries the names of the classes, too, unless the set is part of this package: then
it can be served without the file.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from resnet_service.errors import ClassCountMismatch, InvalidLabelSet, LabelDigestMismatch
from resnet_service.models.metadata import MAX_CLASSES, ClassName, LabelSetReference, ModelMetadata, Text
from resnet_service.system.files import sha256_of
from resnet_service.validation import describe

_PACKAGE = Path(__file__).parents[1]
# In an installed package, and in a checkout of the repository.
_BUNDLED = (_PACKAGE / "label_sets", _PACKAGE.parents[1] / "labels")


# The label sets of this package.
SHIPPED = ("imagenet1k", "fashion-mnist")


class ClassLabel(BaseModel):
    """One class: output ``index`` of the network, a stable ``id`` (WordNet's for ImageNet), a readable ``name``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int = Field(ge=0)
    id: Text | None = None
    name: ClassName


class LabelSet(BaseModel):
    """All classes of a model, in the order of its outputs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source: str | None = None
    classes: tuple[ClassLabel, ...] = Field(min_length=1, max_length=MAX_CLASSES)

    @model_validator(mode="after")
    def _indices_count_up(self) -> Self:
        for expected, label in enumerate(self.classes):
            if label.index != expected:
                raise ValueError(f"entry {expected} has index {label.index}; indices must count up from 0")
        return self

    def __len__(self) -> int:
        return len(self.classes)

    @classmethod
    def numbered(cls, count: int) -> Self:
        """Return the label set of a model that names none: ``class 0`` ... ``class count-1``."""
        return cls.of_names("numbered", [f"class {index}" for index in range(count)])

    @classmethod
    def of_names(cls, name: str, names: Sequence[str]) -> Self:
        """Return the label set of classes that have names only, in their order."""
        return cls(name=name, classes=tuple(ClassLabel(index=index, name=each) for index, each in enumerate(names)))

    @classmethod
    def parse(cls, data: bytes, where: Path) -> Self:
        """Validate the bytes of a label file; raise ``InvalidLabelSet`` with the file's name and what is wrong."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            if not _has_entries(data):
                raise InvalidLabelSet(
                    f"{where} is not a label set. Text files and lists of names are read by convert, which puts the "
                    f"names into the model: resnet-service convert MODEL OUTPUT --labels {where}"
                ) from error
            raise InvalidLabelSet(f"{where} is not a label set: {describe(error)}") from error


def _has_entries(data: bytes) -> bool:
    """Whether a file is a label set, with whatever mistakes in it."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and isinstance(content.get("classes"), list) and "name" in content


def read_label_set(path: Path) -> tuple[LabelSet, LabelSetReference]:
    """Read a label file; return the label set, and the reference to it for a model's metadata."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidLabelSet(f"The label file {path} cannot be read: {error.strerror}.") from error
    labels = LabelSet.parse(data, path)
    try:
        return labels, LabelSetReference(name=labels.name, sha256=sha256_of(data))
    except ValidationError as error:
        raise InvalidLabelSet(
            f"{path} has the name {labels.name[:100]!r}. Give it one of letters, digits, dots, hyphens and underscores."
        ) from error


def find_label_file(name: str, model_path: Path) -> Path:
    """Find the label set ``name``: beside the model, in ``labels/`` beside the model's folder, or in this package."""
    folders = (model_path.parent, model_path.parent.parent / "labels", *_BUNDLED)
    for folder in folders:
        candidate = folder / f"{name}.json"
        if candidate.is_file():
            return candidate
    searched = ", ".join(str(folder) for folder in folders)
    raise InvalidLabelSet(
        f"The model needs the label set {name!r}, but there is no {name}.json in {searched}. "
        "Put the file there, or name it with --labels."
    )


class LabelFile(NamedTuple):
    """A label set with its file's path and SHA-256."""

    path: Path
    labels: LabelSet
    sha256: str


def label_file_for(metadata: ModelMetadata, model_path: Path, label_file: Path | None = None) -> LabelFile | None:
    """Check and return a model's label file; ``None`` if the model names none, or carries the names itself.

    A model that carries the names needs no file. If the file is there all the same, it gives the ids of the classes and
    the translations.

    Args:
        metadata: The model's metadata, which names the label set.
        model_path: The model file; label files are searched near it.
        label_file: Used instead of searching; it must match all the same.

    Raises:
        InvalidLabelSet: No such file, or not a label set.
        LabelDigestMismatch: Not the label set that the model was trained with.
        ClassCountMismatch: The numbers of classes differ.

    """
    reference = metadata.labels
    if label_file is not None:
        path = label_file
    elif reference is None:
        return None
    elif metadata.class_names is None:
        path = find_label_file(reference.name, model_path)
    else:
        own = _own_file(reference, model_path)
        if own is None:
            return None
        path = own
    labels, actual = read_label_set(path)
    if reference is not None and actual.sha256 != reference.sha256:
        raise LabelDigestMismatch(
            f"{path} is not the label set that {model_path} was saved with: its SHA-256 is {actual.sha256}, "
            f"expected {reference.sha256}. Restore the original {reference.name}.json."
        )
    if len(labels) != metadata.num_classes:
        raise ClassCountMismatch(f"{path} names {len(labels)} classes, but {model_path} has {metadata.num_classes}.")
    return LabelFile(path, labels, actual.sha256)


def labels_for(metadata: ModelMetadata, model_path: Path, label_file: Path | None = None) -> LabelSet:
    """Return a model's labels: of its file, else the names that it carries, else numbers; errors as of
    ``label_file_for``.
    """
    return labels_of(metadata, label_file_for(metadata, model_path, label_file))


def labels_of(metadata: ModelMetadata, file: LabelFile | None) -> LabelSet:
    """Return the labels of a model whose file ``label_file_for`` has found, or not."""
    if file is not None:
        return file.labels
    if metadata.class_names is not None:
        return LabelSet.of_names(metadata.labels.name if metadata.labels else "own", metadata.class_names)
    return LabelSet.numbered(metadata.num_classes)


def with_class_names(metadata: ModelMetadata, model_path: Path, label_file: Path | None = None) -> ModelMetadata:
    """Return the metadata with the names of the classes, for a model file to be written.

    They are left out if the set is part of this package, and if its file is not there: then the model needs the file.

    Args:
        metadata: Names the label set.
        model_path: The model file; label files are searched near it.
        label_file: Used instead of searching.

    Raises:
        ModelError: As for ``label_file_for``, if ``label_file`` is given.

    """
    reference = metadata.labels
    if reference is None or reference.name in SHIPPED:
        return metadata
    if label_file is None:
        label_file = _own_file(reference, model_path)
    file = None if label_file is None else label_file_for(metadata, model_path, label_file)
    if file is None:
        return metadata
    return metadata.model_copy(update={"class_names": tuple(label.name for label in file.labels.classes)})


def _own_file(reference: LabelSetReference, model_path: Path) -> Path | None:
    """Return the file of exactly this label set near the model, if there is one."""
    try:
        path = find_label_file(reference.name, model_path)
        return path if read_label_set(path)[1].sha256 == reference.sha256 else None
    except InvalidLabelSet:
        return None
