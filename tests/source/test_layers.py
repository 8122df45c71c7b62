"""The contracts in pyproject.toml name every package, and the tests import no test module."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools.tables import CONTRACTS

PACKAGE = Path("src/resnet_service")


def children(package: Path) -> set[str]:
    """Return the dotted names of the modules and packages in ``package``."""
    parent = ".".join(package.relative_to("src").parts)
    found = {path for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    return {f"{parent}.{path.stem}" for path in found if path.name != "__init__.py"}


def contract(source: str) -> dict[str, Any]:
    """Return the contract that forbids ``source`` to import others."""
    (found,) = (one for one in CONTRACTS if one.get("source_modules") == [source])
    return found  # type: ignore[no-any-return]


def test_the_client_may_import_no_other_module_of_the_package() -> None:
    # `import resnet_service`, for its version, imports moved_paths.
    others = children(PACKAGE) - {"resnet_service.client", "resnet_service.moved_paths"}
    assert set(contract("resnet_service.client")["forbidden_modules"]) == others


def test_the_health_check_may_import_no_other_module_of_the_package() -> None:
    others = children(PACKAGE) - {"resnet_service.server"} | children(PACKAGE / "server")
    forbidden = contract("resnet_service.server.healthcheck")["forbidden_modules"]
    assert set(forbidden) == others - {"resnet_service.server.healthcheck"}


@pytest.mark.parametrize("path", sorted(Path("tests").rglob("*.py")), ids=str)
def test_no_module_imports_a_test_module(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            imported |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    tests = {name for name in imported if name.startswith("tests.")}
    assert not {name for name in tests if not name.startswith("tests.support")}


def test_the_package_alone_imports_no_other_package() -> None:
    program = (
        "import sys; before = set(sys.modules); import resnet_service\n"
        "imported = {name.partition('.')[0] for name in set(sys.modules) - before if sys.modules[name]}\n"
        "print(*imported - sys.stdlib_module_names)"
    )
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert child.stdout.split() == ["resnet_service"]
