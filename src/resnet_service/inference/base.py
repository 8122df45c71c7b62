"""The protocol of classifiers, and the description of the model that one serves."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from resnet_service.inference.results import Classification, Embedding, Explanation, Scores
from resnet_service.models.class_summary import class_summary
from resnet_service.models.label_translations import ORIGINAL, Language, Translations
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
        translations: The class names in other languages, in the same order.
        runtime: The runtime that runs the network.
        precision: The precision that the network is computed in.
        outputs: Outputs besides scores: an embedding, and a feature map for explanations.
        prefetch: Threads beyond the workers that may call the classifier, so that a next image is always ready.

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

    @property
    def class_summary(self) -> dict[Language, str]:
        """One line about the classes, in each language that has their names."""
        names: dict[Language, Sequence[str]] = {ORIGINAL: [label.name for label in self.labels.classes]}
        return {language: class_summary(known, language) for language, known in (names | {**self.translations}).items()}


class ImageClassifier(Protocol):
    """A classifier as the HTTP interface, batch jobs and evaluations use it.

    ``Classifier`` and ``FakeClassifier`` implement it.
    """

    @property
    def model(self) -> ServedModel:
        """The model that answers."""
        ...

    def warm_up(self) -> None:
        """Run the network once, so that the first request is as fast as later ones; raise if it fails."""
        ...

    def warm_thread(self) -> None:
        """Warm up the calling thread; call ``warm_up`` first."""
        ...

    def classify(self, data: bytes, top_k: int | None = None) -> Classification:
        """Classify one encoded image."""
        ...

    def score(self, images: Sequence[bytes]) -> Scores:
        """Return the logits of several encoded images."""
        ...

    def score_crops(self, crops: NDArray[np.uint8]) -> Scores:
        """Return the logits of preprocessed pixels, uint8 [N, S, S, 3]."""
        ...

    def explain(self, data: bytes, class_id: int | None = None, form: MapForm = "json") -> Explanation:
        """Return the class activation map of one encoded image."""
        ...

    def embed(self, data: bytes, normalise: bool = False) -> Embedding:
        """Return the embedding of one encoded image."""
        ...
