"""Imports of other packages without what they import for something that is not used here."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


def block_import(module: str) -> None:
    """Let ``module`` seem not to be installed for as long as this process lives, unless it is imported already."""
    sys.modules.setdefault(module, None)  # type: ignore[arg-type]  # to Python: there is none


@contextmanager
def import_blocked(module: str) -> Iterator[None]:
    """Let ``module`` seem not to be installed, unless it is imported already."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # to Python: there is none
    try:
        yield
    finally:
        del sys.modules[module]
