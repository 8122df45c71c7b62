"""The results of a comparison, as they are kept in `docs/benchmarks/serialization.json`."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, Self

from benchmarks.serialization.damage import Damage, Region


class Attempt(NamedTuple):
    """A loader's treatment of a file with a canary: whether the code ran, and the error, if any."""

    ran: bool
    error: str


@dataclass
class Figures:
    """What was measured of one format; lists have an entry for each round.

    ``difference`` is the largest difference of a logit from the original's, relative to the largest logit;
    ``same_first`` is the number of ``images`` whose most probable class is the original's. ``damage`` has an entry for
    each region, ``canary`` one for each loader that was tried. ``older`` and ``newer`` say, for each other version of
    PyTorch, whether this one reads its file, and whether it reads this file: ``same`` or ``different`` logits, or the
    class of the error.
    """

    bytes: int
    seconds: list[float] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    difference: float = 0.0
    same_first: int = 0
    images: int = 0
    needs_code: bool = True
    needs_pytorch: bool = True
    has_preprocessing: bool = False
    has_labels: bool = False
    damage: dict[Region, Damage] = field(default_factory=dict)
    canary: dict[str, Attempt] = field(default_factory=dict)
    older: dict[str, str] = field(default_factory=dict)
    newer: dict[str, str] = field(default_factory=dict)

    @property
    def to_answer(self) -> float:
        """Seconds from the start of the process to its first answer."""
        return median(self.seconds)

    @property
    def latency(self) -> float:
        """Milliseconds that one image takes."""
        return median(self.milliseconds)

    @property
    def memory(self) -> float:
        """The peak memory of the process, in bytes."""
        return median(self.peak_bytes)


@dataclass
class Results:
    """All results of a run."""

    date: str
    machine: dict[str, str]
    versions: dict[str, str]
    settings: dict[str, Any]
    formats: dict[str, Figures] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self) | {"formats": _plain(self.formats)}, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what ``write`` wrote."""
        content = json.loads(path.read_text())
        formats = {name: _figures(one) for name, one in content.pop("formats").items()}
        return cls(formats=formats, **content)


def _plain(formats: dict[str, Figures]) -> dict[str, Any]:
    """Return figures with the names of all fields; ``asdict`` keeps named tuples, which JSON would write as lists."""
    return {
        name: asdict(one)
        | {
            "damage": {region: found._asdict() for region, found in one.damage.items()},
            "canary": {loader: found._asdict() for loader, found in one.canary.items()},
        }
        for name, one in formats.items()
    }


def _figures(content: dict[str, Any]) -> Figures:
    damage = {region: Damage(**found) for region, found in content.pop("damage").items()}
    canary = {loader: Attempt(**found) for loader, found in content.pop("canary").items()}
    return Figures(damage=damage, canary=canary, **content)
