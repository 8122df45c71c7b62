"""What is shipped is what was tested: the wheel, installed alone, finds its labels and its page."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from support.servers import REPOSITORY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder)]
    command.append(str(REPOSITORY))
    subprocess.run(command, check=True, timeout=180)
    return next(folder.glob("*.whl"))


def test_it_carries_labels_and_page_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        *("resnet_service/label_sets/imagenet1k.json", "resnet_service/web/index.html"),
        *("resnet_service/py.typed", "resnet_service/client/client.py"),
    } <= names
    assert not [name for name in names if name.startswith("tests")]


def test_installed_without_a_checkout_it_finds_its_labels(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    script = (
        "import resnet_service.labels as labels, pathlib; "
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
