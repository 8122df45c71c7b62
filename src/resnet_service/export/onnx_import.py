"""Import of a third-party ONNX file as an exported model.

The structure is checked as for exported models before the ``onnx`` package parses the file. OpenVINO, which will serve
the model, answers a trial image. So does ONNX's own reference implementation, which computes the original file in
numpy, and both must agree.
"""

import re
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from resnet_service.errors import (
    ClassCountMismatch,
    FileNotWritten,
    InvalidMetadata,
    NonFiniteWeights,
    UnreadableModel,
)
from resnet_service.export.calibration import choose_images
from resnet_service.export.conversion.labels import ChosenLabels, read_labels
from resnet_service.export.conversion.options import DEFAULT_OPTIONS, Converted, ConvertOptions
from resnet_service.export.conversion.preprocessing import ChosenPreprocessing, choose_preprocessing
from resnet_service.export.onnx_metadata import with_metadata
from resnet_service.export.parity import check_difference
from resnet_service.export.third_party_graph import ThirdPartyGraph, read_third_party, with_pixels
from resnet_service.imaging.preprocess import normalise
from resnet_service.models.exported import EMBEDDING, FEATURE_MAP, OUTPUT, ExportedModel, graph_bytes
from resnet_service.models.file_kinds import check_model_kind
from resnet_service.models.graphs import add_class_weights
from resnet_service.models.labels import LabelSet
from resnet_service.models.metadata import (
    Agreement,
    ModelMetadata,
    Outputs,
    Packing,
    Provenance,
)
from resnet_service.models.preprocessing import STANDARD
from resnet_service.runtimes.openvino import OpenVINORuntime, output_shapes
from resnet_service.system.files import atomic_write, check_target, read_model_file, sha256_of
from resnet_service.types import EXPORTED_SUFFIX

# Of the sum of scores that are probabilities.
_TOLERANCE = 1e-3
_SOFTMAX = "softmax"
_LIBRARIES = ("onnx", "openvino")
_MAX_NAME = 100

Values = dict[str, NDArray[Any]]


def import_onnx(
    source: Path,
    target: Path,
    options: ConvertOptions = DEFAULT_OPTIONS,
    on_message: Callable[[str], None] = lambda _: None,
) -> Converted:
    """Turn the image classifier in an ONNX file into an exported model, in FP32.

    Args:
        source: The ONNX file: one RGB image as input, one score for each class as output.
        target: The exported model to write. It carries the names of the classes.
        options: What the file does not say.
        on_message: Called with each message; see ``cli.console.message``.

    Raises:
        ModelError: The file cannot be read, is no image classifier, or contradicts the options.
        AccuracyLossExceeded: OpenVINO's answer to the trial image differs from the original's; nothing is written.
        FileNotWritten: The disk is full, or similar.

    """
    _refuse_options_of_checkpoints(options)
    check_model_kind(source)
    check_target(source, target)
    if target.suffix != EXPORTED_SUFFIX:
        raise FileNotWritten(
            f"{target} does not end in {EXPORTED_SUFFIX}. ONNX files are imported as exported models; weights cannot "
            "be taken out of it."
        )
    named = read_labels(options.label_file) if options.label_file else ChosenLabels()
    if named.labels is not None and options.num_classes not in (None, len(named.labels)):
        raise ClassCountMismatch(
            f"{options.label_file} names {len(named.labels)} classes, but --num-classes is {options.num_classes}."
        )
    classes = options.num_classes if named.labels is None else len(named.labels)
    data, where = read_model_file(source), str(source)
    graph = read_third_party(data, where, input_size=options.input_size, classes=classes)
    if options.arch is not None:
        on_message(f"--arch {options.arch} is only a name in the metadata here: an ONNX file is imported as it is")
    for message in _findings(graph):
        on_message(message)
    chosen = _preprocessing(graph, options, where)
    mean, std = chosen.values["mean"], chosen.values["std"]
    shapes = output_shapes(with_pixels(graph, mean, std, graph.output_names).SerializeToString(), graph.input_size)
    outputs = _outputs(shapes)
    count = _class_count(shapes[OUTPUT], classes, where)
    facts = {**chosen.values, "num_classes": count, **named.facts}
    metadata = _metadata(source, data, facts, options.arch)
    image = choose_images(None, "fp32", metadata, named.labels or LabelSet.numbered(count), on_message).held_out[1]
    on_message("Comparing the answers to a trial image; the reference implementation may take a minute")
    expected = _reference(graph, metadata, image, where)
    if outputs.feature_map is not None and not _pooled(expected):
        outputs = Outputs(embedding=outputs.embedding)
    model = _with_outputs(graph, metadata, outputs)
    serialised = model.SerializeToString()
    exported = ExportedModel(serialised, metadata, "fp32", sha256_of(serialised), outputs)
    runtime = OpenVINORuntime(exported)
    agreement = _compare(runtime, expected[OUTPUT][0], image, where)
    _refuse_sigmoid(runtime, where)
    packing = Packing(
        checkpoint_sha256=sha256_of(data),
        graph_sha256=sha256_of(graph_bytes(serialised)),
        precision="fp32",
        agreement=agreement,
        outputs=outputs,
    )
    metadata = metadata.model_copy(update={"packing": packing})
    atomic_write(target, with_metadata(model, metadata))
    return Converted(metadata, chosen.source)


def _refuse_options_of_checkpoints(options: ConvertOptions) -> None:
    for option, given, reason in (
        ("--dtype", options.dtype != DEFAULT_OPTIONS.dtype, "An ONNX file is imported in FP32"),
        ("--part", options.part is not None, "An ONNX file is one network and is imported whole"),
        ("--binary", options.binary, "The outputs of an ONNX file are imported as they are"),
        ("--trust-pickle", options.trust_pickle, "An ONNX file contains no pickle"),
    ):
        if given:
            raise InvalidMetadata(f"{reason}. Leave out {option}.")


