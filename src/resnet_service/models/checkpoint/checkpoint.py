"""The checkpoint: one dict of weights and everything that inference needs to know about them.

Keys: those of ``ModelMetadata``, flat, and ``state_dict``. It is written and read with tensors and plain values only
(``weights_only=True``), so a file from a stranger can at worst be refused.
"""

import io
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from resnet_service.errors import (
    BareStateDict,
    ClassCountMismatch,
    InvalidMetadata,
    NonFiniteWeights,
    StateDictMismatch,
    UnreadableModel,
)
from resnet_service.models import architectures
from resnet_service.models.checkpoint.pytorch import load_values
from resnet_service.models.metadata import EvaluationRecord, ModelMetadata
from resnet_service.system.files import atomic_write, read_model_file, sha256_of

_STATE = "state_dict"
_STATES_IN_TRAINING = (_STATE, "model_state_dict", "model")  # as training scripts mostly name it
_WRAPPER_PREFIXES = ("module.", "_orig_mod.")  # DataParallel, torch.compile
_NAMED_AT_MOST = 5


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: the network in evaluation mode, float32, on the CPU; its metadata; the file's SHA-256."""

    model: nn.Module
    metadata: ModelMetadata
    sha256: str


def save_checkpoint(
    model: nn.Module, path: Path, metadata: ModelMetadata, *, dtype: torch.dtype = torch.float32
) -> None:
    """Write ``model`` and ``metadata`` to ``path`` as one checkpoint; a crash leaves an existing file whole.

    What could not be loaded again is not written: the weights are checked against the architecture first.

    Args:
        model: A network of the architecture that ``metadata`` names; wrappers (DataParallel, compile) are removed.
        path: Where to write; folders are made.
        metadata: Goes into the file, with the library versions of this moment.
        dtype: Of the stored floating-point weights; float16 halves the file. Loading widens to float32.

    Raises:
        ModelError: The model does not fit the metadata, or has NaN or infinity among its weights.
        FileNotWritten: The disk is full, or the like.

    """
    state = {key: tensor.detach().to("cpu") for key, tensor in clean_keys(model.state_dict()).items()}
    _assemble(state, metadata, str(path))
    versions = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
    }
    content = metadata.model_copy(update={"library_versions": versions}).model_dump(mode="json")
    content[_STATE] = {
        key: tensor.to(dtype if tensor.is_floating_point() else tensor.dtype).contiguous().clone()
        for key, tensor in state.items()
    }
    _write(content, path)


def load_checkpoint(path: Path, *, from_training: bool = False, **given: Any) -> Checkpoint:
    """Load a checkpoint, having checked it from the outside in: file, zip, metadata, keys, shapes, values.

    A dict with only the four classic keys (``arch``, ``state_dict``, ``num_classes``, ``input_size``) takes
    ImageNet's standard values for the rest. A bare ``state_dict`` loads where ``arch`` is given.

    Args:
        path: The file.
        from_training: Accept a training loop's checkpoint, whose other keys (epoch, optimizer, …) are left behind.
        **given: Metadata that the file itself does not carry, by the names of ``ModelMetadata``; ``None`` is the
            same as nothing. What both say must be equal.

    Raises:
        ModelError: The subclass says what is wrong and the message what to do.

    """
    data = read_model_file(path)
    state, metadata = _parse(load_values(data, str(path)), str(path), given, from_training)
    return Checkpoint(_assemble(state, metadata, str(path)), metadata, sha256_of(data))


def record_evaluation(path: Path, record: EvaluationRecord) -> None:
    """Add a record to the metadata of the checkpoint ``path``, in place of an older one of the same data set.

    The weights stay as they are; the file's digest, and with it the model's version, changes.

    Raises:
        ModelError: Not a checkpoint that could be loaded.
        FileNotWritten: The disk is full, or the like; the old file is whole.

    """
    data = read_model_file(path)
    content = load_values(data, str(path))
    _, metadata = _parse(content, str(path), {}, from_training=False)
    kept = [old.model_dump() for old in metadata.evaluations if old.dataset != record.dataset]
    _write({**content, "evaluations": [*kept, record.model_dump()]}, path)


