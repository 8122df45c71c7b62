"""Loading and saving checkpoints: the weights, and all metadata that inference needs, in one file."""

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from resnet_service.models.checkpoint.contents import STATE_DICT, parse_contents
from resnet_service.models.checkpoint.pytorch import dump_values, load_values
from resnet_service.models.checkpoint.state_dict import build_network, clean_keys
from resnet_service.models.metadata import EvaluationRecord, ModelMetadata
from resnet_service.system.files import atomic_write, read_model_file, sha256_of


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
        path: Where to write; missing folders are created.
        metadata: Goes into the file, with the installed versions of the libraries.
        dtype: Of the stored floating-point weights; float16 halves the file. Loading widens to float32.

    Raises:
        ModelError: The model does not fit the metadata, or has NaN or infinity among its weights.
        FileNotWritten: The disk is full, or similar.

    """
    state = {key: tensor.detach().to("cpu") for key, tensor in clean_keys(model.state_dict()).items()}
    build_network(state, metadata, str(path))
    versions = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
    }
    content = metadata.model_copy(update={"library_versions": versions}).model_dump(mode="json")
    content[STATE_DICT] = {
        key: tensor.to(dtype if tensor.is_floating_point() else tensor.dtype).contiguous().clone()
        for key, tensor in state.items()
    }
    atomic_write(path, dump_values(content))


def load_checkpoint(path: Path, *, from_training: bool = False, **given: Any) -> Checkpoint:
    """Load a checkpoint, after checking file, archive, metadata, keys, shapes and values, in this order.

    A dict with only the four classic keys (``arch``, ``state_dict``, ``num_classes``, ``input_size``) takes
    ImageNet's standard values for the rest. A bare ``state_dict`` loads if ``arch`` is given.

    Args:
        path: The file.
        from_training: Accept a training checkpoint; its other keys (epoch, optimizer, …) are ignored.
        **given: Metadata that the file lacks, by the names of ``ModelMetadata``; ``None`` means not given. A value
            that the file has too must be equal.

    Raises:
        ModelError: The subclass says what is wrong and the message what to do.

    """
    data = read_model_file(path)
    state, metadata = parse_contents(load_values(data, str(path)), str(path), given, from_training=from_training)
    return Checkpoint(build_network(state, metadata, str(path)), metadata, sha256_of(data))


def record_evaluation(path: Path, record: EvaluationRecord) -> None:
    """Add a record to the metadata of the checkpoint ``path``; it replaces an older one of the same data set.

    The weights stay as they are; the file's digest, and with it the model's version, changes.

    Raises:
        ModelError: The file does not load as a checkpoint.
        FileNotWritten: The disk is full, or similar; the old file is whole.

    """
    content = load_values(read_model_file(path), str(path))
    _, metadata = parse_contents(content, str(path))
    evaluations = [one.model_dump() for one in metadata.with_evaluation(record).evaluations]
    atomic_write(path, dump_values({**content, "evaluations": evaluations}))
