"""Training checkpoints with the shapes of real ones, but one stored number a tensor: 80 kB instead of 45 MB."""

import io
from collections.abc import Mapping
from typing import Any

import torch

from resnet_service.models import architectures
from resnet_service.models.checkpoint.keys import COUNTER
from resnet_service.models.checkpoint.torch_files import read_torch_file
from resnet_service.models.checkpoint.training import Tensors, tensors_of


def light(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a ``state_dict`` of these keys, shapes and types, each tensor a view of one number."""
    return {key: torch.zeros((), dtype=tensor.dtype).expand(tensor.shape) for key, tensor in state.items()}


def light_state(arch: str = "resnet18", num_classes: int = 3) -> dict[str, torch.Tensor]:
    """Return the light ``state_dict`` of an architecture."""
    shapes = architectures.shapes_of(arch, num_classes)
    return {
        key: torch.zeros((), dtype=torch.int64 if key.endswith(COUNTER) else torch.float32).expand(shape)
        for key, shape in shapes.items()
    }


def saved(content: Any, **options: Any) -> bytes:
    """Return the bytes that ``torch.save`` writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def tensors_in(content: Any) -> Tensors:
    """Save ``content``, and return the tensors that are found in the file."""
    return tensors_of(read_torch_file(saved(content), "the file").content, "the file")
