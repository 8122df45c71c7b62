"""The weights of a checkpoint: their keys, the checks of their tensors, and the network built from them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from resnet_service.errors import ClassCountMismatch, NonFiniteWeights, StateDictMismatch, UnreadableModel
from resnet_service.models import architectures
from resnet_service.models.checkpoint.contents import clean_keys, shapes_of
from resnet_service.models.checkpoint.keys import COUNTER, check_keys, first_of
from resnet_service.models.metadata import ModelMetadata


def check_tensors(state: Any, where: str) -> dict[str, Tensor]:
    """Return ``state`` with clean keys.

    Raises:
        UnreadableModel: Not a dict of tensors, or empty.
        StateDictMismatch: A tensor is sparse, quantized or complex.

    """
    if not isinstance(state, Mapping) or not state:
        raise UnreadableModel(f"{where} has no weights: its state_dict is empty or not a dict.")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise UnreadableModel(f"{where} is not a checkpoint: {str(key)[:80]!r} is not a tensor.")
        if value.layout != torch.strided or value.is_quantized or value.is_complex():
            raise StateDictMismatch(f"{where}: {key} is a sparse, quantized or complex tensor; only dense ones load.")
    return clean_keys(state)


def build_network(state: Mapping[str, Tensor], metadata: ModelMetadata, where: str) -> nn.Module:
    """Build the network that ``metadata`` names and load ``state`` into it.

    Raises:
        ClassCountMismatch: The rows of the last layer are not the number of classes.
        StateDictMismatch: Keys or shapes differ from the architecture's.
        NonFiniteWeights: NaN or infinity among the weights.

    """
    for key, rows in architectures.classifier_rows(metadata.arch, shapes_of(state)).items():
        if rows != metadata.num_classes:
            raise ClassCountMismatch(
                f"{where} says num_classes={metadata.num_classes}, but its classifier ({key}) has {rows} rows."
            )
    model = architectures.build(metadata.arch, metadata.num_classes)
    own = model.state_dict()
    check_keys(shapes_of(state), shapes_of(own), metadata.arch, where)
    non_finite = [key for key, tensor in state.items() if not torch.isfinite(tensor.float()).all()]
    if non_finite:
        raise NonFiniteWeights(f"{where} has NaN or infinity in {first_of(non_finite)}; the training has diverged.")
    counters = {key: tensor for key, tensor in own.items() if key.endswith(COUNTER)}
    model.load_state_dict({**counters, **state})
    return model
