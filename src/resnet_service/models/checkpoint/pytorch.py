"""Checkpoints of ``torch.save``, read as data and without PyTorch: nothing but tensors and plain values is accepted.

``torch_files`` reads such a file whatever it names; here a file that names more than tensors are made of is refused.
"""

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resnet_service.errors import PickledCode, StateDictMismatch, SuspiciousModel, UnreadableModel
from resnet_service.models.checkpoint.arrays import MAX_TENSORS, Array
from resnet_service.models.checkpoint.contents import STATE_DICT
from resnet_service.models.checkpoint.pickles import Object
from resnet_service.models.checkpoint.torch_files import StoredTensor, is_zip, read_torch_file, read_torch_stream
from resnet_service.models.checkpoint.training import UNREAD_TENSORS

# Classes and functions in a file of tensors, those that are refused later included, such as sparse tensors.
_TENSOR_GLOBALS = re.compile(
    r"collections\.OrderedDict"
    r"|torch\.(Size|Tensor|device|nn\.parameter\.(Parameter|Buffer)|serialization\._get_layout)"
    r"|torch\.(_utils\._rebuild_\w+|_tensor\._rebuild_from_type(_v2)?)"
    r"|torch\.((cuda|storage)\.)?\w+Storage"
    r"|torch\.((b?float|u?int|q?u?int|complex)\d\w*|bool|per_(tensor|channel)_\w+)"
)
_MAX_NAMES = 3


def read_contents(data: bytes, where: str) -> Any:
    """Return what a file holds, with an array for each tensor of its ``state_dict``: float32, or integers as stored.

    Args:
        data: The file's bytes.
        where: The file's name in messages.

    Raises:
        UnreadableModel: Truncated, damaged, or not made by ``torch.save``; a ``state_dict`` with anything other than
            tensors in it, or none.
        SuspiciousModel: A zip whose entries are compressed, too many, or larger than the file; more pickle opcodes or
            deeper tuples than any network needs; more numbers than the file has bytes.
        PickledCode: The file names classes or functions other than those of tensors.
        StateDictMismatch: A tensor is sparse, quantized, complex, or of a rare type.

    """
    content, names = read_torch_file(data, where)
    _check_globals(names, where)
    if isinstance(content, StoredTensor):
        raise UnreadableModel(f"{where} holds a Tensor, not a checkpoint.")
    if not isinstance(content, Mapping):
        return content
    if STATE_DICT not in content:
        return _arrays(content, len(data), where)
    return {**content, STATE_DICT: _arrays(content[STATE_DICT], len(data), where)}


def read_arch(path: Path) -> Any:
    """Return the architecture that a file names, if any; no weights are made of it. Errors as for the whole."""
    where = str(path)
    with path.open("rb") as file:
        # In a legacy file, the pickle may declare texts of any length, for which an open file would take memory.
        content, names = read_torch_stream(file if is_zip(file) else io.BytesIO(file.read()), where)
    _check_globals(names, where)
    return content.get("arch") if isinstance(content, Mapping) and STATE_DICT in content else None


def _check_globals(names: tuple[str, ...], where: str) -> None:
    foreign = [name for name in names if not _TENSOR_GLOBALS.fullmatch(name)][:_MAX_NAMES]
    if foreign:
        raise PickledCode(
            f"{where} is a pickled Python object ({', '.join(foreign)}), not a file of weights; loading it would run "
            "the code it names. Convert it once, which takes its weights and runs nothing: "
            f"resnet-service convert {where} OUTPUT.safetensors"
        )


def _arrays(state: Any, file_bytes: int, where: str) -> dict[str, Array]:
    """Return the arrays of a ``state_dict``, which all are checked before one is read."""
    if not isinstance(state, Mapping):
        raise UnreadableModel(f"{where} has no weights: its state_dict is empty or not a dict.")
    for key, value in state.items():
        if _is_unread(value):
            raise StateDictMismatch(
                f"{where}: {_shown(key)} is a sparse, quantized or complex tensor, or of a rare type; only dense ones "
                "of usual numbers load. Save the weights as float32."
            )
        if not isinstance(key, str) or not isinstance(value, StoredTensor):
            raise UnreadableModel(f"{where} is not a checkpoint: {_shown(key)!r} is not a tensor.")
    if len(state) > MAX_TENSORS:
        raise SuspiciousModel(f"{where} has {len(state):,} tensors; the limit is {MAX_TENSORS:,}.")
    arrays: dict[str, Array] = {}
    numbers = 0
    # By storage, since tensors may share one, and the reader keeps only the last that it read.
    for key, tensor in sorted(state.items(), key=lambda item: item[1].storage.key):
        # Each becomes an array of its own, even if they share a storage.
        numbers += tensor.size
        arrays[key] = tensor.array(f"{where}: {_shown(key)}")
        if numbers > file_bytes:
            raise SuspiciousModel(f"{where} has tensors of more numbers than the file has bytes.")
    return {key: arrays[key] for key in state}


def _is_unread(value: Any) -> bool:
    if isinstance(value, StoredTensor):
        return value.storage.kind.startswith("Complex")
    return isinstance(value, Object) and value.name.startswith(UNREAD_TENSORS)


def _shown(key: Any) -> str:
    return ascii(str(key)[:80])[1:-1]
