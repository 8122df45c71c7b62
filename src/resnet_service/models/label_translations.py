"""Class names in other languages than English.

A translation is a JSON file beside a label set, ``NAME.zh.json`` beside ``NAME.json``: ``{"language": "zh",
"translates": {"name": …, "sha256": …}, "names": […]}``, one name per class, in the order of the set. Like a model, it
names the set by the SHA-256 of its file, so that a translation of another set is refused at start.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from resnet_service.errors import ClassCountMismatch, InvalidLabelSet, LabelDigestMismatch
from resnet_service.models.labels import LabelFile
from resnet_service.models.metadata import LabelSetReference
from resnet_service.validation import describe

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
# The language of label sets: those in this package are in English, and others are assumed to be.
ORIGINAL: Language = "en"

Name = Annotated[str, Field(min_length=1, max_length=200)]
Translations = Mapping[Language, tuple[str, ...]]


class Translation(BaseModel):
    """The names of all classes of one label set in one language, in the set's order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    language: Language
    translates: LabelSetReference
    source: str | None = None
    names: tuple[Name, ...]


def translations_beside(file: LabelFile) -> dict[Language, tuple[str, ...]]:
    """Return the names of all classes in each language that has a translation file beside the label set ``file``.

    Raises:
        InvalidLabelSet: A translation cannot be read, or is not in the language of its file name.
        LabelDigestMismatch: A translation of another label set, or of another version of this one.
        ClassCountMismatch: The numbers of names and of classes differ.

    """
    translations: dict[Language, tuple[str, ...]] = {}
    for language in LANGUAGES:
        path = file.path.with_name(f"{file.path.stem}.{language}.json")
        if language == ORIGINAL or not path.exists():
            continue
        try:
            translation = Translation.model_validate_json(path.read_bytes())
        except OSError as error:
            raise InvalidLabelSet(f"The translation {path} cannot be read: {error.strerror}.") from error
        except ValidationError as error:
            raise InvalidLabelSet(f"{path} is not a translation of a label set: {describe(error)}") from error
        if translation.language != language:
            raise InvalidLabelSet(
                f"{path} says language {translation.language!r}, but its name says {language!r}. Correct one of them."
            )
        if translation.translates.sha256 != file.sha256:
            raise LabelDigestMismatch(
                f"{path} translates another label set than {file.path}, whose SHA-256 is {file.sha256}. Translate "
                "that set, or remove the file."
            )
        if len(translation.names) != len(file.labels):
            raise ClassCountMismatch(
                f"{path} has {len(translation.names)} names, but {file.path} has {len(file.labels)} classes."
            )
        translations[language] = translation.names
    return translations
