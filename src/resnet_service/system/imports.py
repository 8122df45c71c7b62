"""Imports of other packages without optional dependencies that this service does not use."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


def block_import(module: str) -> None:
    """Make ``module`` appear not to be installed for the rest of this process, unless it is imported already."""
    sys.modules.setdefault(module, None)  # type: ignore[arg-type]  # None makes the import fail


@contextmanager
def import_blocked(module: str) -> Iterator[None]:
    """Make ``module`` appear not to be installed inside the block, unless it is imported already."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # None makes the import fail
    try:
        yield
    finally:
        del sys.modules[module]
