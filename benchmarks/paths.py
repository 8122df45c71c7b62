"""Where things are, and what the programs that are measured find around them."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
BENCHMARKS = REPOSITORY / "benchmarks"
CACHE = BENCHMARKS / ".cache"

# Everything else stays behind: thread counts, allocators or a BLAS kernel set in one's shell would change the figures,
# and PYTHONDONTWRITEBYTECODE would have every start compile its modules again.
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "JAVA_HOME")


def environment(**added: str) -> dict[str, str]:
    """Return the environment for a program that is measured."""
    return {name: os.environ[name] for name in _KEPT if name in os.environ} | added
