"""Export of a checkpoint to one ONNX file that takes raw pixels and carries its own metadata.

The change in answers is measured before the file is written: the runtime that will serve the model opens it, and its
answers are compared with the checkpoint's on images that were not used for calibration.
"""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from resnet_service.defaults import DEFAULT_MAX_LOSS
from resnet_service.errors import FileNotWritten
from resnet_service.export.calibration import choose_images
from resnet_service.export.half_precision import store_weights_fp16
from resnet_service.export.onnx_metadata import with_metadata
from resnet_service.export.parity import check_accuracy_loss, compare, summary
from resnet_service.export.reference import open_reference
from resnet_service.models.exported import ExportedModel, graph_bytes
from resnet_service.models.graphs import add_class_weights
from resnet_service.models.labels import labels_for, with_class_names
from resnet_service.models.metadata import ModelMetadata, Packing
from resnet_service.system.files import atomic_write, check_target, sha256_of
from resnet_service.types import EXPORTED_SUFFIX, Precision


def export(
    checkpoint_file: Path,
    target: Path,
    *,
    precision: Precision = "fp32",
    images: Path | None = None,
    max_loss: float = DEFAULT_MAX_LOSS,
    label_file: Path | None = None,
    on_message: Callable[[str], None] = lambda _: None,
) -> ModelMetadata:
    """Export a checkpoint; return the metadata of the exported model.

    Args:
        checkpoint_file: The checkpoint.
        target: The exported model to write.
        precision: ``fp32``: answers equal to the checkpoint's; ``bf16``, ``int8``: near-identical answers, faster.
        images: Images like those to be served: a data set as for ``evaluate``, or a folder of images. Required for
            ``bf16`` and ``int8``. Some of them calibrate; the others are held out to compare on.
        max_loss: Percentage points of top-1 accuracy that may be lost on held-out images; if these have no classes, the
            percentage of first answers that may change.
        label_file: Label set to use instead of the one that the checkpoint names.
        on_message: Called with each message, a sentence at a time.

    Raises:
        ModelError: The checkpoint cannot be loaded.
        DatasetError: The images cannot be used, or are too few.
        UnsuitableRuntime: The architecture cannot be exported.
        AccuracyLossExceeded: The exported model's answers differ too much; nothing is written.
        FileNotWritten: The disk is full, or similar.

    """
    check_target(checkpoint_file, target)
    if target.suffix != EXPORTED_SUFFIX:
        raise FileNotWritten(f"{target} does not end in {EXPORTED_SUFFIX}, as exported models do. Name another file.")
    if precision == "int8":
        # Imported here, since the other precisions do not need NNCF, and first, to report at once that it is missing.
        from resnet_service.export.quantization import quantize
    source = open_reference(checkpoint_file)
    labels = labels_for(source.metadata, checkpoint_file, label_file)
    chosen = choose_images(images, precision, source.metadata, labels, on_message)
    on_message(f"Exporting {source.metadata.arch}")
    # Before the graph is changed: the reference may be the FP32 graph itself.
    reference = source.logits_for(precision)
    model, libraries = source.graph, ["onnx", "openvino"]
    if precision == "int8":
        on_message(f"Quantizing with {len(chosen.calibration)} images")
        model = quantize(model, chosen.calibration)
        libraries.append("nncf")
    elif precision == "bf16":
        store_weights_fp16(model)
    if source.outputs.feature_map is not None:
        add_class_weights(model)

    serialised = model.SerializeToString()
    exported = ExportedModel(serialised, source.metadata, precision, sha256_of(serialised), source.outputs)
    agreement = compare(reference, exported, chosen)
    on_message(summary(agreement))
    check_accuracy_loss(agreement, precision, max_loss)
    packing = Packing(
        checkpoint_sha256=source.sha256,
        graph_sha256=sha256_of(graph_bytes(serialised)),
        precision=precision,
        calibration=chosen.record,
        agreement=agreement,
        outputs=source.outputs,
    )
    metadata = source.metadata.model_copy(
        update={
            "packing": packing,
            "class_names": with_class_names(source.metadata, checkpoint_file, label_file).class_names,
            # An evaluation of the checkpoint holds for the exported model only if both give the same answers.
            "evaluations": source.metadata.evaluations if precision == "fp32" else (),
            # Beside those of the training.
            "library_versions": source.metadata.library_versions | {name: version(name) for name in libraries},
        }
    )
    atomic_write(target, with_metadata(model, metadata))
    return metadata


def default_target(checkpoint_file: Path, precision: Precision) -> Path:
    """Return the default path of an exported model: beside its checkpoint, with the precision in its name."""
    return checkpoint_file.with_name(
        checkpoint_file.stem + ("" if precision == "fp32" else f"-{precision}") + EXPORTED_SUFFIX
    )
