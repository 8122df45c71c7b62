"""Errors of the command line: one line each, whatever is missing."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from resnet_service.cli.console import _EXTRAS, message, optional_packages, print_error, print_rows
from resnet_service.errors import RuntimeUnavailable, install_hint
from tests.support.servers import REPOSITORY

MISSING = {
    "pull --source hub": ("huggingface_hub", "pull"),
    "pull mobilenet_v2 --source torchvision": ("torchvision", "torch"),
    "evaluate model.pth images --plot plots": ("matplotlib", "plot"),
    "export model.pth --precision int8": ("nncf", "quantize"),
    "classify-batch images out": ("pyarrow", "batch"),
}
# Each line is a package that seems not to be installed, and a command.
SCRIPT = """
import sys
from resnet_service.cli.app import app
class Missing:
    def find_spec(name, path=None, target=None):
        if name == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing)
for line in sys.stdin:
    missing, *command = line.split()
    print(app(command, standalone_mode=False))
"""


def test_a_missing_package_is_one_line_that_names_the_extra(tmp_path: Path) -> None:
    for name in ("model.pth", "model.onnx"):
        (tmp_path / name).write_bytes(b"\0hello")  # as of a damaged model: the files must not be refused as text
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input="\n".join(f"{package} {command}" for command, (package, _) in MISSING.items()),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout.split() == ["1"] * len(MISSING)
    assert done.stderr.splitlines() == [
        f"error: This command needs the package {package}, which is not installed. {install_hint(extra)}"
        for package, extra in MISSING.values()
    ]


def test_the_ray_engine_names_its_extra(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input="ray classify-batch images out --engine ray",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout.split() == ["1"]
    assert "needs the package ray" in done.stderr
    assert "the extra ray" in done.stderr


def test_each_package_of_the_commands_is_named_with_its_extra() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = {
        extra: {Requirement(line).name.replace("-", "_") for line in project["optional-dependencies"][extra]}
        for extra in _EXTRAS.values()
    }
    assert set(_EXTRAS) == set().union(*extras.values())
    assert [package for package, extra in _EXTRAS.items() if package not in extras[extra]] == []


@pytest.mark.parametrize("name", ["resnet_service.nothing", "torch.no_such_part", None])
def test_other_missing_modules_remain_errors(name: str | None) -> None:
    with pytest.raises(ModuleNotFoundError), optional_packages():
        raise ModuleNotFoundError("no module", name=name)


def test_a_missing_optional_package_is_a_service_error() -> None:
    with pytest.raises(RuntimeUnavailable, match=r"timm.*the extra torch"), optional_packages():
        raise ModuleNotFoundError("no module", name="timm")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("\\[/]", "\\[/]"),
        ("[bold]x[/bold]", "[bold]x[/bold]"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\udc80", "\\udc80"),
        ("T恤 · ½ Espresso", "T恤 · ½ Espresso"),
    ],
)
def test_no_text_of_a_file_reaches_the_terminal_as_a_command(
    text: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message(text)
    print_error(text)
    print_rows([(text, text)])
    printed = capsys.readouterr()
    assert printed.err == f"{shown}\nerror: {shown}\n"
    assert printed.out.split() == f"{shown} {shown}".split()
