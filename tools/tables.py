"""Write the tables that are generated from the code into the documentation: ``make tables``."""

import ast
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

from resnet_service.api.problem_details import problems_table
from resnet_service.cli.flags import settings_table
from resnet_service.observability.metrics import metrics_table

REPOSITORY = Path(__file__).parent.parent
DOCS = REPOSITORY / "docs"
PACKAGE = REPOSITORY / "src" / "resnet_service"

CONTRACTS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
(_ROOT,) = (contract for contract in CONTRACTS if contract.get("containers") == [PACKAGE.name])
# Packages and root modules from top to bottom: each imports only what comes later.
LAYERS = tuple(name for layer in _ROOT["layers"] for name in layer.split(" | ") if not name.startswith("__"))
# What stands beside the layers.
BESIDE = (*_ROOT["exhaustive_ignores"], "web", "swagger")
# Folders without Python, and thus without docstrings.
ASSETS = {
    "web": "The page at `/`: HTML, style and scripts.",
    "swagger": "Swagger UI, the reference at `/docs`.",
}


def packages_table() -> str:
    """Return packages and root modules as a Markdown table, each with the first paragraph of its docstring.

    Raises:
        LookupError: A package or root module is in neither ``LAYERS`` nor ``BESIDE``.

    """
    rows = ["| package | what it holds |", "|---|---|"]
    for path in _top_level():
        if path.is_file():
            rows.append(_row(path))
        elif path.name in ASSETS:
            rows.append(f"| `{path.name}/` | {ASSETS[path.name]} |")
        else:
            rows += [_row(init) for init in sorted(path.rglob("__init__.py"))]
    return "\n".join(rows)


def modules_table() -> str:
    """Return the modules of all packages as a Markdown table, each with the first paragraph of its docstring."""
    rows = ["| module | what it holds |", "|---|---|"]
    for package in filter(Path.is_dir, _top_level()):
        # The modules of a package come before those of the packages inside it.
        modules = sorted(package.rglob("*.py"), key=lambda path: (path.parent, path.name))
        rows += [_row(module) for module in modules if module.name != "__init__.py"]
    return "\n".join(rows)


TABLES: dict[str, tuple[Callable[[], str], ...]] = {
    "settings.md": (settings_table,),
    "metrics.md": (metrics_table,),
    "api.md": (problems_table,),
    "architecture.md": (packages_table, modules_table),
}


def with_table(page: str, table: str) -> str:
    """Return ``page`` with the table that has the same first line replaced by ``table``."""
    head = table.split("\n", 1)[0]
    old = re.compile(rf"^{re.escape(head)}\n(?:\|.*\n)*", re.MULTILINE)
    if not old.search(page):
        raise LookupError(f"no table begins with {head!r}")
    return old.sub(lambda _: f"{table}\n", page, count=1)


def _top_level() -> Iterator[Path]:
    """Yield packages and root modules, in the order of the layers."""
    found = {
        path.stem: path for path in PACKAGE.iterdir() if not path.stem.startswith("__") and path.suffix in ("", ".py")
    }
    if unplaced := found.keys() - {*LAYERS, *BESIDE}:
        raise LookupError(f"neither in LAYERS nor in BESIDE: {', '.join(sorted(unplaced))}")
    return (found[name] for name in (*LAYERS, *BESIDE) if name in found)


def _row(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    summary = " ".join(docstring.split("\n\n", 1)[0].split()).replace("``", "`").replace("|", "\\|")
    name = path.relative_to(PACKAGE).as_posix().removesuffix("__init__.py")
    return f"| `{name}` | {summary} |"


if __name__ == "__main__":
    for name, tables in TABLES.items():
        path = DOCS / name
        page = path.read_text()
        for table in tables:
            page = with_table(page, table())
        path.write_text(page)
