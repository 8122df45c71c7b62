"""Import of an ONNX file of another maker as an exported model.

The structure is checked as for exported models before the ``onnx`` package parses the file. OpenVINO, which will serve
the model, answers a trial image. So does ONNX's own reference implementation, which computes the original file in
numpy, and both must agree.
"""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from resnet_service.errors import (
    AccuracyLossExceeded,
    ClassCountMismatch,
    FileNotWritten,
    InvalidMetadata,
    NonFiniteWeights,
    UnreadableModel,
)
from resnet_service.export.calibration import choose_images
from resnet_service.export.foreign_graph import ForeignGraph, read_foreign, with_pixels
from resnet_service.export.onnx_metadata import with_metadata
from resnet_service.imaging.preprocess import normalise
from resnet_service.models.exported import EMBEDDING, FEATURE_MAP, OUTPUT, ExportedModel, graph_bytes
from resnet_service.models.graphs import add_class_weights
from resnet_service.models.labels import LabelSet, read_label_set
from resnet_service.models.metadata import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Agreement,
    LabelSetReference,
    ModelMetadata,
    Outputs,
    Packing,
    Provenance,
)
from resnet_service.runtimes.openvino import OpenVINORuntime, output_shapes
from resnet_service.system.files import atomic_write, check_target, read_model_file, sha256_of
from resnet_service.types import EXPORTED_SUFFIX, Channels, Interpolation

TOLERANCE = 1e-3  # of a logit, or of a thousandth of the largest if that is more
_RELATIVE_TOLERANCE = 1e-4
_LIBRARIES = ("onnx", "openvino")
_MAX_NAME = 100

Values = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class ImportOptions:
    """What an ONNX file of another maker does not say.

    Args:
        arch: The name of the network in its metadata; by default the file's name.
        num_classes: Checked, and chooses between several outputs.
        input_size: Needed if the network takes images of any size.
        resize_size: By default in ImageNet's proportion to the input's size.
        interpolation: By default bilinear.
        mean: Mean per channel, of pixels in 0 ... 1; by default ImageNet's.
        std: By default ImageNet's.
        label_file: The label set of the classes; its name and digest go into the metadata.

    """

    arch: str | None = None
    num_classes: int | None = None
    input_size: int | None = None
    resize_size: int | None = None
    interpolation: Interpolation | None = None
    mean: Channels | None = None
    std: Channels | None = None
    label_file: Path | None = None


def import_onnx(
    source: Path, target: Path, options: ImportOptions, on_message: Callable[[str], None] = lambda _: None
) -> ModelMetadata:
    """Turn the image classifier in an ONNX file into an exported model, in FP32; return its metadata.

    Args:
        source: The ONNX file: one RGB image as input, one score for each class as output.
        target: The exported model to write.
        options: What the file does not say.
        on_message: Called with each message, a sentence at a time.

    Raises:
        ModelError: The file cannot be read, is no image classifier, or contradicts the options.
        AccuracyLossExceeded: OpenVINO's answer to the trial image differs from the original's; nothing is written.
        FileNotWritten: The disk is full, or similar.

    """
    check_target(source, target)
    if target.suffix != EXPORTED_SUFFIX:
        raise FileNotWritten(
            f"{target} does not end in {EXPORTED_SUFFIX}. ONNX files are imported as exported models; weights cannot "
            "be taken out of it."
        )
    labels, reference = read_label_set(options.label_file) if options.label_file else (None, None)
    if labels is not None and options.num_classes not in (None, len(labels)):
        raise ClassCountMismatch(
            f"{options.label_file} names {len(labels)} classes, but --num-classes is {options.num_classes}."
        )
    classes = options.num_classes if labels is None else len(labels)
    data, where = read_model_file(source), str(source)
    graph = read_foreign(data, where, input_size=options.input_size, classes=classes)
    for message in _findings(graph):
        on_message(message)
    mean, std = _channels(graph, options, where)
    shapes = output_shapes(with_pixels(graph, mean, std, graph.values).SerializeToString(), graph.input_size)
    outputs = _outputs(shapes)
    metadata = _metadata(source, data, graph, _class_count(shapes[OUTPUT], classes, where), options, reference)
    on_message(_preprocessing(metadata, graph))
    image = choose_images(
        None, "fp32", metadata, labels or LabelSet.numbered(metadata.num_classes), on_message
    ).held_out[1]
    on_message("Comparing the answers to a trial image; the reference implementation may take a minute")
    expected = _reference(graph, metadata, image, where)
    if outputs.feature_map is not None and not _pooled(expected):
        outputs = Outputs(embedding=outputs.embedding)
    model = _with_outputs(graph, metadata, outputs)
    serialised = model.SerializeToString()
    exported = ExportedModel(serialised, metadata, "fp32", sha256_of(serialised), outputs)
    agreement = _compare(OpenVINORuntime(exported), expected[OUTPUT][0], image, where)
    packing = Packing(
        checkpoint_sha256=sha256_of(data),
        graph_sha256=sha256_of(graph_bytes(serialised)),
        precision="fp32",
        agreement=agreement,
        outputs=outputs,
    )
    metadata = metadata.model_copy(update={"packing": packing})
    atomic_write(target, with_metadata(model, metadata))
    return metadata


