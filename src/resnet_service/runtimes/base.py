"""The protocol of runtimes: from uint8 pixels to float32 logits, embedding and feature map."""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from resnet_service.models.metadata import ModelMetadata, Outputs
from resnet_service.types import Precision


class Features(NamedTuple):
    """The outputs of a network for one image, all float32.

    ``logits`` [classes]; ``embedding`` [D], the input of the last linear layer; ``feature_map`` [D, h, w], whose mean
    over h and w is the embedding, or ``None`` if the network does not end in global average pooling.
    """

    logits: NDArray[np.float32]
    embedding: NDArray[np.float32]
    feature_map: NDArray[np.float32] | None


class Runtime(Protocol):
    """A loaded network. Thread-safe."""

    @property
    def name(self) -> str:
        """The runtime's name, as ``/metadata`` shows it."""
        ...

    @property
    def precision(self) -> Precision:
        """The precision of the computation; with ``int8``, layers that are not quantized run in FP32."""
        ...

    @property
    def metadata(self) -> ModelMetadata:
        """The metadata that came with the weights."""
        ...

    @property
    def sha256(self) -> str:
        """SHA-256 of the model file, from which the model's version is derived."""
        ...

    @property
    def prefetch(self) -> int:
        """Calls to queue beyond the workers, so that the runtime's own threads never idle; 0 if it has no threads."""
        ...

    def logits(self, crops: NDArray[np.uint8], *, prefer_latency: bool = True) -> NDArray[np.float32]:
        """Run the network.

        Args:
            crops: uint8 [N, S, S, 3], RGB in 0 ... 255.
            prefer_latency: Use all CPUs for this call, since no other image is being processed.

        Returns:
            float32 [N, classes].

        """
        ...

    @property
    def outputs(self) -> Outputs:
        """The outputs of ``features`` besides logits."""
        ...

    @property
    def logits_only(self) -> str:
        """The reason, for clients, if the file or the runtime limits the outputs to logits; otherwise empty."""
        ...

    @property
    def class_weights(self) -> NDArray[np.float32] | None:
        """The last linear layer's weights, dequantized to float32 [classes, D]; ``None`` if there are no maps."""
        ...

    def features(self, pixels: NDArray[np.uint8], *, prefer_latency: bool = True) -> Features:
        """Run the network on one image, uint8 [S, S, 3]; requires an embedding in ``outputs``."""
        ...
