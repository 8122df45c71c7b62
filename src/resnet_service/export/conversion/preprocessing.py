"""The preprocessing of a file to write: the options', else the source's, else the architecture's."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from resnet_service.errors import InvalidMetadata
from resnet_service.export.conversion.options import ConvertOptions
from resnet_service.models.preprocessing import VALUES, Preprocessing, check_value


class ChosenPreprocessing(NamedTuple):
    """The ``values`` for ``ModelMetadata``; which of them are ``given`` by options; their ``source``, for a message."""

    values: Mapping[str, Any]
    given: frozenset[str]
    source: str


def choose_preprocessing(
    options: ConvertOptions, own: Mapping[str, Any], base: Preprocessing, where: str
) -> ChosenPreprocessing:
    """Choose each value.

    Args:
        options: Their values come first.
        own: The source's values, checked; see ``own_values``.
        base: The architecture's, for the values that are in neither.
        where: The source's name in messages.

    Raises:
        InvalidMetadata: A value of the options is not valid, or the sizes contradict each other.

    """
    given = {name: getattr(options, name) for name in VALUES if getattr(options, name) is not None}
    given = {name: check_value(name, value, f"--{name.replace('_', '-')}") for name, value in given.items()}
    chosen = base.with_values(own).with_values(given)
    if not all(0 <= value <= 1 for value in chosen.mean):
        raise InvalidMetadata(
            f"{where}: the mean {' '.join(f'{value:g}' for value in chosen.mean)} is not of pixels in 0 ... 1, in "
            "which mean and std are stated. If it is of pixels in 0 ... 255, give both divided by 255: --mean R G B "
            "--std R G B"
        )
    if chosen.resize_size < chosen.input_size:
        raise InvalidMetadata(
            f"{where}: the input of {chosen.input_size} pixels is larger than the {chosen.resize_size} pixels that an "
            "image's shorter side is resized to. Give a smaller --input-size or a larger --resize-size."
        )
    values = {name: getattr(chosen, name) for name in VALUES}
    return ChosenPreprocessing(values, frozenset(given), _source(given, own, base.source))


def own_values(facts: Mapping[Any, Any], strict: bool, where: str, on_message: Callable[[str], None]) -> dict[str, Any]:
    """Return the source's own values that are valid.

    Raises:
        InvalidMetadata: One is not, and the source is ``strict`` about it, as checkpoints are.

    """
    own = {}
    for name in VALUES:
        if facts.get(name) is None:
            continue
        try:
            own[name] = check_value(name, facts[name], f"{where} has a wrong {name}")
        except InvalidMetadata as error:
            if strict:
                raise
            on_message(f"{name} in the file is not used: {error}")
    return own


def _source(given: Mapping[str, Any], own: Mapping[str, Any], base: str) -> str:
    """Return where the values come from, as in "std from the options, else from timm's configuration"."""
    from_file = [name for name in own if name not in given]
    if len(from_file) == len(VALUES):
        return "from the file"
    parts = [
        f"{' and '.join(name.replace('_', ' ') for name in names)} from {origin}"
        for names, origin in ((list(given), "the options"), (from_file, "the file"))
        if names
    ]
    if len(from_file) + len(given) < len(VALUES):
        parts.append(f"else from {base}" if parts else f"from {base}")
    return ", ".join(parts)