def _findings(graph: ForeignGraph) -> list[str]:
    found = []
    if graph.had_softmax:
        found.append("Left out the softmax at its end: the service computes the probabilities from the scores")
    if graph.left_out:
        found.append(f"Left out {len(graph.left_out)} other outputs")
    return found


def _channels(graph: ForeignGraph, options: ImportOptions, where: str) -> tuple[Channels, Channels]:
    """Return mean and standard deviation; those of a network that takes uint8 leave pixels in 0 ... 1 as they are."""
    if not graph.takes_uint8:
        return options.mean or IMAGENET_MEAN, options.std or IMAGENET_STD
    if options.mean is not None or options.std is not None:
        raise InvalidMetadata(f"{where} takes uint8 pixels and normalises them itself. Leave out --mean and --std.")
    return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def _class_count(shape: tuple[int, ...], classes: int | None, where: str) -> int:
    if len(shape) != 2 or shape[0] != 1 or shape[1] < 2:
        raise UnreadableModel(
            f"{where} is not an image classifier: for one image, its output has the shape {list(shape)}, not "
            "[1, classes] with two classes or more."
        )
    if classes not in (None, shape[1]):
        raise ClassCountMismatch(f"{where} has {shape[1]} classes, but --labels or --num-classes says {classes}.")
    return shape[1]


def _outputs(shapes: dict[str, tuple[int, ...]]) -> Outputs:
    """Return the outputs besides logits whose shapes are as the service needs them."""
    embedding, feature_map = shapes.get(EMBEDDING, ()), shapes.get(FEATURE_MAP, ())
    if len(embedding) != 2 or embedding[0] != 1:
        return Outputs()
    length = embedding[1]
    if len(feature_map) != 4 or feature_map[:2] != (1, length):
        return Outputs(embedding=length)
    return Outputs(embedding=length, feature_map=(length, feature_map[2], feature_map[3]))


def _metadata(
    source: Path,
    data: bytes,
    graph: ForeignGraph,
    classes: int,
    options: ImportOptions,
    labels: LabelSetReference | None,
) -> ModelMetadata:
    mean, std = _channels(graph, options, str(source))
    facts = {
        "arch": options.arch or re.sub(r"[^a-z0-9_.]", "_", source.stem.lower())[:_MAX_NAME],
        "num_classes": classes,
        "input_size": graph.input_size,
        "mean": mean,
        "std": std,
        "labels": labels,
        "provenance": Provenance(source=source.name[:_MAX_NAME], sha256=sha256_of(data)),
        "library_versions": {name: version(name) for name in _LIBRARIES},
    }
    given = {"resize_size": options.resize_size, "interpolation": options.interpolation}
    return ModelMetadata.parse(facts | {name: value for name, value in given.items() if value is not None}, str(source))


