"""Files that are no model file of this service: each kind has its sentence, the same from every command."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from resnet_service.errors import InvalidMetadata, ModelError, PickledCode, ServiceError, UnreadableModel
from resnet_service.models.checkpoint.checkpoint import load_checkpoint
from resnet_service.models.exported import read_exported
from resnet_service.models.file_kinds import check_checkpoint_kind, check_model_kind
from resnet_service.runtimes.registry import find_runtime
from tests.support.models import random_checkpoint
from tests.support.servers import cli_here


class Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.fc(x))


class Case(NamedTuple):
    """A file of some kind: its name, its maker, and the words of the sentence about it."""

    name: str
    make: Callable[[Path], object]
    words: str
    error: type[ModelError] = UnreadableModel


def of(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def zipped(*names: str) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, b"content")

    return make


def image(file_format: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, file_format)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def torchscript(path: Path) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        torch.jit.save(torch.jit.trace(Layer(), torch.zeros(1, 2)), path)  # type: ignore[no-untyped-call]


def torch_export(path: Path) -> None:
    torch.export.save(torch.export.export(Layer(), (torch.zeros(1, 2),)), path)


def onnx_of_another_maker(path: Path) -> None:
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "graph",
        [tensor("x", onnx.TensorProto.FLOAT, [1, 2])],
        [tensor("y", onnx.TensorProto.FLOAT, [1, 2])],
    )
    domains = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=domains), path)


def saved_model(path: Path) -> None:
    path.mkdir()
    (path / "saved_model.pb").write_bytes(b"\x08\x01")


def folder_with(*names: str) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        path.mkdir()
        for name in names:
            (path / name).touch()

    return make


def tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "weights.pth")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 46830571\n" % (b"0" * 64)

CASES = [
    Case("scripted.pt", torchscript, "TorchScript archive.*convert --trust-pickle .* OUTPUT", PickledCode),
    Case("program.pt2", torch_export, r"torch\.export archive.*torch\.export\.load\(.*program\.pt2'\)", PickledCode),
    Case(
        "other.onnx",
        onnx_of_another_maker,
        "ONNX file, but was not written by `resnet-service export`",
        InvalidMetadata,
    ),
    Case("other.pth", onnx_of_another_maker, r"ONNX file\. Rename it: its name must end in \.onnx"),
    Case("model.h5", of(b"\x89HDF\r\n\x1a\n" + bytes(100)), "HDF5 file.*Keras.*tf2onnx"),
    Case("model.keras", zipped("metadata.json", "config.json", "model.weights.h5"), "Keras model.*tf2onnx"),
    Case("saved_model", saved_model, "folder with a TensorFlow SavedModel.*tf2onnx"),
    Case("frozen.pb", of(b"\x0a\x10\x0a\x05input" + bytes(20)), "TensorFlow graph.*tf2onnx"),
    Case("model.tflite", of(b"\x1c\0\0\0TFL3" + bytes(20)), "TensorFlow Lite model"),
    Case("pointer.pth", of(POINTER), "Git LFS pointer.*git lfs pull"),
    Case("pointer.safetensors", of(POINTER), "Git LFS pointer.*git lfs pull"),
    Case("pointer.onnx", of(POINTER), "Git LFS pointer.*git lfs pull"),
    Case(
        "weights.zip", zipped("readme.md", "run {1}/best.pth"), r"zip archive.*name the file in it: run \{1\}/best\.pth"
    ),
    Case("slides.zip", zipped("content.xml"), "zip archive. Unpack it"),
    Case("escape.zip", zipped("\x1b[2J.pth"), "zip archive. Unpack it, and name the file of weights in it"),
    Case("arrays.npz", lambda path: np.savez(path, a=np.zeros(2)), "archive of numpy arrays"),
    Case("array.npy", lambda path: np.save(path, np.zeros(2)), "numpy array"),
    Case("folder", folder_with(), "folder without a model file"),
    Case(
        "repository", folder_with("config.json", "model.safetensors"), r"folder\. Name .*repository/model\.safetensors"
    ),
    Case("config.json", of(json.dumps({"architectures": ["ResNet"]}).encode()), "JSON file.*--labels"),
    Case("labels.txt", of("猫\nDog\n".encode()), "text file"),
    Case("long.txt", of("é".encode() * 3000), "text file"),
    Case("page.pth", of(b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>"), "web page.*Fetch the file again"),
    Case("model.xml", of(b'<?xml version="1.0"?>\n<net name="m" version="11">'), "model of OpenVINO"),
    Case("language.gguf", of(b"GGUF\x03" + bytes(40)), "GGUF"),
    Case("weights.tar", tar, "tar archive"),
    Case("weights.pth.gz", of(b"\x1f\x8b\x08\0" + bytes(20)), "gzip archive"),
    *(
        Case(f"image.{name.lower()}", of(image(name)), rf"image \({name}\).*classify", UnreadableModel)
        for name in ("PNG", "JPEG", "GIF", "TIFF")
    ),
    Case("image.webp", of(image("WEBP")), "image.*classify"),
    Case("image.avif", of(image("AVIF")), "image.*classify"),
    Case(
        "weights.onnx",
        lambda path: random_checkpoint(path.with_suffix(".safetensors")).rename(path),
        "safetensors file. Ren",
    ),
    Case("saved.onnx", lambda path: torch.save({"a": torch.zeros(1)}, path), r"file of torch\.save\. Rename it.*\.pth"),
    Case("saved.safetensors", lambda path: torch.save({}, path), r"file of torch\.save\. Rename it.*\.pth"),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_every_command_says_what_the_file_is_and_what_to_do(tmp_path: Path, case: Case) -> None:
    path = tmp_path / case.name
    case.make(path)
    said = {
        "inspect": cli_here("inspect", path),
        "convert": cli_here("convert", path, tmp_path / "out.safetensors"),
        "export": cli_here("export", path),
        "classify": cli_here("classify", "--checkpoint", path, "tests/data/fashion-mnist"),
    }
    with pytest.raises(ServiceError) as served:
        find_runtime(path)(path, None, 1, 1)  # what `serve` does
    with pytest.raises(case.error, match=case.words) as loaded:
        load_checkpoint(path)
    assert str(loaded.value).startswith(str(path))
    assert str(loaded.value).isprintable()
    assert str(served.value) == str(loaded.value)
    assert {command: done.stderr.strip() for command, done in said.items()} == dict.fromkeys(
        said, f"error: {loaded.value}"
    )
    assert not (tmp_path / "out.safetensors").exists()


def test_our_own_files_pass(checkpoint: Path, exported: Path, tmp_path: Path) -> None:
    for path in (checkpoint, random_checkpoint(tmp_path / "new.safetensors")):
        check_model_kind(path)
        check_checkpoint_kind(path)
    check_model_kind(exported)
    torch.save({"a": torch.zeros(1)}, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    check_model_kind(tmp_path / "legacy.pth")


def test_an_exported_model_is_not_converted_and_not_exported_again(exported: Path, tmp_path: Path) -> None:
    read_exported(exported)
    commands: list[list[str | Path]] = [["convert", exported, tmp_path / "out.pth"], ["export", exported]]
    for command in commands:
        done = cli_here(*command)
        assert (
            done.stderr
            == f"error: {exported} is an exported model. Serve it as it is, or name the checkpoint it was made from.\n"
        )


def test_what_may_be_a_damaged_model_file_is_left_to_its_reader(tmp_path: Path) -> None:
    path = tmp_path / "damaged.pth"
    for data in (bytes(100), b"\x80\x02damaged", b"PK\x03\x04" + bytes(100), b"cos\nsystem\n(S'ls'\ntR."):
        path.write_bytes(data)
        check_model_kind(path)
