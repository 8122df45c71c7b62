"""How a batch is divided: parts that are done as a whole, and named for what is in them."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from resnet_service.batch.items import Picture

_SMALLEST, _LARGEST = 16, 1000
_WISHED = 256  # parts of a small batch: enough that many workers end at about the same time
# A cluster hands out several parts together, a task, since each task costs its one driver some ten milliseconds: the
# more workers ask it for tasks, the longer a task must take.
_TASK_PICTURES = 100
_TASK_PICTURES_PER_WORKER = 5
_TASKS_PER_WORKER = 4  # at least, so that all workers end at about the same time


@dataclass(frozen=True)
class Part:
    """Pictures whose results go into one file. The same pictures always make the same name."""

    pictures: tuple[Picture, ...]

    @property
    def name(self) -> str:
        """The file's name, from a digest over the pictures' identities."""
        digest = hashlib.sha256()
        for source, row in (picture.identity for picture in self.pictures):
            digest.update(f"{source}\0{'' if row is None else row}\0".encode())
        return f"part-{digest.hexdigest()[:32]}.parquet"


def part_size(total: int) -> int:
    """Return how many pictures a part of a batch of ``total`` has; a run that is killed loses that many a worker."""
    return min(_LARGEST, max(_SMALLEST, total // _WISHED))


def task_count(parts: int, pictures: int, workers: int) -> int:
    """Return into how many tasks ``parts`` with ``pictures`` in all are gathered for a cluster's ``workers``."""
    wished = pictures // max(_TASK_PICTURES, _TASK_PICTURES_PER_WORKER * workers)
    return min(parts, max(wished, _TASKS_PER_WORKER * workers))


def plan(pictures: Sequence[Picture], done: set[tuple[str, int | None]]) -> Iterator[Part]:
    """Divide what is not ``done``.

    The size depends on all pictures and not on the missing ones. So as long as the input stays the same, taking whole
    parts away leaves the others as they were, and a worker that outlived a killed run (on another machine, say) writes
    the very file that the next run writes: whoever comes last, nothing is there twice.
    """
    missing = [picture for picture in pictures if picture.identity not in done]
    size = part_size(len(pictures))
    for start in range(0, len(missing), size):
        yield Part(tuple(missing[start : start + size]))
