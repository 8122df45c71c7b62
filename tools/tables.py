"""Write the tables that the code knows into the pages that show them: ``make tables``."""

import re
from collections.abc import Callable
from pathlib import Path

from resnet_service.api.problem_details import problems_table
from resnet_service.cli.flags import settings_table
from resnet_service.observability.metrics import metrics_table

DOCS = Path(__file__).parent.parent / "docs"
TABLES: dict[str, Callable[[], str]] = {
    "settings.md": settings_table,
    "metrics.md": metrics_table,
    "api.md": problems_table,
}


def with_table(page: str, table: str) -> str:
    """Return ``page`` with ``table`` in place of the one that begins with the same line."""
    head = table.split("\n", 1)[0]
    old = re.compile(rf"^{re.escape(head)}\n(?:\|.*\n)*", re.MULTILINE)
    if not old.search(page):
        raise LookupError(f"no table begins with {head!r}")
    return old.sub(lambda _: f"{table}\n", page, count=1)


if __name__ == "__main__":
    for name, table in TABLES.items():
        path = DOCS / name
        path.write_text(with_table(path.read_text(), table()))
