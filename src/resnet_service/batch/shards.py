"""Division of a batch into shards, which are named by a digest of their images."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from resnet_service.batch.items import BatchImage

_MIN_IMAGES, _MAX_IMAGES = 16, 1000  # of a shard
_MIN_SHARDS = 256  # of a batch that has enough images, so that many workers end at about the same time
# A task of a cluster has several shards, since each task costs the driver about ten milliseconds: the more workers ask
# the driver for tasks, the longer a task must take.
_TASK_IMAGES = 100
_TASK_IMAGES_PER_WORKER = 5
_TASKS_PER_WORKER = 4  # at least, so that all workers end at about the same time


@dataclass(frozen=True)
class Shard:
    """Images whose results go into one file. The same images always have the same file name."""

    images: tuple[BatchImage, ...]

    @property
    def name(self) -> str:
        """The file's name, from a digest over the images' identities."""
        digest = hashlib.sha256()
        for source, row in (image.identity for image in self.images):
            digest.update(f"{source}\0{'' if row is None else row}\0".encode())
        return f"part-{digest.hexdigest()[:32]}.parquet"


def shard_size(total: int) -> int:
    """Return how many images a shard has in a batch of ``total``; a killed run loses up to that many per worker."""
    return min(_MAX_IMAGES, max(_MIN_IMAGES, total // _MIN_SHARDS))


def task_count(shards: int, images: int, workers: int) -> int:
    """Return the number of tasks for ``shards`` with ``images`` in all and a cluster of ``workers``."""
    target = images // max(_TASK_IMAGES, _TASK_IMAGES_PER_WORKER * workers)
    return min(shards, max(target, _TASKS_PER_WORKER * workers))


def plan(images: Sequence[BatchImage], done: set[tuple[str, int | None]]) -> Iterator[Shard]:
    """Divide the images that are not ``done`` into shards.

    The shard size depends on all images, not on the missing ones. So if the input is unchanged and whole shards are
    done, the other shards stay the same. A worker that outlives a killed run (on another machine, for example) then
    writes the same file as the next run, and no image gets two rows.
    """
    missing = [image for image in images if image.identity not in done]
    size = shard_size(len(images))
    for start in range(0, len(missing), size):
        yield Shard(tuple(missing[start : start + size]))
