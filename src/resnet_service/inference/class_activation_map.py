"""Class activation maps: the places of an image that speak for a class; pure functions.

Class activation mapping (Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016, equation 2):
where a network ends in global average pooling and one linear layer, the logit of class c is

    b_c + sum_k w_ck mean_xy f_k(x, y)  =  b_c + mean_xy M_c(x, y)   with   M_c(x, y) = sum_k w_ck f_k(x, y)

so M_c is what each place adds to the logit. The equation is exact.
"""

import numpy as np
from numpy.typing import NDArray

from resnet_service.errors import InvalidClassId, InvalidModelOutput


def activation_map(feature_map: NDArray[np.float32], class_weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum the channels of the last feature map, weighted by one class's weights.

    Args:
        feature_map: float32 [C, h, w].
        class_weights: float32 [C], the class's row of the last layer's weights.

    Returns:
        float32 [h, w], in units of logits: its mean is the logit without the bias. A negative value speaks against the
        class.

    Raises:
        InvalidModelOutput: NaN or infinity.

    """
    with np.errstate(over="ignore", invalid="ignore"):  # infinity is checked below
        values = np.tensordot(class_weights, feature_map, axes=1)
    if not np.isfinite(values).all():
        raise InvalidModelOutput("The model's feature map has NaN or infinity.")
    return values


def check_class_id(class_id: int, classes: int) -> int:
    """Return ``class_id`` if it is one of ``classes``.

    Raises:
        InvalidClassId: It is below 0, or ``classes`` or above.

    """
    if not 0 <= class_id < classes:
        raise InvalidClassId(
            f"class_id is {class_id}; it must be between 0 and {classes - 1}, because this model has {classes} classes."
        )
    return class_id
