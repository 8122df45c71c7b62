"""What may execute a file, and how old a dependency may be; read from the source."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

PROJECT = tomllib.loads(Path("pyproject.toml").read_text())["project"]
DECLARED = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["torch"]]

# The first releases without a published hole, or an unpublished one of ours, that concerns a server.
FLOORS = {
    "torch": "2.10",  # CVE-2025-32434, CVE-2026-24747
    "python-multipart": "0.0.31",  # CVE-2024-24762, CVE-2024-53981, CVE-2026-24486, CVE-2026-40347, CVE-2026-42561
    "starlette": "1.3.1",  # CVE-2024-47874, CVE-2025-54121, CVE-2025-62727
    "h11": "0.16",  # CVE-2025-43859
    "pillow": "13.0",  # 12.3 reads the values of EXIF and MPF fields that overlap: of 9 MB, tens of gigabytes
}

# The one process that may execute what is in a file, after --trust-pickle.
CONVERTER = Path("src/resnet_service/export/unpickle.py")
# Shows what such files can do, with files that it made itself.
COMPARISON = Path("benchmarks/serialization")
EXECUTES = ("weights_only=False", "jit.load", "torch.package", "pickle.load", "pickle.Unpickler", "add_safe_globals")
EXECUTES_TOO = ("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "torch.hub", "dill", "joblib", "marshal.load", "shelve")


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text.partition("+")[0])[:3])


@pytest.mark.parametrize(("package", "floor"), FLOORS.items())
def test_no_release_with_a_known_hole_is_allowed_or_installed(package: str, floor: str) -> None:
    (declared,) = (line for line in DECLARED if re.split(r"[><=~!; ]", line)[0] == package)
    least = re.search(r">=([\d.]+)", declared)
    assert least, declared
    assert numbers(least[1]) >= numbers(floor)
    assert numbers(version(package)) >= numbers(floor)


def test_nothing_in_the_tree_may_execute_a_file_but_the_converter() -> None:
    sources = [
        path
        for folder in ("src", "tools", "examples", "benchmarks", "fuzz")
        for path in Path(folder).rglob("*.py")
        # The peers' environments in the cache are not ours.
        if ".cache" not in path.parts and COMPARISON not in path.parents
    ]
    assert CONVERTER in sources
    for path in sources:
        text = path.read_text()
        for name in EXECUTES + EXECUTES_TOO:
            assert name not in text or path == CONVERTER, f"{name} in {path}"


def test_the_converter_is_a_process_of_its_own() -> None:
    imported = [path for path in Path("src").rglob("*.py") if "import unpickle" in path.read_text()]
    assert imported == []
