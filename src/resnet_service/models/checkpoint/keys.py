"""Checks of a ``state_dict``: keys and shapes are those of an architecture, and all numbers are finite."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from resnet_service.errors import NonFiniteWeights, StateDictMismatch
from resnet_service.models.checkpoint.arrays import Array

# Checkpoints from before 2018 lack these counters, which inference never reads.
COUNTER = "num_batches_tracked"

_MAX_NAMES = 5


def check_keys(
    found: Mapping[str, Sequence[int]], expected: Mapping[str, Sequence[int]], arch: str, where: str
) -> None:
    """Compare the shapes in a file with those of the architecture; ``num_batches_tracked`` may be missing.

    Raises:
        StateDictMismatch: With the keys that are missing, unexpected or of another shape.

    """
    problems = {
        "missing": [key for key in sorted(expected.keys() - found.keys()) if not key.endswith(COUNTER)],
        "unexpected": sorted(found.keys() - expected.keys()),
        "of another shape": [
            f"{key} {list(found[key])} instead of {list(expected[key])}"
            for key in sorted(expected.keys() & found.keys())
            if tuple(found[key]) != tuple(expected[key])
        ],
    }
    if any(problems.values()):
        summary = "; ".join(f"{problem}: {first_of(keys)}" for problem, keys in problems.items() if keys)
        raise StateDictMismatch(f"{where} does not fit {arch}: {summary}.")


def check_finite(state: Mapping[str, Array], where: str) -> None:
    """Refuse arrays with NaN or infinity.

    Raises:
        NonFiniteWeights: With the keys of these arrays.

    """
    names = [key for key, array in state.items() if not np.isfinite(array).all()]
    if names:
        raise NonFiniteWeights(f"{where} has NaN or infinity in {first_of(names)}; the training has diverged.")


def first_of(names: Iterable[str]) -> str:
    """Join the first few names, and count the others."""
    names = list(names)
    more = len(names) - _MAX_NAMES
    return ", ".join(names[:_MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
