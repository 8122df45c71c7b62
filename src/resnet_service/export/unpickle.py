"""The child process of ``convert --trust-pickle``: the only code that may execute a pickle.

    python -P -m resnet_service.export.unpickle INPUT OUTPUT

It writes what is plain in INPUT to OUTPUT: tensors, the ``state_dict`` of each module, numbers and texts, in dicts and
lists. The parent reads OUTPUT as untrusted input, so all effects of the pickle on this process end with it.
"""

import os
import sys
from collections.abc import Mapping
from typing import Any

import torch

_MAX_DEPTH = 30


def main() -> None:
    """Unpickle ``argv[1]``, code included, and write what is plain in it to ``argv[2]``."""
    source, target = sys.argv[1:]
    sys.path.append(os.getcwd())  # for the training code; at the end, so that no file there is taken for another module
    content = torch.load(source, map_location="cpu", weights_only=False)  # the user declared this file trusted
    torch.save(_plain(content, set(), 0), target)


def _plain(value: Any, visited: set[int], depth: int) -> Any:
    """Return a value without objects other than tensors; what an object holds is in its attributes."""
    if isinstance(value, torch.Tensor):
        return value.detach()
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if id(value) in visited or depth > _MAX_DEPTH:
        return None
    visited.add(id(value))
    if isinstance(value, torch.nn.Module):
        return {key: tensor for key, tensor in value.state_dict().items() if isinstance(tensor, torch.Tensor)}
    if isinstance(value, Mapping):
        return {key: _plain(one, visited, depth + 1) for key, one in value.items() if isinstance(key, str | int)}
    if isinstance(value, list | tuple):
        return [_plain(one, visited, depth + 1) for one in value]
    if isinstance(value, type):
        return None
    return {key: _plain(one, visited, depth + 1) for key, one in getattr(value, "__dict__", {}).items()}


if __name__ == "__main__":
    main()
