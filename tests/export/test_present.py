"""`pull --if-missing`: what is there already, and what must not be hidden."""

import os
from pathlib import Path

import pytest

from resnet_service.export.present import Present, find_present

RESNET, LITE0 = "resnet18-imagenet1k", "efficientnet-lite0-imagenet1k"


def put(folder: Path, *names: str) -> None:
    """Write empty files, each newer than the one before."""
    for age, name in enumerate(names):
        (folder / name).touch()
        os.utime(folder / name, (1_000_000 + age, 1_000_000 + age))


def test_an_empty_folder_has_nothing(tmp_path: Path) -> None:
    put(tmp_path, "resnet18-fashion-mnist-int8.onnx", "README.md")
    assert find_present(tmp_path, "auto", None, "fp32") == Present()
    assert find_present(tmp_path / "none", "auto", None, "fp32") == Present()


@pytest.mark.parametrize("stem", [RESNET, LITE0])
def test_the_default_request_is_content_with_what_any_source_delivers(tmp_path: Path, stem: str) -> None:
    put(tmp_path, f"{stem}.safetensors", f"{stem}.onnx")
    assert find_present(tmp_path, "auto", None, "fp32") == Present(tmp_path / f"{stem}.onnx")


def test_the_model_that_an_older_version_pulled_counts(tmp_path: Path) -> None:
    put(tmp_path, f"{RESNET}.pth", f"{RESNET}.onnx")
    assert find_present(tmp_path, "auto", None, "fp32") == Present(tmp_path / f"{RESNET}.onnx")
    assert find_present(tmp_path, "auto", None, "int8") == Present()  # its checkpoint is pulled again


@pytest.mark.parametrize(
    "own", ["mine.pth", "mine.onnx", "mine-int8.onnx", "mine.safetensors", "resnet50-imagenet1k.onnx"]
)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_model_of_the_users_own_is_never_hidden(tmp_path: Path, own: str, precision: str) -> None:
    put(tmp_path, f"{RESNET}.safetensors", f"{RESNET}.onnx", own)
    found = find_present(tmp_path, "auto", None, "int8" if precision == "int8" else "fp32")
    assert found == Present(tmp_path / own, own=True)


def test_int8_is_made_if_only_fp32_is_there(tmp_path: Path) -> None:
    put(tmp_path, f"{LITE0}.safetensors", f"{LITE0}.onnx")
    assert find_present(tmp_path, "auto", None, "int8") == Present(checkpoint=tmp_path / f"{LITE0}.safetensors")
    put(tmp_path, f"{LITE0}.safetensors", f"{LITE0}.onnx", f"{LITE0}-int8.onnx")
    assert find_present(tmp_path, "auto", None, "int8") == Present(tmp_path / f"{LITE0}-int8.onnx")
    # Not asked for a precision, an older INT8 stays, and so does a newer FP32.
    assert find_present(tmp_path, "auto", None, "fp32") == Present(tmp_path / f"{LITE0}-int8.onnx")


def test_an_older_int8_model_is_made_again_to_be_the_newest(tmp_path: Path) -> None:
    put(tmp_path, f"{LITE0}.safetensors", f"{LITE0}-int8.onnx", f"{LITE0}.onnx")
    assert find_present(tmp_path, "auto", None, "int8") == Present(checkpoint=tmp_path / f"{LITE0}.safetensors")


def test_after_a_failed_export_the_checkpoint_is_exported(tmp_path: Path) -> None:
    put(tmp_path, f"{RESNET}.safetensors")
    assert find_present(tmp_path, "auto", None, "fp32") == Present(checkpoint=tmp_path / f"{RESNET}.safetensors")


def test_a_named_model_counts_whatever_else_is_there(tmp_path: Path) -> None:
    put(tmp_path, "acme--pets.safetensors", "acme--pets.onnx", "mine.onnx")
    assert find_present(tmp_path, "auto", "acme/pets", "fp32") == Present(tmp_path / "acme--pets.onnx")
    pets = tmp_path / "acme--pets.safetensors"
    assert find_present(tmp_path, "auto", "acme/pets", "int8") == Present(checkpoint=pets)
    assert find_present(tmp_path, "hub", "acme/cars", "fp32") == Present()
    assert find_present(tmp_path, "auto", "resnet18", "fp32") == Present()


def test_a_named_source_counts_what_it_delivers(tmp_path: Path) -> None:
    put(tmp_path, f"{LITE0}.onnx")
    assert find_present(tmp_path, "pypi", None, "fp32") == Present(tmp_path / f"{LITE0}.onnx")
    assert find_present(tmp_path, "torchvision", None, "fp32") == Present()
