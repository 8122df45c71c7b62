"""A classifier without a network, for tests of what surrounds one; ours, and those of who builds on this package."""

import threading
import time

from resnet_service.classifier import Classification, ModelIdentity, Timing
from resnet_service.decode import decode
from resnet_service.labels import LabelSet
from resnet_service.metadata import ModelMetadata, Precision
from resnet_service.ranking import RankedClass, check_top_k
from resnet_service.translations import Translations


class FakeClassifier:
    """Decodes pictures for real and answers class 0 with certainty.

    ``gate``, where given, holds every answer back until it is set; ``seconds`` is what an answer takes; ``failure`` is
    raised instead of an answer, and ``warm_up_failure`` by a warm-up. The two may be changed while it serves;
    ``started`` counts the answers that were begun. ``labels``, where given, says how many classes there are and what
    they are called, ``translations`` what else.
    """

    runtime_name = "fake"
    precision: Precision = "fp32"
    model = ModelIdentity("fake", "resnet18", "000000000000")

    def __init__(
        self,
        classes: int = 3,
        *,
        gate: threading.Event | None = None,
        seconds: float = 0,
        failure: Exception | None = None,
        labels: LabelSet | None = None,
        translations: Translations | None = None,
    ) -> None:
        self.labels = labels or LabelSet.numbered(classes)
        self.translations: Translations = translations or {}
        self.metadata = ModelMetadata(arch="resnet18", num_classes=len(self.labels), input_size=8, resize_size=8)
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
        self.started += 1
        if self._gate is not None:
            self._gate.wait()
        time.sleep(self._seconds)
        if self.failure is not None:
            raise self.failure
        decoded = decode(data)
        predictions = [
            RankedClass(label.index, label.name, 1.0 if label.index == 0 else 0.0)
            for label in self.labels.classes[:wanted]
        ]
        return Classification(predictions, decoded.format, decoded.width, decoded.height, Timing(0, 0, 0, 0))
