"""Weights as numpy arrays, with their metadata: checkpoints of either format, read without PyTorch."""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from resnet_service.models.checkpoint import pytorch
from resnet_service.models.checkpoint.arrays import Array
from resnet_service.models.checkpoint.contents import STATE_DICT, parse_contents
from resnet_service.models.checkpoint.safetensors import (
    HEAD_BYTES,
    dump_arrays,
    is_safetensors,
    load_arrays,
    read_metadata,
    with_metadata,
)
from resnet_service.models.checkpoint.torch_files import with_entry
from resnet_service.models.file_kinds import check_checkpoint_kind
from resnet_service.models.labels import with_class_names
from resnet_service.models.metadata import EvaluationRecord, ModelMetadata
from resnet_service.models.networks import ARCHITECTURES, check_state
from resnet_service.system.files import atomic_write, read_model_file, sha256_of
from resnet_service.types import SAFETENSORS_SUFFIX, WeightsDtype

# Buffers of batch norms: measured during training, not learned.
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Weights(NamedTuple):
    """A checkpoint as it is stored, not compared with its architecture.

    ``state`` has each tensor by its key in the ``state_dict``, as float32 or integers; ``sha256`` is the file's.
    """

    state: dict[str, Array]
    metadata: ModelMetadata
    sha256: str

    @property
    def parameters(self) -> int:
        """The number of trained values: all but the statistics of batch norms."""
        return sum(array.size for key, array in self.state.items() if not key.endswith(_STATISTICS))


def read_weights(path: Path, **given: Any) -> Weights:
    """Read a checkpoint, and check all that can be checked without building its network.

    A dict with only the four classic keys (``arch``, ``state_dict``, ``num_classes``, ``input_size``) takes
    the preprocessing with which torchvision or timm publish the architecture. A bare ``state_dict`` is read if ``arch``
    is given.

    Args:
        path: The file, of safetensors or ``torch.save``: its first bytes decide.
        **given: Metadata that the file lacks, by the names of ``ModelMetadata``; ``None`` means not given. A value
            that the file has too must be equal.

    Raises:
        ModelError: The subclass says what is wrong and the message what to do.
        ModuleNotFoundError: Only PyTorch knows the architecture of a bare ``state_dict``, and it is not installed.

    """
    check_checkpoint_kind(path)
    data = read_model_file(path)
    state, metadata = parse_contents(_contents(path, data), str(path), given)
    return Weights(state, metadata, sha256_of(data))


def needs_pytorch(path: Path, arch: str | None = None) -> bool:
    """Whether only PyTorch can build a checkpoint's network: ``networks`` lacks its architecture.

    Args:
        path: The file. Its header is read, or the pickle of a PyTorch file; weights are not.
        arch: Architecture of a bare ``state_dict``. Without one, nothing is known to be lacking; ``read_weights`` says
            what is missing.

    Raises:
        ModelError: The file does not exist, is damaged, or no checkpoint, as far as can be seen without its weights.

    """
    check_checkpoint_kind(path)
    named = arch or (read_metadata(path).get("arch") if is_safetensors_path(path) else pytorch.read_arch(path))
    return isinstance(named, str) and named not in ARCHITECTURES


def save_state(
    state: Mapping[str, Array], path: Path, metadata: ModelMetadata, dtype: WeightsDtype = "float32"
) -> None:
    """Write weights and their metadata as a checkpoint, in the format of the suffix of ``path``.

    The weights are checked against the architecture first; a crash leaves an existing file whole.

    Args:
        state: Arrays of float32 or int64 by their keys in the ``state_dict``; counters of batch norms may be missing.
        path: Where to write; missing folders are created. Safetensors of ``ARCHITECTURES`` need no PyTorch.
        metadata: Goes into the file, with the versions of the libraries.
        dtype: Of the stored floating-point weights.

    Raises:
        ModelError: The weights are not those of the architecture, or not finite.
        FileNotWritten: The disk is full, or similar.
        ModuleNotFoundError: PyTorch is needed and not installed.

    """
    if path.suffix == SAFETENSORS_SUFFIX and metadata.arch in ARCHITECTURES:
        stored = {key: array.astype(dtype) if array.dtype == np.float32 else array for key, array in state.items()}
        save_weights(stored, path, metadata)
        return
    # Imported here, since it needs PyTorch.
    from resnet_service.models.checkpoint.checkpoint import save_arrays

    save_arrays(state, path, metadata, dtype)


def save_weights(state: Mapping[str, Array], path: Path, metadata: ModelMetadata) -> None:
    """Write weights of one of ``ARCHITECTURES`` and their metadata as a safetensors checkpoint, without PyTorch.

    The weights are checked against the architecture first; a crash leaves an existing file whole.

    Args:
        state: Arrays of float32, float16 or int64 by their keys in the ``state_dict``.
        path: Where to write; missing folders are created.
        metadata: Goes into the file, with the version of Python.

    Raises:
        ModelError: As for ``networks.check_state``.
        FileNotWritten: The disk is full, or similar.

    """
    check_state(state, metadata, str(path))
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    named = with_class_names(metadata, path)
    content = named.model_copy(update={"library_versions": versions}).model_dump(mode="json")
    atomic_write(path, dump_arrays(content, state))


def is_safetensors_file(path: Path, data: bytes) -> bool:
    """Whether a file is to be read as safetensors: its first bytes decide, and for others its name."""
    return is_safetensors(data) or path.suffix == SAFETENSORS_SUFFIX


def is_safetensors_path(path: Path) -> bool:
    """As ``is_safetensors_file``, of a file that is not read yet."""
    with path.open("rb") as file:
        return is_safetensors_file(path, file.read(HEAD_BYTES))


def safetensors_contents(data: bytes, where: str) -> dict[str, Any]:
    """Return what a safetensors file holds, in the form of the other formats; errors as for ``load_arrays``."""
    metadata, state = load_arrays(data, where)
    return {**metadata, STATE_DICT: state} if metadata else dict(state)


def record_evaluation(path: Path, record: EvaluationRecord) -> None:
    """Add a record to the metadata of the checkpoint ``path``; it replaces an older one of the same data set.

    The weights stay as they are; the file's digest, and with it the model's version, changes.

    Raises:
        ModelError: The file is not a checkpoint.
        FileNotWritten: The disk is full, or similar; the old file is whole.

    """
    data = read_model_file(path)
    content = _contents(path, data)
    _, metadata = parse_contents(content, str(path))
    evaluations = [one.model_dump(mode="json") for one in metadata.with_evaluation(record).evaluations]
    if is_safetensors_file(path, data):
        own = {key: value for key, value in content.items() if key != STATE_DICT}
        changed = with_metadata(data, {**own, "evaluations": evaluations}, str(path))
    else:
        changed = with_entry(data, "evaluations", evaluations, str(path))
    atomic_write(path, changed)


def _contents(path: Path, data: bytes) -> Any:
    if is_safetensors_file(path, data):
        return safetensors_contents(data, str(path))
    return pytorch.read_contents(data, str(path))
