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
    wanted = {"label_sets/imagenet1k.json", "label_sets/imagenet1k.zh.json", "web/index.html", "web/samples/cat.jpg"}
    assert {f"resnet_service/{name}" for name in wanted} <= names
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
