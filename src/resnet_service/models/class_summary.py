"""One line for people about the classes of a model: how many there are, and the names of all or of the first."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from resnet_service.models.label_translations import Language

MAX_NAMES = 12  # a model with more classes is summarised by the first few names
FIRST_NAMES = 5
MAX_LENGTH = 60  # characters of a name


class _Phrases(NamedTuple):
    one: str
    several: str
    separator: str
    others: str


_PHRASES: Mapping[Language, _Phrases] = {
    "en": _Phrases("1 class: ", "{count:,} classes: ", ", ", " and {others:,} more"),
    "zh": _Phrases("1 个类别：", "{count:,} 个类别：", "、", "，另有 {others:,} 个"),
}


def class_summary(names: Sequence[str], language: Language) -> str:
    """Return for example ``2 classes: cat, dog``.

    Args:
        names: The names of all classes, at least one, in the order of the model's outputs.
        language: The language of the names.

    """
    phrases, count = _PHRASES[language], len(names)
    shown = names if count <= MAX_NAMES else names[:FIRST_NAMES]
    beginning = phrases.one if count == 1 else phrases.several.format(count=count)
    others = phrases.others.format(others=count - len(shown)) if len(shown) < count else ""
    return beginning + phrases.separator.join(map(_on_one_line, shown)) + others


def _on_one_line(name: str) -> str:
    words = " ".join(name.split())
    return words if len(words) <= MAX_LENGTH else f"{words[: MAX_LENGTH - 1]}…"
