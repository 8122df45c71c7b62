"""The one straight line from a file's bytes to an answer; synchronous, and called by HTTP, CLI and tests alike."""

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, Self

import numpy as np

from resnet_service.decode import DEFAULT_MAX_PIXELS, decode
from resnet_service.labels import LabelSet, label_file_for
from resnet_service.metadata import ModelMetadata, Precision
from resnet_service.preprocess import crop
from resnet_service.ranking import RankedClass, check_top_k, rank
from resnet_service.runtime import Runtime, RuntimeName, open_runtime
from resnet_service.translations import Translations, translations_beside

_VERSION_DIGITS = 12

Fidelity = Literal["exact", "fast"]

# A JPEG that is decoded at a reduced scale keeps at least this many times the pixels that the resize asks for: at one
# time, the resize has nothing left to average, and pictures differ visibly from the reference.
_DRAFT_MARGIN = 2


class ModelIdentity(NamedTuple):
    """What is being served: the file's ``name``, its ``arch``, and a ``version`` from the file's SHA-256."""

    name: str
    arch: str
    version: str


class Timing(NamedTuple):
    """Milliseconds spent in each stage of one answer."""

    decode: float
    preprocess: float
    inference: float
    total: float


class Classification(NamedTuple):
    """The answer for one picture: most probable classes first; format and displayed size of what was sent."""

    predictions: list[RankedClass]
    format: str
    width: int
    height: int
    timing_ms: Timing


class ImageClassifier(Protocol):
    """What the HTTP layer needs; ``Classifier`` is one, and tests hand in others."""

    @property
    def model(self) -> ModelIdentity:
        """What is being served."""
        ...

    @property
    def metadata(self) -> ModelMetadata:
        """The model's metadata."""
        ...

    @property
    def labels(self) -> LabelSet:
        """The names of the model's classes."""
        ...

    @property
    def translations(self) -> Translations:
        """All of these names in each other language that they are known in, in the same order."""
        ...

    @property
    def runtime_name(self) -> str:
        """What runs the network."""
        ...

    @property
    def precision(self) -> Precision:
        """What the network is computed in."""
        ...

    def warm_up(self) -> None:
        """Make the first real request as fast as the later ones, or raise."""
        ...

    def classify(self, data: bytes, top_k: int | None = None) -> Classification:
        """Answer for one picture's encoded bytes."""
        ...


class Classifier:
    """Decoding, preprocessing, a runtime and ranking, put together. Safe to call from several threads at once."""

    def __init__(
        self,
        runtime: Runtime,
        labels: LabelSet,
        *,
        translations: Translations | None = None,
        name: str = "model",
        max_pixels: int = DEFAULT_MAX_PIXELS,
        decoding: Fidelity = "fast",
    ) -> None:
        self._runtime = runtime
        self._max_pixels = max_pixels
        self._exact = decoding == "exact"
        self._enough = None if self._exact else _DRAFT_MARGIN * runtime.metadata.resize_size
        self._in_work = 0
        self._in_work_lock = threading.Lock()
        self.labels = labels
        self.translations: Translations = translations or {}
        self.metadata = runtime.metadata
        self.runtime_name = runtime.name
        self.precision = runtime.precision
        self.model = ModelIdentity(name, runtime.metadata.arch, runtime.sha256[:_VERSION_DIGITS])

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        runtime: RuntimeName = "auto",
        arch: str | None = None,
        label_file: Path | None = None,
        workers: int = 1,
        threads: int = 0,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        decoding: Fidelity = "fast",
    ) -> Self:
        """Load a model file and its labels.

        Args:
            path: The model file, a checkpoint or a packed one.
            runtime: What runs it; ``auto`` for the one that fits the file.
            arch: Architecture of a bare ``state_dict``; a checkpoint names its own.
            label_file: Label set to use instead of searching the one that the model names.
            workers: Pictures that may be worked on at once.
            threads: CPU threads for one inference; 0 for the best that the runtime can do.
            max_pixels: Pictures with more are refused before they are decoded.
            decoding: ``exact`` prepares pixels as the reference transforms do, to the bit; ``fast`` decodes large JPEGs
                at a reduced scale and resizes only what the crop shows.

        Raises:
            ModelError: The model or its labels are missing, damaged, unsafe or contradict each other.
            UnsuitableRuntime: The runtime does not run this kind of file.
            RuntimeUnavailable: The packages that the model needs are not installed.

        """
        opened = open_runtime(path, runtime, arch=arch, workers=workers, threads=threads)
        file = label_file_for(opened.metadata, path, label_file)
        return cls(
            opened,
            LabelSet.numbered(opened.metadata.num_classes) if file is None else file.labels,
            translations=None if file is None else translations_beside(file),
            name=path.stem,
            max_pixels=max_pixels,
            decoding=decoding,
        )

    def warm_up(self) -> None:
        """Run a grey picture through network and ranking, so that a model that cannot answer never gets ready.

        Raises:
            UnsoundOutput: The network does not give one finite number for each label.

        """
        side = self.metadata.input_size
        grey = np.full((1, side, side, 3), 128, dtype=np.uint8)
        for alone in (True, False):
            rank(self._runtime.logits(grey, alone=alone)[0], self.labels, 1)

    def classify(self, data: bytes, top_k: int | None = None) -> Classification:
        """Answer for one picture.

        Args:
            data: The encoded file.
            top_k: Number of classes to name, 1 ... number of classes; ``None`` for the default of 5.

        Raises:
            RequestError: ``top_k`` or the picture cannot be answered; the subclass says why.
            UnsoundOutput: The network failed.

        """
        wanted = check_top_k(top_k, len(self.labels))
        marks = [time.perf_counter()]
        with self._working():
            decoded = decode(data, self._max_pixels, enough=self._enough)
            marks.append(time.perf_counter())
            pixels = crop(decoded.image, self.metadata, exact=self._exact)
            marks.append(time.perf_counter())
            logits = self._runtime.logits(pixels[np.newaxis], alone=self._in_work == 1)
        predictions = rank(logits[0], self.labels, wanted)
        marks.append(time.perf_counter())
        decoding, preprocessing, inference = (1000 * (end - begin) for begin, end in itertools.pairwise(marks))
        timing = Timing(decoding, preprocessing, inference, total=decoding + preprocessing + inference)
        return Classification(predictions, decoded.format, decoded.width, decoded.height, timing)

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Count the pictures in work. Where one decodes beside it, an inference on all CPUs would slow down both."""
        with self._in_work_lock:
            self._in_work += 1
        try:
            yield
        finally:
            with self._in_work_lock:
                self._in_work -= 1