def _preprocessing(metadata: ModelMetadata, graph: ForeignGraph) -> str:
    crop = (
        f"Images are resized to {metadata.resize_size} pixels ({metadata.interpolation}) and cropped to "
        f"{metadata.input_size}"
    )
    if graph.takes_uint8:
        return f"{crop}; the network normalises them itself"
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (metadata.mean, metadata.std))
    return f"{crop}; mean {mean}, standard deviation {std}. Without --mean and --std, these are ImageNet's"


def _reference(graph: ForeignGraph, metadata: ModelMetadata, image: NDArray[np.uint8], where: str) -> Values:
    """Compute scores, embedding and feature map of one image with ONNX's reference implementation."""
    batch = image[np.newaxis]
    pixels: NDArray[Any] = batch if graph.takes_uint8 else normalise(batch, metadata)
    if graph.layout == "NCHW":
        pixels = pixels.transpose(0, 3, 1, 2)
    names = list(graph.values)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            results = ReferenceEvaluator(graph.original).run(
                [graph.values[name] for name in names], {graph.input: pixels}
            )
    # It checks little, and raises what numpy and Python raise on nodes that make no sense.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UnreadableModel(f"ONNX's reference implementation cannot run {where}: {reason}") from error
    values = dict(zip(names, map(np.asarray, results), strict=True))
    values[OUTPUT] = values[OUTPUT].reshape(1, -1)
    _check_scores(values[OUTPUT][0], where)
    return values


def _check_scores(scores: NDArray[Any], where: str) -> None:
    if not np.isfinite(scores).all():
        raise NonFiniteWeights(
            f"{where} answers a trial image with NaN or infinity. Check the training, or the export."
        )
    if scores.min() >= 0 and abs(float(scores.sum()) - 1) < TOLERANCE:
        raise UnreadableModel(
            f"{where} gives probabilities, but has no softmax at its end that could be left out, and the service would "
            "compute probabilities of them. Export the network without its softmax."
        )


def _pooled(values: Values) -> bool:
    """Whether the embedding is the average of the feature map, as class activation maps need it."""
    average, embedding = values[FEATURE_MAP].mean(axis=(2, 3)), values[EMBEDDING]
    return average.shape == embedding.shape and bool(np.allclose(average, embedding, rtol=1e-3, atol=1e-4))


def _with_outputs(graph: ForeignGraph, metadata: ModelMetadata, outputs: Outputs) -> onnx.ModelProto:
    """Build the model with the outputs that were found, and their shapes."""
    shapes: dict[str, list[int]] = {OUTPUT: [metadata.num_classes]}
    if outputs.embedding is not None:
        shapes[EMBEDDING] = [outputs.embedding]
    if outputs.feature_map is not None:
        shapes[FEATURE_MAP] = list(outputs.feature_map)
    model = with_pixels(graph, metadata.mean, metadata.std, shapes)
    count: int | str = 1 if graph.fixed_batch else "N"
    del model.graph.output[:]
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [count, *shape])
        for name, shape in shapes.items()
    )
    if outputs.feature_map is not None:
        add_class_weights(model)
    return model


def _compare(runtime: OpenVINORuntime, expected: NDArray[Any], image: NDArray[np.uint8], where: str) -> Agreement:
    actual = runtime.logits(image[np.newaxis])[0]
    difference = float(np.abs(actual - expected).max())
    # NaN compares false.
    if not difference <= max(TOLERANCE, _RELATIVE_TOLERANCE * float(np.abs(expected).max())):
        raise AccuracyLossExceeded(
            f"OpenVINO's scores of a trial image differ from those of {where} by {difference:.3g}, more than rounding "
            "explains. Nothing was written. Export the network in float32, with another exporter or operator set."
        )
    same = bool(actual.argmax() == expected.argmax())
    return Agreement(pictures=1, top1_agreement=100.0 * same, max_logit_difference=round(difference, 6))
