"""What the file formats of weights share: the type of an array, limits on tensors, and the widening of BF16."""

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# The largest networks have a few thousand tensors, and an optimizer keeps three for each.
MAX_TENSORS = 20_000
MAX_DIMENSIONS = 8


class Shaped(Protocol):
    """A tensor in a file, an array, or a tensor of PyTorch."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of its dimensions."""
        ...


def are_sizes(values: Any, below: float = math.inf) -> bool:
    """Whether ``values`` is a list or tuple of integers from 0 on; a bool is an int, too, but not here."""
    return isinstance(values, list | tuple) and all(type(value) is int and 0 <= value < below for value in values)


def widen_bf16(bits: Array) -> NDArray[np.float32]:
    """Return the numbers whose upper halves are ``bits``, an array of uint16, as a copy."""
    widened: Array = bits.astype(np.uint32)
    widened <<= 16  # in place: of an array without dimensions, << would make a scalar
    return widened.view(np.float32)
