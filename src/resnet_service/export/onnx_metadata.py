"""Metadata in ONNX files: written at export, and again when an evaluation is recorded."""

from pathlib import Path

import onnx

from resnet_service.models.exported import read_exported
from resnet_service.models.metadata import METADATA_KEY, EvaluationRecord, ModelMetadata
from resnet_service.system.files import atomic_write


def with_metadata(model: onnx.ModelProto, metadata: ModelMetadata) -> bytes:
    """Return the serialised model with ``metadata``, which replaces any it had."""
    onnx.helper.set_model_props(model, {METADATA_KEY: metadata.model_dump_json()})
    data: bytes = model.SerializeToString()
    return data


def record_evaluation(path: Path, record: EvaluationRecord) -> None:
    """Add a record to the metadata of the exported model ``path``; it replaces an older one of the same data set.

    Raises:
        ModelError: Not an exported model.
        FileNotWritten: The disk is full, or similar; the old file is whole.

    """
    exported = read_exported(path)
    metadata = exported.metadata.with_evaluation(record)
    atomic_write(path, with_metadata(onnx.load_model_from_string(exported.data), metadata))
