"""The protocol that every runtime implements: uint8 pixels to float32 logits, and what comes before them."""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from resnet_service.models.metadata import ModelMetadata, Outputs
from resnet_service.types import Precision


class Features(NamedTuple):
    """What a network makes of one image, all float32.

    ``logits`` [classes]; ``embedding`` [D], what its last linear layer takes; ``feature_map`` [D, h, w], the last one,
    whose mean over h and w is the embedding, or ``None`` of networks that do not end so.
    """

    logits: NDArray[np.float32]
    embedding: NDArray[np.float32]
    feature_map: NDArray[np.float32] | None


class Runtime(Protocol):
    """A loaded network. Safe to call from several threads at once."""

    @property
    def name(self) -> str:
        """What runs it, as ``/metadata`` shows it."""
        ...

    @property
    def precision(self) -> Precision:
        """What it computes in; with ``int8``, what is not quantized is FP32."""
        ...

    @property
    def metadata(self) -> ModelMetadata:
        """The metadata that came with the weights."""
        ...

    @property
    def sha256(self) -> str:
        """SHA-256 of the model file; the model's version derives from it."""
        ...

    @property
    def prefetch(self) -> int:
        """Calls that it can queue beyond its workers, lest threads of its own stand idle; 0 where it has none."""
        ...

    def logits(self, crops: NDArray[np.uint8], *, prefer_latency: bool = True) -> NDArray[np.float32]:
        """Run the network.

        Args:
            crops: uint8 [N, S, S, 3], RGB in 0 ... 255.
            prefer_latency: No other image is being worked on, so that all CPUs may be spent on this one.

        Returns:
            float32 [N, classes].

        """
        ...

    @property
    def outputs(self) -> Outputs:
        """What ``features`` gives besides logits."""
        ...

    @property
    def logits_only(self) -> str:
        """Why that is nothing, where it is not the network's own nature: a sentence for clients; else empty."""
        ...

    @property
    def class_weights(self) -> NDArray[np.float32] | None:
        """The last linear layer's weights as they are multiplied with, float32 [classes, D], if there are maps."""
        ...

    def features(self, pixels: NDArray[np.uint8], *, prefer_latency: bool = True) -> Features:
        """Run the network on one image, uint8 [S, S, 3]; only where ``outputs`` has an embedding."""
        ...
