"""No duration is measured with a clock that can be set."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path("src/resnet_service")
MODULES = sorted(PACKAGE.rglob("*.py"))

# What operators set: time synchronisation, summer time, a mistake.
WALL_CLOCKS = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}

# Dates that others read; no duration is computed from them here.
DATED = {
    "api.dependencies": {"datetime.now"},  # when the service started, in /metadata
    "client.calls": {"time.time"},  # Retry-After may be a date
    "observability.tracing": {"time.time_ns"},  # OpenTelemetry's spans begin and end at dates
    "system.shared_state": {"time.time"},  # when the service started, in /metrics
}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def names(tree: ast.AST) -> set[str]:
    """Return what is taken from modules and classes by a dot, and what is imported by name."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = node.value
            last = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
            found.add(f"{last}.{node.attr}")
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_every_clock_is_monotonic(path: Path) -> None:
    assert names(ast.parse(path.read_text())) & WALL_CLOCKS == DATED.get(module_name(path), set())


@pytest.mark.parametrize("line", ["time.time()", "from time import time", "datetime.datetime.now()", "datetime.now()"])
def test_a_clock_that_can_be_set_would_be_found(line: str) -> None:
    assert names(ast.parse(line)) & WALL_CLOCKS
