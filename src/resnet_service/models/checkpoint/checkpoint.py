"""Loading and saving checkpoints: the weights, and all metadata that inference needs, in one file."""

import io
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from resnet_service.models.checkpoint.arrays import Array
from resnet_service.models.checkpoint.contents import STATE_DICT, clean_keys
from resnet_service.models.checkpoint.safetensors import dump_arrays
from resnet_service.models.checkpoint.state_dict import build_network
from resnet_service.models.checkpoint.weights import read_weights
from resnet_service.models.labels import with_class_names
from resnet_service.models.metadata import ModelMetadata
from resnet_service.system.files import atomic_write
from resnet_service.types import SAFETENSORS_SUFFIX, WeightsDtype


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
        buffer = io.BytesIO()
        torch.save({**content, STATE_DICT: state}, buffer)
        atomic_write(path, buffer.getvalue())


def save_arrays(state: Mapping[str, Array], path: Path, metadata: ModelMetadata, dtype: WeightsDtype) -> None:
    """As ``weights.save_state``, in any format and of any architecture."""
    model = build_network(_tensors(state), metadata, str(path))
    save_checkpoint(model, path, metadata, dtype=getattr(torch, dtype))


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
    weights = read_weights(path, **given)
    return Checkpoint(
        build_network(_tensors(weights.state), weights.metadata, str(path)), weights.metadata, weights.sha256
    )


def _tensors(state: Mapping[str, Array]) -> dict[str, torch.Tensor]:
    """Return copies: arrays may be read-only views of a file."""
    return {key: torch.tensor(array) for key, array in state.items()}


def _array(tensor: torch.Tensor) -> Array:
    """Return a tensor's memory as an array; numpy has no BF16, so that its bits are those of uint16."""
    array: Array = (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array