def _findings(graph: ThirdPartyGraph) -> list[str]:
    found = []
    if graph.softmax is not None:
        found.append("Left out the softmax at the end of the network: the service computes probabilities from scores")
    if graph.left_out:
        count = len(graph.left_out)
        found.append(f"Left out {count} other outputs" if count > 1 else "Left out one other output")
    return found


def _preprocessing(graph: ThirdPartyGraph, options: ConvertOptions, where: str) -> ChosenPreprocessing:
    """Choose the preprocessing; a network that takes uint8 gets pixels in 0 ... 1 as they are."""
    own: dict[str, Any] = {"input_size": graph.input_size}
    if graph.takes_uint8:
        if options.mean is not None or options.std is not None:
            raise InvalidMetadata(f"{where} takes uint8 pixels and normalises them itself. Leave out --mean and --std.")
        own |= {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    return choose_preprocessing(options, own, STANDARD, where)


def _class_count(shape: tuple[int, ...], classes: int | None, where: str) -> int:
    if shape == (1, 1):
        raise UnreadableModel(
            f"{where} has one output, as for a sigmoid, and softmax of one number is always 1. Export a module that "
            "gives two classes with equal answers, the negative one first: torch.cat([torch.zeros_like(x), x], 1)"
        )
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


def _metadata(source: Path, data: bytes, facts: Mapping[str, Any], arch: str | None) -> ModelMetadata:
    return ModelMetadata.parse(
        {
            **facts,
            "arch": arch or re.sub(r"[^a-z0-9_.]", "_", source.stem.lower())[:_MAX_NAME],
            "provenance": Provenance(source=source.name[:_MAX_NAME], sha256=sha256_of(data)),
            "library_versions": {name: version(name) for name in _LIBRARIES},
        },
        str(source),
    )


def _reference(graph: ThirdPartyGraph, metadata: ModelMetadata, image: NDArray[np.uint8], where: str) -> Values:
    """Compute scores, embedding and feature map of one image with ONNX's reference implementation."""
    batch = image[np.newaxis]
    pixels: NDArray[Any] = batch if graph.takes_uint8 else normalise(batch, metadata)
    if graph.layout == "NCHW":
        pixels = pixels.transpose(0, 3, 1, 2)
    wanted = dict(graph.output_names)
    if graph.softmax is not None:
        wanted[_SOFTMAX] = graph.softmax.name
    names = list(wanted)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            results = ReferenceEvaluator(graph.original).run([wanted[name] for name in names], {graph.input: pixels})
    # It checks little, and raises what numpy and Python raise on nodes that make no sense.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UnreadableModel(f"ONNX's reference implementation cannot run {where}: {reason}") from error
    values = dict(zip(names, map(np.asarray, results), strict=True))
    values[OUTPUT] = values[OUTPUT].reshape(1, -1)
    if graph.softmax is not None:
        _check_softmax(values.pop(_SOFTMAX).shape, graph.softmax.axis, values[OUTPUT].shape[1], where)
    _check_scores(values[OUTPUT][0], where)
    return values


def _check_softmax(shape: tuple[int, ...], axis: int, classes: int, where: str) -> None:
    """Raise ``UnreadableModel`` if a softmax is over something else than all classes."""
    if shape not in ((1, classes), (1, classes, 1, 1)) or axis % len(shape) != 1:
        raise UnreadableModel(
            f"{where} ends in a softmax over axis {axis} of values of the shape {list(shape)}, not over all {classes} "
            "classes: they do not exclude each other. Export a network with one question and its classes."
        )


def _check_scores(scores: NDArray[Any], where: str) -> None:
    if not np.isfinite(scores).all():
        raise NonFiniteWeights(
            f"{where} answers a trial image with NaN or infinity. Check the training, or the export."
        )
    if scores.min() >= 0 and abs(float(scores.sum()) - 1) < _TOLERANCE:
        raise UnreadableModel(
            f"{where} gives probabilities, but has no softmax at its end that could be left out, and the service would "
            "compute probabilities of them. Export the network without its softmax."
        )


def _refuse_sigmoid(runtime: OpenVINORuntime, where: str) -> None:
    """Raise ``UnreadableModel`` if all scores of noise and of plain images are in 0 ... 1."""
    side = runtime.metadata.input_size
    dice = np.random.default_rng(0)
    images = [np.full((side, side, 3), level, np.uint8) for level in (0, 255)]
    images += [dice.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(2)]
    scores = np.concatenate([runtime.logits(image[np.newaxis]) for image in images])
    if scores.min() >= 0 and scores.max() <= 1:
        raise UnreadableModel(
            f"{where} gives scores in 0 ... 1 only, as a sigmoid or a softmax does, and the service would compute "
            "probabilities of them. Export the network without it."
        )


def _pooled(values: Values) -> bool:
    """Whether the embedding is the average of the feature map, as class activation maps need it."""
    average, embedding = values[FEATURE_MAP].mean(axis=(2, 3)), values[EMBEDDING]
    return average.shape == embedding.shape and bool(np.allclose(average, embedding, rtol=1e-3, atol=1e-4))


def _with_outputs(graph: ThirdPartyGraph, metadata: ModelMetadata, outputs: Outputs) -> onnx.ModelProto:
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
    difference = check_difference(
        expected,
        actual,
        f"OpenVINO's scores of a trial image differ from those of {where}",
        "Export the network in float32, with another exporter or operator set.",
    )
    same = bool(actual.argmax() == expected.argmax())
    return Agreement(pictures=1, top1_agreement=100.0 * same, max_logit_difference=round(difference, 6))
