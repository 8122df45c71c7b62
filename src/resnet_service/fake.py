"""A classifier without a network, for tests of what surrounds one; ours, and those of who builds on this package."""

import threading
import time

import numpy as np

from resnet_service.activation_map import check_class_id
from resnet_service.classifier import Classification, Embedding, Explanation, ModelIdentity, Timing
from resnet_service.decode import DecodedImage, decode
from resnet_service.labels import LabelSet
from resnet_service.metadata import ModelMetadata, Outputs, Precision
from resnet_service.overlay import MapForm, draw
from resnet_service.preprocess import region
from resnet_service.ranking import RankedClass, check_top_k


class FakeClassifier:
    """Decodes pictures for real and answers class 0 with certainty; its maps and vectors are always the same.

    ``gate``, where given, holds every answer back until it is set; ``seconds`` is what an answer takes; ``failure`` is
    raised instead of an answer, and ``warm_up_failure`` by a warm-up. The two may be changed while it serves;
    ``started`` counts the answers that were begun.
    """

    runtime_name = "fake"
    precision: Precision = "fp32"
    model = ModelIdentity("fake", "resnet18", "000000000000")
    outputs = Outputs(embedding=4, feature_map=(4, 2, 2))

    def __init__(
        self,
        classes: int = 3,
        *,
        gate: threading.Event | None = None,
        seconds: float = 0,
        failure: Exception | None = None,
    ) -> None:
        self.labels = LabelSet.numbered(classes)
        self.metadata = ModelMetadata(arch="resnet18", num_classes=classes, input_size=8, resize_size=8)
        self.warm_ups = 0
        self.started = 0
        self.failure = failure
        self.warm_up_failure: Exception | None = None
        self._gate = gate
        self._seconds = seconds

    def warm_up(self) -> None:
        """Count, so that a test sees it was called; fail where it should."""
        self.warm_ups += 1
        if self.warm_up_failure is not None:
            raise self.warm_up_failure

    def classify(self, data: bytes, top_k: int | None = None) -> Classification:
        """Answer class 0, whatever the picture shows."""
        wanted = check_top_k(top_k, len(self.labels))
        decoded = self._work(data)
        predictions = [
            RankedClass(label.index, label.name, 1.0 if label.index == 0 else 0.0)
            for label in self.labels.classes[:wanted]
        ]
        return Classification(predictions, decoded.format, decoded.width, decoded.height, Timing(0, 0, 0, 0))

    def explain(self, data: bytes, class_id: int | None = None, form: MapForm = "json") -> Explanation:
        """Answer that the right half of a picture speaks for a class, whatever it shows."""
        chosen = check_class_id(class_id or 0, len(self.labels))
        image, file_format, width, height = self._work(data)
        values = np.array([[0, 1], [0, 1]], np.float32)
        seen = region(image.size, self.metadata)
        drawn = draw(form, image, values, seen, self.metadata.input_size)
        score = 1.0 if chosen == 0 else 0.0
        label = self.labels.classes[chosen].name
        return Explanation(chosen, label, score, values, seen, drawn, file_format, width, height, Timing(0, 0, 0, 0))

    def embed(self, data: bytes, normalise: bool = False) -> Embedding:
        """Answer with (2, 0, 0, 0), or with (1, 0, 0, 0) if normalised."""
        decoded = self._work(data)
        vector = np.array([1 if normalise else 2, 0, 0, 0], np.float32)
        return Embedding(vector, decoded.format, decoded.width, decoded.height, Timing(0, 0, 0, 0))

    def _work(self, data: bytes) -> DecodedImage:
        """Do what every answer does first: take its time, fail where it should, decode."""
        self.started += 1
        if self._gate is not None:
            self._gate.wait()
        time.sleep(self._seconds)
        if self.failure is not None:
            raise self.failure
        return decode(data)
