"""Files of ``torch.save``: tensors and plain values, read without executing code in the file."""

import io
import warnings
from collections.abc import Mapping
from typing import Any

import torch

from resnet_service.errors import PickledCode
from resnet_service.models.checkpoint.torch_files import read_torch_file, unreadable

_TENSOR_GLOBALS = ("torch._utils.", "torch.FloatStorage", "torch.LongStorage", "collections.OrderedDict")
_MAX_NAMES = 3


def load_values(data: bytes, where: str) -> Any:
    """Return the content of a ``torch.save`` file: tensors (on the CPU) and plain values, nothing else.

    Args:
        data: The file's bytes.
        where: The file's name in messages.

    Raises:
        UnreadableModel: Truncated, or not made by ``torch.save``.
        SuspiciousModel: A zip whose entries are compressed, too many, or larger than the file; more pickle opcodes or
            deeper tuples than any network needs.
        PickledCode: The file names Python classes or functions, which loading would run.

    """
    names = _unsafe_globals(data, where)
    try:
        with warnings.catch_warnings():
            # torch's warnings advise the author of the file; its reader can change nothing.
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler may raise anything on hostile bytes
        if names:
            raise PickledCode(
                f"{where} is a pickled Python object ({', '.join(names)}), not a file of weights; loading it would run "
                "the code it names. Convert it once, which takes its weights and runs nothing: "
                f"resnet-service convert {where} OUTPUT.safetensors"
            ) from error
        raise unreadable(where) from error


def dump_values(content: Mapping[str, Any]) -> bytes:
    """Return the bytes of a ``torch.save`` file with ``content``."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _unsafe_globals(data: bytes, where: str) -> list[str]:
    """Return the first globals that unpickling would import, other than those that tensors are made of.

    PyTorch's unpickler has no limit on opcodes, and ends the process on tuples in tuples that are keys: their hash
    overflows the stack. So the file is read as data first, and refused if that fails.
    ``torch.serialization.get_unsafe_globals_in_checkpoint`` reads neither legacy files nor opcodes that ``torch.save``
    does not write, and has no bound on their number.
    """
    names = read_torch_file(data, where).globals
    return [name for name in names if not name.startswith(_TENSOR_GLOBALS)][:_MAX_NAMES]
