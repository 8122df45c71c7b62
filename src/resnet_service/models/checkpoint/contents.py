"""The contents of a checkpoint file, split into weights and metadata, whatever the format.

Two forms are known: a checkpoint, which is a dict of ``state_dict`` and the keys of ``ModelMetadata``; a bare
``state_dict``. Only the last may need PyTorch, which knows more architectures; this module does not import it.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

from resnet_service.errors import BareStateDict, InvalidMetadata, UnreadableModel
from resnet_service.models.architecture_names import canonical
from resnet_service.models.checkpoint.arrays import Array, Shaped
from resnet_service.models.checkpoint.keys import first_of
from resnet_service.models.layouts import archs_of, layout_of
from resnet_service.models.metadata import ModelMetadata
from resnet_service.models.preprocessing import VALUES, preprocessing_of

STATE_DICT = "state_dict"
_WRAPPER_PREFIXES = ("module.", "_orig_mod.")  # DataParallel, torch.compile
_NOTHING: Mapping[str, Any] = {}


TensorT = TypeVar("TensorT", bound=Shaped)


def parse_contents(
    content: Any, where: str, given: Mapping[str, Any] = _NOTHING
) -> tuple[dict[str, Array], ModelMetadata]:
    """Split a file's content into weights and metadata; other arguments and errors as for ``load_checkpoint``.

    Args:
        content: What the file holds, with arrays in its ``state_dict``.
        where: The file's name in messages.
        given: Metadata that the file lacks.

    """
    extra = {key: value for key, value in given.items() if value is not None}
    if isinstance(extra.get("arch"), str):
        extra["arch"] = canonical(extra["arch"])
    if not isinstance(content, Mapping):
        raise UnreadableModel(f"{where} holds a {type(content).__name__}, not a checkpoint.")
    if STATE_DICT not in content:
        return _parse_bare(_clean(content, where), extra, where)
    state = _clean(content[STATE_DICT], where)
    own = {str(key): value for key, value in content.items() if key != STATE_DICT}
    unknown = sorted(own.keys() - ModelMetadata.model_fields.keys())
    if unknown:
        raise InvalidMetadata(
            f"{where} has keys that no checkpoint has: {first_of(unknown)}. If it is a training checkpoint, "
            f"convert it once: resnet-service convert {where} OUTPUT.safetensors"
        )
    return state, _merge(own, extra, where)


def clean_keys(state: Mapping[str, TensorT]) -> dict[str, TensorT]:
    """Remove the prefixes that DataParallel and ``torch.compile`` put before every key, in any nesting."""
    cleaned = dict(state)
    while cleaned and (prefix := next((p for p in _WRAPPER_PREFIXES if all(k.startswith(p) for k in cleaned)), None)):
        cleaned = {key.removeprefix(prefix): tensor for key, tensor in cleaned.items()}
    return cleaned


def shapes_of(state: Mapping[str, Shaped]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor."""
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def _clean(state: Mapping[str, Array], where: str) -> dict[str, Array]:
    if not state:
        raise UnreadableModel(f"{where} has no weights: its state_dict is empty or not a dict.")
    return clean_keys(state)


def _parse_bare(
    state: dict[str, Array], extra: Mapping[str, Any], where: str
) -> tuple[dict[str, Array], ModelMetadata]:
    if "arch" not in extra:
        found = archs_of(shapes_of(state))
        hint = (
            f"Its keys are those of {' and '.join(found)}{', which compute differently' if len(found) > 1 else ''}: "
            f"give {' or '.join(f'--arch {arch}' for arch in found)}"
            if found
            else "Give its architecture with --arch NAME"
        )
        known = found[0] if len(found) == 1 else "NAME"
        raise BareStateDict(
            f"{where} is a bare state_dict, which does not name its architecture. {hint}, or convert it to a "
            f"checkpoint once: resnet-service convert {where} OUTPUT.safetensors --arch {known}"
        )
    return state, ModelMetadata.parse({**_inferred(extra["arch"], state, extra), **extra}, where)


def _merge(own: Mapping[str, Any], extra: Mapping[str, Any], where: str) -> ModelMetadata:
    """Join the file's metadata with those given; a value that both have must be equal.

    Preprocessing that neither has is the published one of the architecture.
    """
    metadata = ModelMetadata.parse({**extra, **own}, where)
    if not {*own, *extra}.issuperset(VALUES):
        published = preprocessing_of(metadata.arch).with_values({"input_size": metadata.input_size})
        defaults = {name: getattr(published, name) for name in VALUES}
        metadata = ModelMetadata.parse({**defaults, **extra, **own}, where)
    wanted = ModelMetadata.parse({**own, **extra}, where)
    for key in extra:
        if getattr(metadata, key) != getattr(wanted, key):
            raise InvalidMetadata(
                f"{where} says {key}={getattr(metadata, key)!r}, but {getattr(wanted, key)!r} was given; "
                "leave out the option, or correct the file."
            )
    return metadata


def _inferred(arch: str, state: Mapping[str, Shaped], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an architecture and its weights say: the number of classes, and the published preprocessing."""
    shapes = shapes_of(state)
    rows = {shapes[key][0] for key in layout_of(arch).classifier if shapes.get(key)}
    base = preprocessing_of(arch)
    if isinstance(extra.get("input_size"), int):
        base = base.with_values({"input_size": extra["input_size"]})
    return {
        **{name: getattr(base, name) for name in VALUES},
        **({"num_classes": rows.pop()} if len(rows) == 1 else {}),
    }
