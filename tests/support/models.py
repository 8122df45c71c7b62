"""Models for tests: real architectures with random weights."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import torch
from torch import nn

from resnet_service.models import architectures
from resnet_service.models.checkpoint.checkpoint import save_checkpoint
from resnet_service.models.exported import graph_bytes, read_exported
from resnet_service.models.metadata import METADATA_KEY, ModelMetadata
from resnet_service.system.files import sha256_of


class Both(NamedTuple):
    """A checkpoint, and the model exported from it."""

    checkpoint: Path
    exported: Path


class ExportedByCommand(NamedTuple):
    """A file that the command line exported, and its output."""

    path: Path
    done: subprocess.CompletedProcess[str]


def metadata(**changes: Any) -> ModelMetadata:
    """Return metadata of a resnet18 with 10 classes for 64 pixels, with ``changes``."""
    facts: dict[str, Any] = {"arch": "resnet18", "num_classes": 10, "input_size": 64, "resize_size": 72}
    return ModelMetadata(**{**facts, **changes})


def random_model(arch: str = "resnet18", num_classes: int = 10, seed: int = 0) -> nn.Module:
    """Return an untrained network whose batch norms have statistics, so that its answers depend on the image."""
    torch.manual_seed(seed)
    model = architectures.build(arch, num_classes).train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(4, 3, 64, 64))
    return model.eval()


def random_checkpoint(path: Path, **changes: Any) -> Path:
    facts = metadata(**changes)
    save_checkpoint(random_model(facts.arch, facts.num_classes), path, facts)
    return path


def rewritten(
    exported: Path, target: Path, change: Callable[[onnx.GraphProto], None] | None = None, **outputs: object
) -> Path:
    """Write an exported model with another graph, or with other ``outputs`` in its metadata, and a matching digest.

    An attacker can do the same: the digest is not a signature. Without ``outputs``, those of the file are kept.
    """
    read = read_exported(exported)
    model = onnx.load_model_from_string(read.data)
    if change is not None:
        change(model.graph)
    content = read.metadata.model_dump(mode="json")
    content["packing"]["graph_sha256"] = sha256_of(graph_bytes(model.SerializeToString()))
    if outputs:
        content["packing"]["outputs"] = outputs
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(content)})
    target.write_bytes(model.SerializeToString())
    return target


def as_older_version(exported: Path, target: Path) -> Path:
    """Write an exported model as version 0.2 did: with logits only, and no outputs in its metadata."""

    def strip(graph: onnx.GraphProto) -> None:
        del graph.output[1:]

    rewritten(exported, target, strip, embedding=None)
    model = onnx.load_model_from_string(target.read_bytes())
    content = json.loads(model.metadata_props[0].value)
    del content["packing"]["outputs"]
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(content)})
    target.write_bytes(model.SerializeToString())
    return target
