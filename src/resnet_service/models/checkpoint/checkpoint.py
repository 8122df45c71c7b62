"""Loading and saving checkpoints: the weights, and all metadata that inference needs, in one file."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn

from resnet_service.models.checkpoint import weights
from resnet_service.models.checkpoint.contents import STATE_DICT, clean_keys, parse_contents
from resnet_service.models.checkpoint.pytorch import dump_values, load_values
from resnet_service.models.checkpoint.safetensors import Array, dump_arrays
from resnet_service.models.checkpoint.state_dict import build_network, check_tensors
from resnet_service.models.file_kinds import check_checkpoint_kind
from resnet_service.models.labels import with_class_names
from resnet_service.models.metadata import EvaluationRecord, ModelMetadata
from resnet_service.system.files import atomic_write, read_model_file, sha256_of
from resnet_service.types import SAFETENSORS_SUFFIX


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

    The weights are checked against the architecture first: a checkpoint that could not be loaded is not written.

    Args:
        model: A network of the architecture that ``metadata`` names; wrappers (DataParallel, compile) are removed.
        path: Where to write; missing folders are created. With the suffix ``.safetensors``, in that format, which any
            library reads and which holds nothing that can be executed; else in PyTorch's own.
        metadata: Goes into the file, with the installed versions of the libraries.
        dtype: Of the stored floating-point weights: float32, float16 or bfloat16; the last two halve the file. Loading
            widens to float32.

    Raises:
        ModelError: The model does not fit the metadata, has NaN or infinity among its weights, or a tensor of a type
            that the format's readers refuse.
        FileNotWritten: The disk is full, or similar.

    """
    state = {key: tensor.detach().to("cpu") for key, tensor in clean_keys(model.state_dict()).items()}
    build_network(state, metadata, str(path))
    versions = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
    }
    named = with_class_names(metadata, path)
    content = named.model_copy(update={"library_versions": versions}).model_dump(mode="json")
    state = {
        key: tensor.to(dtype if tensor.is_floating_point() else tensor.dtype).contiguous().clone()
        for key, tensor in state.items()
    }
    if path.suffix == SAFETENSORS_SUFFIX:
        atomic_write(path, dump_arrays(content, {key: _array(tensor) for key, tensor in state.items()}))
    else:
        atomic_write(path, dump_values({**content, STATE_DICT: state}))


def load_checkpoint(path: Path, **given: Any) -> Checkpoint:
    """Load a checkpoint, after checking file, archive or header, metadata, keys, shapes and values, in this order.

    A dict with only the four classic keys (``arch``, ``state_dict``, ``num_classes``, ``input_size``) takes
    the preprocessing with which torchvision or timm publish the architecture. A bare ``state_dict`` loads if ``arch``
    is given.

    Args:
        path: The file.
        **given: Metadata that the file lacks, by the names of ``ModelMetadata``; ``None`` means not given. A value
            that the file has too must be equal.

    Raises:
        ModelError: The subclass says what is wrong and the message what to do.

    """
    check_checkpoint_kind(path)
    data = read_model_file(path)
    content = _load_content(path, data)
    state, metadata = parse_contents(content, str(path), check_tensors, given)
    return Checkpoint(build_network(state, metadata, str(path)), metadata, sha256_of(data))


def record_evaluation(path: Path, record: EvaluationRecord) -> None:
    """Add a record to the metadata of the checkpoint ``path``; it replaces an older one of the same data set.

    The weights stay as they are; the file's digest, and with it the model's version, changes.

    Raises:
        ModelError: The file does not load as a checkpoint.
        FileNotWritten: The disk is full, or similar; the old file is whole.

    """
    data = read_model_file(path)
    if weights.is_safetensors_file(path, data):
        weights.record_evaluation(path, record)
        return
    content = load_values(data, str(path))
    _, metadata = parse_contents(content, str(path), check_tensors)
    evaluations = [one.model_dump() for one in metadata.with_evaluation(record).evaluations]
    atomic_write(path, dump_values({**content, "evaluations": evaluations}))


def _array(tensor: torch.Tensor) -> Array:
    """Return a tensor's memory as an array; numpy has no BF16, so that its bits are those of uint16."""
    array: Array = (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


def _load_content(path: Path, data: bytes) -> Any:
    if not weights.is_safetensors_file(path, data):
        return load_values(data, str(path))
    content = weights.safetensors_contents(data, str(path))
    return _with_tensors(content)


def _with_tensors(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``content`` with a tensor for each array, as a copy: arrays may be read-only views of the file."""
    return {
        key: torch.tensor(value)
        if isinstance(value, np.ndarray)
        else _with_tensors(value)
        if key == STATE_DICT
        else value
        for key, value in content.items()
    }
