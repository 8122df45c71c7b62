"""What the classes of a model are called.

A label set is a JSON file ``{"name": …, "classes": [{"index": 0, "id": …, "name": …}, …]}``, one entry a class, in
the order of the network's outputs. A model names its set together with the file's SHA-256, so that a set which was
edited, reordered or confused with another is noticed at start and not by a user.
"""

from pathlib import Path
from typing import NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from resnet_service.errors import ClassCountMismatch, InvalidLabelSet, LabelDigestMismatch
from resnet_service.models.metadata import LabelSetReference, ModelMetadata
from resnet_service.system.files import sha256_of
from resnet_service.validation import describe

# In a wheel the label sets lie inside the package, in a checkout at its top level.
_PACKAGE = Path(__file__).parents[1]
# In an installed package, and in a checkout.
_BUNDLED = (_PACKAGE / "label_sets", _PACKAGE.parents[1] / "labels")


class ClassLabel(BaseModel):
    """One class: output ``index`` of the network, a stable ``id`` (WordNet's for ImageNet), a readable ``name``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int = Field(ge=0)
    id: str | None = None
    name: str = Field(min_length=1, max_length=200)


class LabelSet(BaseModel):
    """All classes of a model, in the order of its outputs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source: str | None = None
    classes: tuple[ClassLabel, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _indices_count_up(self) -> Self:
        for expected, label in enumerate(self.classes):
            if label.index != expected:
                raise ValueError(f"entry {expected} carries index {label.index}; indices must count up from 0")
        return self

    def __len__(self) -> int:
        return len(self.classes)

    @classmethod
    def numbered(cls, count: int) -> Self:
        """Make the label set of a model that names none: ``class 0`` ... ``class count-1``."""
        return cls(
            name="numbered", classes=tuple(ClassLabel(index=index, name=f"class {index}") for index in range(count))
        )

    @classmethod
    def parse(cls, data: bytes, where: Path) -> Self:
        """Validate the bytes of a label file; raise ``InvalidLabelSet`` that names the file and what is wrong."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise InvalidLabelSet(f"{where} is not a label set: {describe(error)}") from error


def read_label_set(path: Path) -> tuple[LabelSet, LabelSetReference]:
    """Read a label file; return it with the reference that a model's metadata should carry."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidLabelSet(f"The label file {path} cannot be read: {error.strerror}.") from error
    labels = LabelSet.parse(data, path)
    return labels, LabelSetReference(name=labels.name, sha256=sha256_of(data))


def find_label_file(name: str, model_path: Path) -> Path:
    """Find the label set ``name``: beside the model, in ``labels/`` next to the model's folder, or bundled."""
    folders = (model_path.parent, model_path.parent.parent / "labels", *_BUNDLED)
    for folder in folders:
        candidate = folder / f"{name}.json"
        if candidate.is_file():
            return candidate
    slots = ", ".join(str(folder) for folder in folders)
    raise InvalidLabelSet(f"The model wants the label set {name!r}, but no {name}.json lies in {slots}.")


class LabelFile(NamedTuple):
    """A label set as it was read: where, and the SHA-256 of the file's bytes."""

    path: Path
    labels: LabelSet
    sha256: str


def label_file_for(metadata: ModelMetadata, model_path: Path, label_file: Path | None = None) -> LabelFile | None:
    """Return a model's label file, after checking its digest and its number of classes; ``None`` where it names none.

    Args:
        metadata: The model's metadata, which names the label set.
        model_path: Where the model lies; its surroundings are searched.
        label_file: Taken instead of searching, and required to match all the same.

    Raises:
        InvalidLabelSet: No such file, or not a label set.
        LabelDigestMismatch: A label set, but not the one the model was trained with.
        ClassCountMismatch: Another number of classes than the model's.

    """
    reference = metadata.labels
    if label_file is not None:
        path = label_file
    elif reference is not None:
        path = find_label_file(reference.name, model_path)
    else:
        return None
    labels, found = read_label_set(path)
    if reference is not None and found.sha256 != reference.sha256:
        raise LabelDigestMismatch(
            f"{path} is not the label set that {model_path} was saved with: its SHA-256 is {found.sha256}, "
            f"expected {reference.sha256}. Restore the original {reference.name}.json."
        )
    if len(labels) != metadata.num_classes:
        raise ClassCountMismatch(f"{path} names {len(labels)} classes, but {model_path} has {metadata.num_classes}.")
    return LabelFile(path, labels, found.sha256)


def labels_for(metadata: ModelMetadata, model_path: Path, label_file: Path | None = None) -> LabelSet:
    """Return the labels of a model, numbered ones where it names none; arguments and errors as `label_file_for` has."""
    found = label_file_for(metadata, model_path, label_file)
    return LabelSet.numbered(metadata.num_classes) if found is None else found.labels
