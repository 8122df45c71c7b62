"""The network of a checkpoint in PyTorch, built from its weights after they are compared with its architecture."""

from collections.abc import Mapping

from torch import Tensor, nn

from resnet_service.errors import ClassCountMismatch
from resnet_service.models import architectures
from resnet_service.models.checkpoint.contents import shapes_of
from resnet_service.models.checkpoint.keys import COUNTER, check_finite, check_keys
from resnet_service.models.layouts import layout_of
from resnet_service.models.metadata import ModelMetadata


def build_network(state: Mapping[str, Tensor], metadata: ModelMetadata, where: str) -> nn.Module:
    """Build the network that ``metadata`` names and load ``state`` into it.

    Raises:
        ClassCountMismatch: The rows of the last layer are not the number of classes.
        StateDictMismatch: Keys or shapes differ from the architecture's.
        NonFiniteWeights: NaN or infinity among the weights.

    """
    shapes = shapes_of(state)
    layout = layout_of(metadata.arch)
    for key in layout.shapes:
        if key in layout.classifier and shapes.get(key, ()) and shapes[key][0] != metadata.num_classes:
            raise ClassCountMismatch(
                f"{where} says num_classes={metadata.num_classes}, but its classifier ({key}) has {shapes[key][0]} "
                "rows."
            )
    expected = {
        key: (metadata.num_classes, *shape[1:]) if key in layout.classifier else shape
        for key, shape in layout.shapes.items()
    }
    # Before the network is built: a small file may name one of gigabytes.
    check_keys(shapes, expected, metadata.arch, where)
    check_finite({key: tensor.float().numpy() for key, tensor in state.items()}, where)
    model = architectures.build(metadata.arch, metadata.num_classes)
    counters = {key: tensor for key, tensor in model.state_dict().items() if key.endswith(COUNTER)}
    model.load_state_dict({**counters, **state})
    return model
