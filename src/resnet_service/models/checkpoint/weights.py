"""Weights as numpy arrays, with their metadata: checkpoints of the format safetensors, read without PyTorch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from resnet_service.errors import UnreadableModel
from resnet_service.models.checkpoint.contents import STATE_DICT, clean_keys, parse_contents
from resnet_service.models.checkpoint.safetensors import Array, is_safetensors, load_arrays, with_metadata
from resnet_service.models.file_kinds import check_checkpoint_kind
from resnet_service.models.metadata import EvaluationRecord, ModelMetadata
from resnet_service.system.files import atomic_write, read_model_file, sha256_of
from resnet_service.types import SAFETENSORS_SUFFIX

# The parts of batch norms that are learned by counting, not by training.
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Weights(NamedTuple):
    """A checkpoint as it is stored, not compared with its architecture.

    ``state`` has each tensor by its key in the ``state_dict``, as float32 or int64; ``sha256`` is the file's.
    """

    state: dict[str, Array]
    metadata: ModelMetadata
    sha256: str

    @property
    def parameters(self) -> int:
        """The number of trained values: all but the statistics of batch norms."""
        return sum(array.size for key, array in self.state.items() if not key.endswith(_STATISTICS))


def read_weights(path: Path, **given: Any) -> Weights:
    """Read a safetensors checkpoint, and check all that can be checked without building its network.

    Args:
        path: The file.
        **given: As for ``load_checkpoint``.

    Raises:
        ModelError: The subclass says what is wrong and the message what to do.
        ModuleNotFoundError: PyTorch is not installed, and only it knows the classes of a bare ``state_dict``.

    """
    check_checkpoint_kind(path)
    data = read_model_file(path)
    state, metadata = parse_contents(safetensors_contents(data, str(path)), str(path), _check_arrays, given)
    return Weights(state, metadata, sha256_of(data))


def is_safetensors_file(path: Path, data: bytes) -> bool:
    """Whether a file is to be read as safetensors: its first bytes decide, and for others its name."""
    return is_safetensors(data) or path.suffix == SAFETENSORS_SUFFIX


def safetensors_contents(data: bytes, where: str) -> dict[str, Any]:
    """Return what a safetensors file holds, in the form of the other formats; errors as for ``load_arrays``."""
    metadata, state = load_arrays(data, where)
    return {**metadata, STATE_DICT: state} if metadata else dict(state)


def record_evaluation(path: Path, record: EvaluationRecord) -> None:
    """Add a record to the metadata of a safetensors checkpoint; it replaces an older one of the same data set.

    The weights stay as they are; the file's digest, and with it the model's version, changes.

    Raises:
        ModelError: The file is not a checkpoint.
        FileNotWritten: The disk is full, or similar; the old file is whole.

    """
    data = read_model_file(path)
    content = safetensors_contents(data, str(path))
    _, metadata = parse_contents(content, str(path), _check_arrays)
    own = {key: value for key, value in content.items() if key != STATE_DICT}
    evaluations = [one.model_dump(mode="json") for one in metadata.with_evaluation(record).evaluations]
    atomic_write(path, with_metadata(data, {**own, "evaluations": evaluations}, str(path)))


def _check_arrays(state: Mapping[str, Array], where: str) -> dict[str, Array]:
    if not state:
        raise UnreadableModel(f"{where} has no weights: its state_dict is empty.")
    return clean_keys(state)
