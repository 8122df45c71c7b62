"""What the documents call a proof is a test that there is."""

import re

import pytest

from tests.support.servers import REPOSITORY

SOURCES = {path: path.read_text() for path in sorted((REPOSITORY / "tests").rglob("test_*.py"))}


@pytest.mark.parametrize("document", ["SECURITY.md", "docs/reliability.md"])
def test_every_test_that_is_named_exists(document: str) -> None:
    text = (REPOSITORY / document).read_text()
    files = set(re.findall(r"tests/[\w/]*test_\w+\.py", text))
    functions = set(re.findall(r"`(test_\w+)`", text))
    assert files
    assert files <= {str(path.relative_to(REPOSITORY)) for path in SOURCES}
    assert functions <= {name for source in SOURCES.values() for name in re.findall(r"^def (test_\w+)\(", source, re.M)}


@pytest.mark.parametrize("document", ["SECURITY.md", "docs/reliability.md"])
def test_every_line_of_what_is_promised_has_a_proof(document: str) -> None:
    proven, rows = False, 0
    for line in (REPOSITORY / document).read_text().splitlines():
        if not line.startswith("|"):
            proven = False
        elif line.endswith(("| shown by |", "| proof |")):
            proven = True
        elif proven and not line.startswith("|---"):
            rows += 1
            assert "test_" in line.split("|")[-2], line
    assert rows > 10
