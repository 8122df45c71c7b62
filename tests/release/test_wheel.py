"""What is shipped is what was tested: the wheel, alone, and in an environment of what the lock for serving names."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import pytest
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation import make_schemabased_validator

import resnet_service
from tests.support.images import CAT
from tests.support.servers import REPOSITORY, server_process
from tools import release, sbom

pytestmark = pytest.mark.slow

TIME = 1_700_000_000
# Fast tests that need neither PyTorch nor a browser nor other people's clients.
SUITE = (
    *("api/test_admission", "api/test_content_negotiation", "api/test_health", "api/test_localization"),
    *("api/test_reload", "api/test_routes", "api/routes/test_predict_batch", "inference/test_executor"),
    *("models/test_metadata", "server/test_healthcheck", "system/test_files", "test_errors"),
)
EXPORTED = REPOSITORY / "checkpoints" / "resnet18-fashion-mnist-int8.onnx"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it as a release does: of the source archive, with the build backend that the lock names."""
    return release.build(REPOSITORY, tmp_path_factory.mktemp("wheel"), TIME)[0]


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of an environment made with `--require-hashes`; takes about half a minute and 350 MB."""
    return sbom.serving_environment(tmp_path_factory.mktemp("serving"), wheel)


def test_it_carries_labels_and_page_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        "label_sets/imagenet1k.json",
        "label_sets/imagenet1k.zh.json",
        "web/index.html",
        "web/samples/cat.jpg",
        *("swagger/index.html", "swagger/swagger-ui-bundle.js", "swagger/LICENSE", "swagger/NOTICE"),
    } | {
        *("py.typed", "client/client.py"),
    }
    assert {f"resnet_service/{name}" for name in wanted} <= names
    assert not [name for name in names if name.startswith("tests")]


def test_installed_without_a_checkout_it_finds_its_labels(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    script = (
        "import resnet_service.models.labels as labels, pathlib; "
        "print(labels.__file__); print(labels.find_label_file('imagenet1k', pathlib.Path('/nowhere/model.pth')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"},
    )
    module, found = done.stdout.splitlines()
    assert module.startswith(str(tmp_path / "site"))
    assert found == str(tmp_path / "site" / "resnet_service" / "label_sets" / "imagenet1k.json")


def test_the_serving_environment_holds_what_is_needed_and_neither_torch_nor_cuda(python: Path) -> None:
    script = (
        "import importlib.metadata as m, json; print(json.dumps(sorted(d.name.lower() for d in m.distributions())))"
    )
    done = subprocess.run(
        [python, "-I", "-c", script], capture_output=True, text=True, timeout=60, check=True, cwd=python.parent
    )
    names: list[str] = json.loads(done.stdout)
    assert "resnet-service" in names
    heavy = ("torch", "nvidia", "cuda", "triton", "timm", "onnxscript", "onnxruntime", "nncf", "scipy")
    assert not [name for name in names if any(part in name for part in heavy)]
    libraries = [path.name for path in python.parents[1].rglob("*.so*")]
    assert libraries
    assert not [name for name in libraries if any(part in name for part in ("cuda", "cudnn", "cublas", "nccl"))]
    # Nothing that any of them says it needs is missing, and all of it in a version that suits.
    check = [sys.executable, "-m", "pip", "--python", str(python), "check"]
    assert subprocess.run(check, timeout=120, check=False).returncode == 0


def test_the_serving_environment_serves(python: Path, tmp_path: Path) -> None:
    # It is the environment's own package that runs, not this checkout's.
    environment = {"PYTHONPATH": "", "PYTHONSAFEPATH": "1"}
    with server_process("--checkpoint", EXPORTED, python=python, **environment) as server:
        answer = httpx.post(f"{server.url}/predict", content=CAT.read_bytes(), timeout=60)
        assert answer.status_code == 200
        assert answer.json()["model"]["name"] == EXPORTED.stem
        assert httpx.get(f"{server.url}/metadata").json()["runtime"] == "openvino"
        opened = os.readlink(f"/proc/{server.process.pid}/exe")
        mapped = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert opened
    assert "torch" not in mapped
    assert str(python.parents[1]) in mapped


def test_the_suite_passes_on_the_installed_package(python: Path, tmp_path: Path) -> None:
    """As far as it needs no PyTorch. What only tests need is installed beside the environment, which stays as it is."""
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    freeze = [*pip, "freeze", "--exclude", "resnet-service"]
    installed = subprocess.run(freeze, capture_output=True, text=True, timeout=60, check=True).stdout
    (tmp_path / "installed.txt").write_text(installed)
    beside = tmp_path / "beside"
    # None of them may hide what serves behind another version of it.
    options = ["--target", str(beside), "--constraint", str(tmp_path / "installed.txt")]
    sbom.pip("--python", str(python), "install", *options, "pytest", "pytest-timeout", "httpx", "pyyaml", "packaging")
    (beside / "not_the_tree.py").write_text(
        f"import resnet_service\nassert resnet_service.__file__.startswith({str(python.parents[1])!r})\n"
    )
    command: list[str | Path] = [
        python,
        "-m",
        "pytest",
        "--noconftest",
        "-p",
        "not_the_tree",
        "-p",
        "no:cacheprovider",
        "-m",
        "not slow",
    ]
    done = subprocess.run(
        [*command, *(f"tests/{name}.py" for name in SUITE)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(beside), "PYTHONSAFEPATH": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_the_bill_of_materials_is_valid_complete_and_says_nothing_of_this_machine(python: Path, tmp_path: Path) -> None:
    target = tmp_path / "bill.json"
    sbom.describe(python, resnet_service.__version__, target)
    text = target.read_text()
    validator = make_schemabased_validator(OutputFormat.JSON, SchemaVersion.V1_6)
    assert validator.validate_str(text) is None
    for trace in (str(REPOSITORY), str(python.parents[1]), str(Path.home()), "file:", "/tmp"):  # noqa: S108
        assert trace not in text, trace
    bill = json.loads(text)
    assert bill["metadata"]["component"]["name"] == "resnet-service"
    assert bill["metadata"]["component"]["version"] == resnet_service.__version__
    installed = {path.name.split("-")[0].lower() for path in python.parents[1].rglob("*.dist-info")}
    billed = {component["name"].lower().replace("-", "_") for component in bill["components"]}
    assert installed - {"resnet_service"} == billed
    assert all(component["licenses"] for component in bill["components"])
    needed = next(node for node in bill["dependencies"] if node["ref"] == bill["metadata"]["component"]["bom-ref"])
    assert len(needed["dependsOn"]) >= 10

    sbom.describe(python, resnet_service.__version__, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == text


def test_the_client_needs_only_httpx(wheel: Path, tmp_path: Path) -> None:
    """As docs/clients.md installs it; about half a minute, and the package index must be reachable."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True, timeout=120)
    python = tmp_path / "venv" / "bin" / "python"
    for packages in (["--no-deps", str(wheel)], ["httpx"]):
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
        done = subprocess.run(install, capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == 0, f"pip could not install {packages}: {done.stderr}"
    script = (
        "from resnet_service.client import Client, Unreachable\n"
        "try:\n    Client('http://127.0.0.1:9').predict(b'x')\nexcept Unreachable:\n    print('works')"
    )
    done = subprocess.run([str(python), "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "works"
