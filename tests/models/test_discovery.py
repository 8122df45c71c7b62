import os
from pathlib import Path

import pytest

from resnet_service.errors import ModelFileNotFound
from resnet_service.models.discovery import choose_model, unbundled_models


def make(folder: Path, name: str, age: int) -> Path:
    path = folder / name
    path.touch()
    os.utime(path, (1_000_000 - age, 1_000_000 - age))
    return path


def test_a_named_model_wins_even_if_it_does_not_exist(tmp_path: Path) -> None:
    make(tmp_path, "pulled.pth", age=0)
    assert choose_model(tmp_path / "mine.pth", tmp_path) == tmp_path / "mine.pth"


def test_the_newest_pulled_model_precedes_the_bundled_one(tmp_path: Path) -> None:
    bundled = make(tmp_path, "resnet18-fashion-mnist.safetensors", age=0)
    assert choose_model(None, tmp_path) == bundled
    make(tmp_path, "old.pth", age=100)
    new = make(tmp_path, "new.pth", age=50)
    assert choose_model(None, tmp_path) == new


def test_a_bundled_checkpoint_of_version_1_does_not_pass_for_a_pulled_one(tmp_path: Path) -> None:
    make(tmp_path, "resnet18-fashion-mnist.pth", age=0)
    current = make(tmp_path, "resnet18-fashion-mnist.safetensors", age=50)
    assert unbundled_models(tmp_path) == []
    assert choose_model(None, tmp_path) == current


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelFileNotFound, match="resnet-service pull"):
        choose_model(None, tmp_path)


def test_an_exported_model_precedes_its_checkpoint(tmp_path: Path) -> None:
    make(tmp_path, "resnet18-fashion-mnist.safetensors", age=0)
    bundled = make(tmp_path, "resnet18-fashion-mnist-int8.onnx", age=50)
    assert choose_model(None, tmp_path) == bundled
    make(tmp_path, "model.pth", age=100)
    exported = make(tmp_path, "model.onnx", age=90)
    make(tmp_path, "notes.txt", age=0)
    assert choose_model(None, tmp_path) == exported


def test_an_exported_model_precedes_its_checkpoint_even_if_that_is_newer(tmp_path: Path) -> None:
    """A later pull whose export failed must not replace what is served."""
    make(tmp_path, "other.onnx", age=20)
    make(tmp_path, "model.safetensors", age=10)
    exported = make(tmp_path, "model-int8.onnx", age=90)
    assert choose_model(None, tmp_path) == exported
    exported = make(tmp_path, "model.onnx", age=80)
    assert choose_model(None, tmp_path) == exported
