"""How a batch is divided: parts that are done as a whole, and named for what is in them."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from resnet_service.batch.items import Image

_SMALLEST, _LARGEST = 16, 1000
_WISHED = 256  # parts of a small batch: enough that many workers end at about the same time
# A cluster hands out several parts together, a task, since each task costs its one driver some ten milliseconds: the
# more workers ask it for tasks, the longer a task must take.
_TASK_IMAGES = 100
_TASK_IMAGES_PER_WORKER = 5
_TASKS_PER_WORKER = 4  # at least, so that all workers end at about the same time


@dataclass(frozen=True)
class Shard:
    """Images whose results go into one file. The same images always make the same name."""

    images: tuple[Image, ...]

    @property
    def name(self) -> str:
        """The file's name, from a digest over the images' identities."""
        digest = hashlib.sha256()
        for source, row in (image.identity for image in self.images):
            digest.update(f"{source}\0{'' if row is None else row}\0".encode())
        return f"part-{digest.hexdigest()[:32]}.parquet"


def part_size(total: int) -> int:
    """Return how many images a part of a batch of ``total`` has; a run that is killed loses that many a worker."""
    return min(_LARGEST, max(_SMALLEST, total // _WISHED))


def task_count(shards: int, images: int, workers: int) -> int:
    """Return into how many tasks ``shards`` with ``images`` in all are gathered for a cluster's ``workers``."""
    wished = images // max(_TASK_IMAGES, _TASK_IMAGES_PER_WORKER * workers)
    return min(shards, max(wished, _TASKS_PER_WORKER * workers))


def plan(images: Sequence[Image], done: set[tuple[str, int | None]]) -> Iterator[Shard]:
    """Divide what is not ``done``.

    The size depends on all images and not on the missing ones. So as long as the input stays the same, taking whole
    parts away leaves the others as they were, and a worker that outlived a killed run (on another machine, say) writes
    the very file that the next run writes: whoever comes last, nothing is there twice.
    """
    missing = [image for image in images if image.identity not in done]
    size = part_size(len(images))
    for start in range(0, len(missing), size):
        yield Shard(tuple(missing[start : start + size]))
