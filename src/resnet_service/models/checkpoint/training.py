"""What a training checkpoint holds: its tensors by their path in it, and facts beside them, however they are nested.

The values are those of ``torch_files`` and ``safetensors``. Containers and objects in them may be nested without bound,
and the same one may be in many places: each is visited once, and only to a limited depth.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from resnet_service.errors import SuspiciousModel
from resnet_service.models.checkpoint.arrays import MAX_TENSORS, Shaped
from resnet_service.models.checkpoint.pickles import Object
from resnet_service.models.checkpoint.torch_files import StoredTensor
from resnet_service.models.metadata import MAX_CLASSES

_MAX_DEPTH = 60
_MAX_PATH = 300  # characters
# Attributes of a pickled nn.Module with its tensors and modules; their names are not in the keys of a state_dict.
_MODULE_ATTRIBUTES = ("_parameters", "_buffers", "_modules")
# Where training scripts keep their options.
_OPTIONS = ("hyper_parameters", "hparams", "args", "opt", "config", "cfg", "params", "meta", "model_args")
UNREAD_TENSORS = ("torch._utils._rebuild_", "torch._tensor._rebuild_", "torch.nn.quantized", "torch.ao.nn.quantized")


class Tensors(NamedTuple):
    """Tensors of a file by their paths: the keys of all dicts, attributes and modules on the way, with dots between."""

    found: dict[str, Shaped]
    unread: dict[str, str]  # paths of tensors that cannot be read, such as quantized ones, and what they are
    roots: tuple[str, ...] = ()  # the file's first keys, with a dot, but for those of tensors

    def section(self, path: str) -> str:
        """Return the first key under which a path is, with a dot; or ``""``."""
        return next((root for root in self.roots if path.startswith(root)), "")


def tensors_of(content: Any, where: str) -> Tensors:
    """Return all tensors of a file's content.

    Raises:
        SuspiciousModel: More tensors than any training checkpoint has; ``where`` is the file's name in the message.

    """
    tensors = Tensors({}, {})
    visited: set[int] = set()

    def visit(value: Any, path: str, depth: int) -> None:
        if isinstance(value, StoredTensor | np.ndarray):
            tensors.found.setdefault(path, value)
            if len(tensors.found) > MAX_TENSORS:
                raise SuspiciousModel(f"{where} has more than {MAX_TENSORS:,} tensors.")
            return
        if not isinstance(value, dict | list | tuple | Object) or id(value) in visited or depth > _MAX_DEPTH:
            return
        visited.add(id(value))
        if isinstance(value, Object) and value.name.startswith(UNREAD_TENSORS):
            tensors.unread.setdefault(path, value.name)
        for name, child in children(value):
            inner = f"{path}.{name}" if path and name else path or name
            if len(inner) <= _MAX_PATH and inner.isprintable():
                visit(child, inner, depth + 1)

    visit(content, "", 0)
    # A file that is a state_dict has tensors under its first keys.
    first = content.items() if isinstance(content, dict) else ()
    roots = [
        f"{key}." for key, value in first if isinstance(key, str) and not isinstance(value, StoredTensor | np.ndarray)
    ]
    roots.sort(key=len, reverse=True)
    return tensors._replace(roots=tuple(roots))


def options_of(content: Any) -> Iterator[Mapping[Any, Any]]:
    """Yield the mappings that may state facts of the network: the file's own, then those of the script's options."""
    root = _as_mapping(content)
    yield root
    for name in _OPTIONS:
        if name in root:
            yield _as_mapping(root[name])


def text_list(value: Any) -> list[str] | None:
    """Return a list, tuple or numpy array of texts as a list; ``None`` for anything else."""
    if isinstance(value, Object) and "_reconstruct" in value.name and isinstance(value.state, tuple):
        return _numpy_texts(value.state)
    if isinstance(value, Object) and value.items and not value.entries:  # a subclass of list
        value = value.items
    if isinstance(value, list | tuple) and value and all(isinstance(item, str) for item in value):
        return list(value)
    return None


def children(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a container, an object or a module holds, with its name in paths; ``""`` for one without."""
    if isinstance(value, dict):
        yield from ((str(key), child) for key, child in value.items() if isinstance(key, str | int))
    elif isinstance(value, list | tuple):
        yield from ((str(index), child) for index, child in enumerate(value))
    else:
        yield from children(value.entries)
        yield from children(value.items)
        for state in value.state if isinstance(value.state, tuple) else (value.state,):
            if not isinstance(state, dict):
                continue
            if all(name in state for name in _MODULE_ATTRIBUTES):
                yield from (("", state[name]) for name in _MODULE_ATTRIBUTES)
            else:
                yield from children(state)


def _as_mapping(value: Any) -> Mapping[Any, Any]:
    if isinstance(value, Object):
        return {**(value.state if isinstance(value.state, dict) else {}), **value.entries}
    return value if isinstance(value, dict) else {}


def _numpy_texts(state: tuple[Any, ...]) -> list[str] | None:
    """Return the texts of a pickled numpy array: of objects, or of a type such as U5, whose numbers are in bytes."""
    if len(state) != 5:
        return None
    _version, _shape, dtype, _fortran, stored = state
    if isinstance(stored, list | tuple):
        return text_list(stored)
    if isinstance(stored, Object) and stored.name == "_codecs.encode" and stored.args:  # bytes, in protocol 2
        stored = stored.args[0].encode("latin-1", "replace") if isinstance(stored.args[0], str) else None
    kind = dtype.args[0] if isinstance(dtype, Object) and dtype.args else None
    if not isinstance(stored, bytes) or not isinstance(kind, str) or not kind.startswith("U"):
        return None
    try:
        # The second entry of a pickled dtype's state is its byte order.
        order = dtype.state[1] if isinstance(dtype.state, tuple) and dtype.state[1] in ("<", ">") else "<"
        width = 4 * int(kind[1:])
        codec = "utf-32-le" if order == "<" else "utf-32-be"
        if len(stored) > width * MAX_CLASSES:
            return None
        texts = [stored[at : at + width].decode(codec).rstrip("\0") for at in range(0, len(stored), width)]
    except (ValueError, IndexError):
        return None
    return texts or None
