"""The path from an image's bytes to an answer: synchronous, and shared by HTTP, command line, batches and tests."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from resnet_service.defaults import DEFAULT_MAX_DECODING_BYTES, DEFAULT_MAX_PIXELS
from resnet_service.errors import InvalidModelOutput, OutputUnavailable, RequestError, TooManyPixels
from resnet_service.imaging.decode import DRAFT_MARGIN, DecodedImage, ImageInfo, decode
from resnet_service.imaging.heatmap import draw
from resnet_service.imaging.preprocess import Region, crop, crop_bytes, region
from resnet_service.inference.base import ServedModel
from resnet_service.inference.class_activation_map import activation_map, check_class_id
from resnet_service.inference.decoding_budget import taken_from
from resnet_service.inference.ranking import check_logits, check_top_k, rank, softmax
from resnet_service.inference.results import Classification, Embedding, Explanation, Scores, Timing
from resnet_service.models.architecture_names import canonical_for
from resnet_service.models.label_translations import Translations, translations_beside
from resnet_service.models.labels import LabelSet, label_file_for, labels_of
from resnet_service.runtimes.base import Features, Runtime
from resnet_service.runtimes.registry import open_runtime
from resnet_service.system.budget import SharedBudget
from resnet_service.types import Fidelity, MapForm, RuntimeName

_VERSION_DIGITS = 12


@dataclass(frozen=True)
class ClassifierConfig:
    """How a model file is opened and run.

    Args:
        runtime: Runtime; ``auto`` for the one that fits the file.
        arch: Architecture of a bare ``state_dict``; a checkpoint names its own.
        label_file: Label set to use instead of the one that the model names.
        workers: Images to decode at once, and inferences to run at once.
        threads: CPU threads of one inference; 0 lets the runtime choose.
        max_pixels: Images with more pixels are refused before decoding.
        decoding: ``exact`` gives the pixels of the reference transforms, bit for bit; ``fast`` decodes large JPEGs at a
            reduced scale and resizes only the part that the crop shows.
        max_decoding_bytes: Memory for decoding, of all images together.
        budget: That memory, if other processes share it; instead of ``max_decoding_bytes``.

    """

    runtime: RuntimeName = "auto"
    arch: str | None = None
    label_file: Path | None = None
    workers: int = 1
    threads: int = 0
    max_pixels: int = DEFAULT_MAX_PIXELS
    decoding: Fidelity = "fast"
    max_decoding_bytes: int = DEFAULT_MAX_DECODING_BYTES
    budget: SharedBudget | None = None


DEFAULT_CONFIG = ClassifierConfig()


class Classifier:
    """Decoder, preprocessing, runtime and ranking combined. Thread-safe."""

    def __init__(
        self,
        runtime: Runtime,
        labels: LabelSet,
        *,
        name: str = "model",
        translations: Translations | None = None,
        config: ClassifierConfig = DEFAULT_CONFIG,
    ) -> None:
        self._runtime = runtime
        # Decoded images dominate a request's memory, so at most ``workers`` exist at once; prefetching threads hold
        # crops only. More decoders than CPUs would not be faster.
        self._decoders = threading.Semaphore(config.workers)
        self._budget = config.budget or SharedBudget(config.max_decoding_bytes)
        self._max_pixels = config.max_pixels
        self._exact = config.decoding == "exact"
        self._min_side = None if self._exact else DRAFT_MARGIN * runtime.metadata.resize_size
        self._active = 0
        self._active_lock = threading.Lock()
        self.model = ServedModel(
            name=name,
            version=runtime.sha256[:_VERSION_DIGITS],
            metadata=runtime.metadata,
            labels=labels,
            translations=translations or {},
            runtime=runtime.name,
            precision=runtime.precision,
            outputs=runtime.outputs,
            prefetch=runtime.prefetch,
        )

    @classmethod
    def open(cls, path: Path, config: ClassifierConfig = DEFAULT_CONFIG) -> Self:
        """Load a model file, checkpoint or exported model, and its labels.

        Raises:
            ModelError: The model or its labels are missing, damaged, unsafe or contradictory.
            UnsuitableRuntime: The runtime does not run this kind of file.
            RuntimeUnavailable: The packages that the model needs are not installed.

        """
        arch = canonical_for(path, config.arch)
        runtime = open_runtime(path, config.runtime, arch=arch, workers=config.workers, threads=config.threads)
        file = label_file_for(runtime.metadata, path, config.label_file)
        labels = labels_of(runtime.metadata, file)
        translations = None if file is None else translations_beside(file)
        return cls(runtime, labels, name=path.stem, translations=translations, config=config)

    def warm_up(self) -> None:
        """Run a grey image through every output, so that a model that cannot answer never becomes ready.

        Raises:
            InvalidModelOutput: The network's logits are not one finite number for each label, or another output is not
                finite.

        """
        grey = self._grey()
        for prefer_latency in (True, False):
            rank(self._runtime.logits(grey, prefer_latency=prefer_latency)[0], self.model.labels, 1)
        if self.model.outputs.embedding is not None:
            features = self._runtime.features(grey[0])
            _check_embedding(features.embedding)
            if self._runtime.class_weights is not None:
                _map_of(features, self._runtime.class_weights[0])

    def warm_thread(self) -> None:
        """Run a grey image in the calling thread; ``warm_up`` has checked the outputs.

        Raises:
            InvalidModelOutput: The network failed.

        """
        rank(self._runtime.logits(self._grey(), prefer_latency=False)[0], self.model.labels, 1)

    def classify(self, data: bytes, top_k: int | None = None) -> Classification:
        """Classify one image.

        Args:
            data: The encoded file.
            top_k: Number of classes to return, 1 ... number of classes; ``None`` for ``DEFAULT_TOP_K``.

        Raises:
            RequestError: ``top_k`` or the image is invalid; the subclass says why.
            InvalidModelOutput: The network failed.

        """
        wanted = check_top_k(top_k, len(self.model.labels))
        watch = _Stopwatch()
        with self._working():
            info, pixels = self._crop_of(data, watch)
            logits = self._runtime.logits(pixels[np.newaxis], prefer_latency=self._active == 1)
        predictions = rank(logits[0], self.model.labels, wanted)
        watch.mark()
        return Classification(predictions, info, watch.timing())

    def explain(self, data: bytes, class_id: int | None = None, form: MapForm = "json") -> Explanation:
        """Compute the class activation map of one image.

        Args:
            data: The encoded file.
            class_id: Index of the class; the most probable class by default.
            form: ``overlay`` or ``map`` also draws the map as PNG.

        Raises:
            RequestError: ``class_id`` or the image is invalid; the subclass says why.
            OutputUnavailable: The network's last layers do not allow a map, or the file gives scores only.
            InvalidModelOutput: The network failed.

        """
        asked = None if class_id is None else check_class_id(class_id, len(self.model.labels))
        weights = self._runtime.class_weights
        if weights is None:
            raise OutputUnavailable(
                self._runtime.logits_only
                or "Class activation maps need a network that ends in global average pooling and one linear layer. "
                f"{self.model.metadata.arch} does not, so its answers cannot be explained."
            )
        watch = _Stopwatch()
        with self._decoders, taken_from(self._budget) as take:  # held until the map is drawn on the decoded image
            with self._working():
                decoded, pixels = self._prepare(data, watch, take)
                features = self._runtime.features(pixels, prefer_latency=self._active == 1)
            (best,) = rank(features.logits, self.model.labels, 1)
            chosen = best.class_id if asked is None else asked
            values = _map_of(features, weights[chosen])
            watch.mark()
            shown = region(decoded.image.size, self.model.metadata)
            png = draw(form, decoded.image, values, shown, self.model.metadata.input_size)
            displayed, info = _as_displayed(shown, decoded), decoded.info
            del decoded  # before its memory counts as free
        return Explanation(
            chosen,
            self.model.labels.classes[chosen].name,
            float(softmax(features.logits)[chosen]),
            values,
            displayed,
            png,
            info,
            watch.timing(),
        )

    def embed(self, data: bytes, normalise: bool = False) -> Embedding:
        """Return the input of the network's last layer as a vector; similar images have similar vectors.

        Args:
            data: The encoded file.
            normalise: Scale the vector to length 1, so that a dot product is the cosine; a zero vector stays zero.

        Raises:
            RequestError: The image is invalid; the subclass says why.
            OutputUnavailable: The network does not end in a linear layer, or the file gives scores only.
            InvalidModelOutput: The network failed.

        """
        if self.model.outputs.embedding is None:
            raise OutputUnavailable(
                self._runtime.logits_only
                or f"{self.model.metadata.arch} does not end in a linear layer; this model gives no embeddings."
            )
        watch = _Stopwatch()
        with self._working():
            info, pixels = self._crop_of(data, watch)
            vector = self._runtime.features(pixels, prefer_latency=self._active == 1).embedding
        _check_embedding(vector)
        length = float(np.linalg.norm(vector.astype(np.float64)))
        if normalise and length > 0:
            vector = (vector / length).astype(np.float32)
        watch.mark()
        return Embedding(vector, info, watch.timing())

    def _grey(self) -> NDArray[np.uint8]:
        side = self.model.metadata.input_size
        return np.full((1, side, side, 3), 128, dtype=np.uint8)

    def _crop_of(
        self, data: bytes, watch: "_Stopwatch", max_pixels: int | None = None
    ) -> tuple[ImageInfo, NDArray[np.uint8]]:
        """Return the image's description and its crop, uint8 [S, S, 3]; the decoded image is freed."""
        with self._decoders, taken_from(self._budget) as take:
            decoded, pixels = self._prepare(data, watch, take, max_pixels)
            info = decoded.info
            del decoded  # before its memory counts as free
            return info, pixels

    def _prepare(
        self, data: bytes, watch: "_Stopwatch", take: Callable[[int], None], max_pixels: int | None = None
    ) -> tuple[DecodedImage, NDArray[np.uint8]]:
        """Return the upright image and its crop, uint8 [S, S, 3]."""

        def reserve(decoding: int, size: tuple[int, int]) -> None:
            take(max(decoding, crop_bytes(size, self.model.metadata, exact=self._exact)))

        limit = self._max_pixels if max_pixels is None else max_pixels
        decoded = decode(data, limit, min_side=self._min_side, reserve=reserve)
        watch.mark()
        pixels = crop(decoded.image, self.model.metadata, exact=self._exact)
        watch.mark()
        return decoded, pixels

    def score(self, images: Sequence[bytes]) -> Scores:
        """Return the logits of several images, one after the other; ``max_pixels`` bounds their sum.

        Args:
            images: The encoded files.

        Raises:
            RequestError: An image is invalid; the subclass says why, and the message names the image.
            InvalidModelOutput: The network failed.

        """
        logits = np.empty((len(images), len(self.model.labels)), np.float32)
        spent = np.zeros(len(Timing._fields))
        pixels_left = self._max_pixels
        with self._working():
            # One image at a time, so that memory does not grow with the number of images.
            for number, data in enumerate(images):
                watch = _Stopwatch()
                try:
                    info, pixels = self._crop_of(data, watch, pixels_left)
                except RequestError as error:
                    if len(images) == 1:
                        raise
                    reason = (
                        f"the images of a request may have {self._max_pixels:,} pixels together; this one exceeds what "
                        "the others left."
                        if isinstance(error, TooManyPixels)
                        else error
                    )
                    raise type(error)(f"Image {number + 1} of {len(images)}: {reason}") from error
                pixels_left -= info.width * info.height
                logits[number] = self._checked_logits(pixels[np.newaxis])[0]
                watch.mark()
                spent += watch.timing()
        return Scores(logits, Timing(*spent.tolist()))

    def score_crops(self, crops: NDArray[np.uint8]) -> Scores:
        """Return the logits of preprocessed pixels.

        Args:
            crops: uint8 [N, S, S, 3], RGB in 0 ... 255, S = ``input_size``.

        Raises:
            InvalidModelOutput: The network failed.

        """
        begun = time.perf_counter()
        with self._working():
            logits = self._checked_logits(crops)
        spent = 1000 * (time.perf_counter() - begun)
        return Scores(logits, Timing(0, 0, spent, total=spent))

    def _checked_logits(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        logits = self._runtime.logits(crops, prefer_latency=self._active == 1)
        for row in logits:
            check_logits(row, self.model.labels)
        return logits

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Count the active calls. An inference takes all CPUs only if it is alone, since others may be decoding."""
        with self._active_lock:
            self._active += 1
        try:
            yield
        finally:
            with self._active_lock:
                self._active -= 1


class _Stopwatch:
    """Measures decoding, preprocessing and inference; call ``mark`` at the end of each."""

    def __init__(self) -> None:
        self._marks = [time.perf_counter()]

    def mark(self) -> None:
        self._marks.append(time.perf_counter())

    def timing(self) -> Timing:
        decoding, preprocessing, inference = (1000 * (end - begin) for begin, end in itertools.pairwise(self._marks))
        return Timing(decoding, preprocessing, inference, total=decoding + preprocessing + inference)


def _check_embedding(vector: NDArray[np.float32]) -> None:
    if not np.isfinite(vector).all():
        raise InvalidModelOutput("The model's embedding has NaN or infinity.")


def _map_of(features: Features, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the activation map, float32 [h, w], of the class with these last-layer weights, [D]."""
    if features.feature_map is None:
        raise InvalidModelOutput("The network gave no feature map.")
    return activation_map(features.feature_map, weights)


def _as_displayed(shown: Region, decoded: DecodedImage) -> Region:
    """Scale a region of the decoded image, which may be at a reduced scale, to the image as displayed."""
    across, down = decoded.info.width / decoded.image.width, decoded.info.height / decoded.image.height
    return Region(shown.left * across, shown.top * down, shown.width * across, shown.height * down)
