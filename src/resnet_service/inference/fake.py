"""A classifier without a network, for tests of this package and of applications that use it."""

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
    """Decodes images, then answers class 0 with probability 1; its maps and vectors are constant.

    Args:
        classes: Number of classes, unless ``labels`` is given.
        gate: Every answer waits until it is set.
        seconds: Time that every answer takes.
        failure: Raised instead of an answer; can be changed later, as can ``warm_up_failure``.
        labels: The classes' names.
        translations: The classes' names in other languages.

    ``started`` counts the calls, ``warm_ups`` the warm-ups, ``warmed_in`` has the names of warmed-up threads.
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
        label_set = labels or LabelSet.numbered(classes)
        self.model = ServedModel(
            name="fake",
            version="000000000000",
            metadata=ModelMetadata(arch="resnet18", num_classes=len(label_set), input_size=8, resize_size=8),
            labels=label_set,
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
        """Count the call; raise ``warm_up_failure`` if it is set."""
        self.warm_ups += 1
        if self.warm_up_failure is not None:
            raise self.warm_up_failure

    def warm_thread(self) -> None:
        """Record the thread's name."""
        self.warmed_in.add(threading.current_thread().name)

    def classify(self, data: bytes, top_k: int | None = None) -> Classification:
        """Answer class 0."""
        wanted = check_top_k(top_k, len(self.model.labels))
        begun = time.perf_counter()
        self._work()
        worked = time.perf_counter()
        decoded = decode(data)
        done = time.perf_counter()
        predictions = [
            RankedClass(label.index, label.name, 1.0 if label.index == 0 else 0.0)
            for label in self.model.labels.classes[:wanted]
        ]
        timing = Timing(1000 * (done - worked), 0, 1000 * (worked - begun), 1000 * (done - begun))
        return Classification(predictions, decoded.info, timing)

    def score(self, images: Sequence[bytes]) -> Scores:
        """Return logits of class 0 for each image."""
        self._work()
        for image in images:
            decode(image)
        return self._scores(len(images))

    def score_crops(self, crops: NDArray[np.uint8]) -> Scores:
        """Return logits of class 0 for each image."""
        self._work()
        return self._scores(len(crops))

    def explain(self, data: bytes, class_id: int | None = None, form: MapForm = "json") -> Explanation:
        """Return a map whose right half speaks for the class."""
        chosen = check_class_id(class_id or 0, len(self.model.labels))
        self._work()
        image, info = decode(data)
        values = np.array([[0, 1], [0, 1]], np.float32)
        shown = region(image.size, self.model.metadata)
        png = draw(form, image, values, shown, self.model.metadata.input_size)
        score = 1.0 if chosen == 0 else 0.0
        label = self.model.labels.classes[chosen].name
        return Explanation(chosen, label, score, values, shown, png, info, Timing(0, 0, 0, 0))

    def embed(self, data: bytes, normalise: bool = False) -> Embedding:
        """Return (2, 0, 0, 0), or (1, 0, 0, 0) if normalised."""
        self._work()
        decoded = decode(data)
        vector = np.array([1 if normalise else 2, 0, 0, 0], np.float32)
        return Embedding(vector, decoded.info, Timing(0, 0, 0, 0))

    def _work(self) -> None:
        """Count the call, wait for ``gate`` and ``seconds``, and raise ``failure`` if it is set."""
        self.started += 1
        if self._gate is not None:
            self._gate.wait()
        time.sleep(self._seconds)
        if self.failure is not None:
            raise self.failure

    def _scores(self, images: int) -> Scores:
        logits = np.zeros((images, len(self.model.labels)), np.float32)
        logits[:, 0] = 1000  # softmax gives exactly 1 and 0
        return Scores(logits, Timing(0, 0, 0, 0))
