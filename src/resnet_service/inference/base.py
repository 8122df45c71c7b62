"""The protocol that every classifier implements, and what it says about the model it serves."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from resnet_service.inference.results import Classification, Embedding, Explanation, Scores
from resnet_service.models.label_translations import Translations
from resnet_service.models.labels import LabelSet
from resnet_service.models.metadata import ModelMetadata, Outputs
from resnet_service.types import MapForm, Precision


@dataclass(frozen=True)
class ServedModel:
    """A loaded model, as ``/metadata`` describes it.

    Args:
        name: The model file's name without its suffix.
        version: The first digits of the model file's SHA-256.
        metadata: What the file says about itself.
        labels: The names of its classes.
        translations: All of these names in each other language, in the same order.
        runtime: What runs the network.
        precision: What the network is computed in.
        outputs: What it answers besides scores: maps where there is a feature map, vectors where an embedding.
        prefetch: Threads that may call the classifier beyond its workers, so that a next image is always ready.

    """

    name: str
    version: str
    metadata: ModelMetadata
    labels: LabelSet
    translations: Translations = field(default_factory=dict)
    runtime: str = ""
    precision: Precision = "fp32"
    outputs: Outputs = field(default_factory=Outputs)
    prefetch: int = 0

    @property
    def arch(self) -> str:
        """The network's architecture."""
        return self.metadata.arch


class ImageClassifier(Protocol):
    """What the HTTP interface needs; ``Classifier`` is one, and tests bring others."""

    @property
    def model(self) -> ServedModel:
        """The model that answers."""
        ...

    def warm_up(self) -> None:
        """Make the first real request as fast as the later ones, or raise."""
        ...

    def warm_thread(self) -> None:
        """Make the first real request of the calling thread as fast as the later ones; ``warm_up`` went before."""
        ...

    def classify(self, data: bytes, top_k: int | None = None) -> Classification:
        """Answer for one image's encoded bytes."""
        ...

    def score(self, images: Sequence[bytes]) -> Scores:
        """Answer for each of several images' encoded bytes."""
        ...

    def score_crops(self, crops: NDArray[np.uint8]) -> Scores:
        """Answer for pixels as the network sees them, uint8 [N, S, S, 3]."""

    def explain(self, data: bytes, class_id: int | None = None, form: MapForm = "json") -> Explanation:
        """Say which places of an image speak for a class."""
        ...

    def embed(self, data: bytes, normalise: bool = False) -> Embedding:
        """Turn an image into a vector."""
        ...
