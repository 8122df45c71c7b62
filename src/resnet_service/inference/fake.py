"""A classifier without a network, for tests of what surrounds one; ours, and those of who builds on this package."""

import threading
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from resnet_service.imaging.decode import decode
from resnet_service.imaging.heatmap import draw
from resnet_service.imaging.preprocess import region
from resnet_service.inference.base import ServedModel
from resnet_service.inference.class_activation_map import check_class_id
from resnet_service.inference.ranking import RankedClass, check_top_k
from resnet_service.inference.results import Classification, Embedding, Explanation, Scores, Timing
from resnet_service.models.label_translations import Translations
from resnet_service.models.labels import LabelSet
from resnet_service.models.metadata import ModelMetadata, Outputs
from resnet_service.types import MapForm


class FakeClassifier:
    """Decodes images for real and answers class 0 with certainty; its maps and vectors are always the same.

    ``gate``, where given, holds every answer back until it is set; ``seconds`` is what an answer takes; ``failure`` is
    raised instead of an answer, and ``warm_up_failure`` by a warm-up. The two may be changed while it serves;
    ``started`` counts the answers that were begun, ``warmed_in`` names the threads that warmed up. ``labels``, where
    given, says how many classes there are and what they are called, ``translations`` what else.
    """

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
        known = labels or LabelSet.numbered(classes)
        self.model = ServedModel(
            name="fake",
            version="000000000000",
            metadata=ModelMetadata(arch="resnet18", num_classes=len(known), input_size=8, resize_size=8),
            labels=known,
            translations=translations or {},
            runtime="fake",
            outputs=Outputs(embedding=4, feature_map=(4, 2, 2)),
        )
        self.warm_ups = 0
        self.warmed_in: set[str] = set()
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

    def warm_thread(self) -> None:
        """Note the thread."""
        self.warmed_in.add(threading.current_thread().name)

    def classify(self, data: bytes, top_k: int | None = None) -> Classification:
        """Answer class 0, whatever the image shows."""
        wanted = check_top_k(top_k, len(self.model.labels))
        begun = time.perf_counter()
        self._work()
        thought = time.perf_counter()
        decoded = decode(data)
        done = time.perf_counter()
        predictions = [
            RankedClass(label.index, label.name, 1.0 if label.index == 0 else 0.0)
            for label in self.model.labels.classes[:wanted]
        ]
        timing = Timing(1000 * (done - thought), 0, 1000 * (thought - begun), 1000 * (done - begun))
        return Classification(predictions, decoded.info, timing)

    def score(self, images: Sequence[bytes]) -> Scores:
        """Answer class 0 for each."""
        self._work()
        for image in images:
            decode(image)
        return self._scores(len(images))

    def score_crops(self, crops: NDArray[np.uint8]) -> Scores:
        """Answer class 0 for each."""
        self._work()
        return self._scores(len(crops))

    def explain(self, data: bytes, class_id: int | None = None, form: MapForm = "json") -> Explanation:
        """Answer that the right half of an image speaks for a class, whatever it shows."""
        chosen = check_class_id(class_id or 0, len(self.model.labels))
        self._work()
        image, info = decode(data)
        values = np.array([[0, 1], [0, 1]], np.float32)
        seen = region(image.size, self.model.metadata)
        drawn = draw(form, image, values, seen, self.model.metadata.input_size)
        score = 1.0 if chosen == 0 else 0.0
        label = self.model.labels.classes[chosen].name
        return Explanation(chosen, label, score, values, seen, drawn, info, Timing(0, 0, 0, 0))

    def embed(self, data: bytes, normalise: bool = False) -> Embedding:
        """Answer with (2, 0, 0, 0), or with (1, 0, 0, 0) if normalised."""
        self._work()
        decoded = decode(data)
        vector = np.array([1 if normalise else 2, 0, 0, 0], np.float32)
        return Embedding(vector, decoded.info, Timing(0, 0, 0, 0))

    def _work(self) -> None:
        """Do what every answer does first: take its time, and fail where it should."""
        self.started += 1
        if self._gate is not None:
            self._gate.wait()
        time.sleep(self._seconds)
        if self.failure is not None:
            raise self.failure

    def _scores(self, images: int) -> Scores:
        logits = np.zeros((images, len(self.model.labels)), np.float32)
        logits[:, 0] = 1000  # of which softmax makes exactly 1 and 0
        return Scores(logits, Timing(0, 0, 0, 0))
