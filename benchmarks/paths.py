"""Paths of the benchmarks, and the environment of measured programs."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
BENCHMARKS = REPOSITORY / "benchmarks"
CACHE = BENCHMARKS / ".cache"

# No other variables are passed on: thread counts, an allocator or a BLAS kernel set in the shell would change the
# results, and with PYTHONDONTWRITEBYTECODE every start would compile its modules again.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "JAVA_HOME")


def environment(**added: str) -> dict[str, str]:
    """Return the environment of a measured program."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | added
