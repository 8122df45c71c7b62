"""Keys and shapes of a ``state_dict``, compared with those of an architecture; without PyTorch."""

from collections.abc import Iterable, Mapping, Sequence

from resnet_service.errors import StateDictMismatch

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


def first_of(names: Iterable[str]) -> str:
    """Join the first few names, and count the others."""
    names = list(names)
    more = len(names) - _MAX_NAMES
    return ", ".join(names[:_MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
