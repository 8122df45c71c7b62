"""Layouts of architectures: keys and shapes of the ``state_dict``, and which depend on the number of classes.

The ten architectures of ``networks`` are known without PyTorch.
"""

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from resnet_service.models import networks

_FEW, _MANY = 10, 11

# Compared with a file that names no architecture: those known without PyTorch, then those that need it.
COMMON = networks.ARCHITECTURES
COMMON_WITH_PYTORCH = (
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnet_b3",
    "convnext_tiny",
    "densenet121",
    "shufflenet_v2_x1_0",
    "squeezenet1_1",
    "vgg16",
    "vgg16_bn",
    "alexnet",
    "vit_b_16",
    "swin_t",
)
# These have the same keys and shapes, but compute differently: by the weights, they cannot be told apart.
TWINS = {networks.LITE0: "timm/efficientnet_lite0"}
# So do these, but few use them: a file that names no architecture is taken for the common one, and they are named.
RARE_TWINS = {
    "resnet18": ("timm/resnetblur18",),
    "resnet50": ("timm/resnetaa50", "timm/resnetblur50"),
}


class Layout(NamedTuple):
    """``shapes`` has the shape of each tensor by its key, with ten classes.

    ``classifier`` has the keys whose first dimension is the number of classes.
    """

    arch: str
    shapes: Mapping[str, tuple[int, ...]]
    classifier: frozenset[str]

    @property
    def backbone(self) -> dict[str, tuple[int, ...]]:
        """The shapes of all tensors but those of the classifier."""
        return {key: shape for key, shape in self.shapes.items() if key not in self.classifier}


@cache
def layout_of(arch: str) -> Layout:
    """Return the layout of an architecture.

    Raises:
        UnknownArchitecture: No such architecture.
        ModuleNotFoundError: Only PyTorch knows it, and it is not installed.

    """
    if arch in networks.ARCHITECTURES:
        shapes = networks.state_shapes
    else:
        from resnet_service.models.architectures import shapes_of as shapes
    few, many = shapes(arch, _FEW), shapes(arch, _MANY)
    return Layout(arch, few, frozenset(key for key, shape in few.items() if shape != many[key]))


def archs_of(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    """Return the common architecture with exactly these keys and, but for the classifier, these shapes, and its twin.

    Returns:
        Nothing, if no common architecture has them.

    """
    for arch in (*COMMON, *COMMON_WITH_PYTORCH):
        try:
            layout = layout_of(arch)
        except ModuleNotFoundError:  # without PyTorch, the others are not known
            return ()
        if layout.shapes.keys() == shapes.keys() and all(
            shapes[key] == shape for key, shape in layout.backbone.items()
        ):
            return (arch, TWINS[arch]) if arch in TWINS else (arch,)
    return ()