def clean_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefixes that DataParallel and ``torch.compile`` put before every key, in any nesting."""
    cleaned = dict(state)
    while cleaned and (prefix := next((p for p in _WRAPPER_PREFIXES if all(k.startswith(p) for k in cleaned)), None)):
        cleaned = {key.removeprefix(prefix): tensor for key, tensor in cleaned.items()}
    return cleaned


def _parse(
    content: Any, where: str, given: Mapping[str, Any], from_training: bool
) -> tuple[dict[str, Tensor], ModelMetadata]:
    """Split a file's content into weights and metadata, whichever of the known forms it has."""
    extra = {key: value for key, value in given.items() if value is not None}
    if not isinstance(content, Mapping):
        raise UnreadableModel(f"{where} holds a {type(content).__name__}, not a checkpoint.")
    state_key = next((key for key in (_STATES_IN_TRAINING if from_training else (_STATE,)) if key in content), None)
    if state_key is not None:
        own = {str(key): value for key, value in content.items() if key != state_key}
        unknown = sorted(own.keys() - ModelMetadata.model_fields.keys())
        if unknown and not from_training:
            raise InvalidMetadata(
                f"{where} has keys that no checkpoint has: {_some(unknown)}. If it is a training checkpoint, "
                f"convert it once: resnet-service convert {where} OUTPUT"
            )
        own = {key: value for key, value in own.items() if key not in unknown}
        state = _tensors(content[state_key], where)
        if "arch" in own | extra and "num_classes" not in own | extra and from_training:
            inferred = _inferred(str((own | extra)["arch"]), state)
            own = {**{key: value for key, value in inferred.items() if key not in extra}, **own}
        return state, _agreed(own, extra, where)
    state = _tensors(content, where)
    if "arch" not in extra:
        arch = architectures.guess(state)
        hint = f"its keys are those of {arch}: give --arch {arch}" if arch else "give its architecture with --arch NAME"
        raise BareStateDict(
            f"{where} is a bare state_dict: it does not say what network it belongs to. Either {hint}, "
            f"or make it a checkpoint for good: resnet-service convert {where} OUTPUT --arch {arch or 'NAME'}"
        )
    return state, ModelMetadata.parse({**_inferred(extra["arch"], state), **extra}, where)


def _agreed(own: Mapping[str, Any], extra: Mapping[str, Any], where: str) -> ModelMetadata:
    """Join what the file says with what was given; where both speak they must say the same."""
    metadata = ModelMetadata.parse({**extra, **own}, where)
    asked = ModelMetadata.parse({**own, **extra}, where)
    for key in extra:
        if getattr(metadata, key) != getattr(asked, key):
            raise InvalidMetadata(
                f"{where} says {key}={getattr(metadata, key)!r}, but {getattr(asked, key)!r} was given; "
                "leave out the option, or correct the file."
            )
    return metadata


def _inferred(arch: str, state: Mapping[str, Tensor]) -> dict[str, Any]:
    rows = set(architectures.classifier_rows(arch, state).values())
    return {"input_size": 224, **({"num_classes": rows.pop()} if len(rows) == 1 else {})}


def _tensors(state: Any, where: str) -> dict[str, Tensor]:
    if not isinstance(state, Mapping) or not state:
        raise UnreadableModel(f"{where} has no weights: its state_dict is empty or not a dict.")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise UnreadableModel(f"{where} is not a checkpoint: {str(key)[:80]!r} is not a tensor.")
        if value.layout != torch.strided or value.is_quantized or value.is_complex():
            raise StateDictMismatch(f"{where}: {key} is a sparse, quantized or complex tensor; only plain ones load.")
    return clean_keys(state)


def _assemble(state: Mapping[str, Tensor], metadata: ModelMetadata, where: str) -> nn.Module:
    """Build the network that ``metadata`` names and put ``state`` into it, having checked that they fit."""
    for key, rows in architectures.classifier_rows(metadata.arch, state).items():
        if rows != metadata.num_classes:
            raise ClassCountMismatch(
                f"{where} says num_classes={metadata.num_classes}, but its classifier ({key}) has {rows} rows."
            )
    model = architectures.build(metadata.arch, metadata.num_classes)
    own = model.state_dict()
    # Checkpoints from before 2018 lack these counters, which inference never reads.
    state = {**{k: t for k, t in own.items() if k.endswith("num_batches_tracked")}, **state}
    problems = {
        "missing": sorted(own.keys() - state.keys()),
        "unexpected": sorted(state.keys() - own.keys()),
        "of another shape": [
            f"{key} {list(state[key].shape)} instead of {list(own[key].shape)}"
            for key in own.keys() & state.keys()
            if state[key].shape != own[key].shape
        ],
    }
    if any(problems.values()):
        found = "; ".join(f"{what}: {_some(names)}" for what, names in problems.items() if names)
        raise StateDictMismatch(f"{where} does not fit {metadata.arch}: {found}.")
    unsound = [key for key, tensor in state.items() if not torch.isfinite(tensor.float()).all()]
    if unsound:
        raise NonFiniteWeights(f"{where} has NaN or infinity in {_some(unsound)}; the training has diverged.")
    model.load_state_dict(state)
    return model


def _write(content: Mapping[str, Any], path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    atomic_write(path, buffer.getvalue())


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
