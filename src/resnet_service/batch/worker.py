"""What every engine runs: one part read, classified and written, the next images being read meanwhile."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from resnet_service.batch.inputs import Read, read_images
from resnet_service.batch.outputs import Output, Result
from resnet_service.batch.shards import Shard
from resnet_service.errors import InvalidModelOutput, RequestError, ServiceError
from resnet_service.inference.base import ImageClassifier
from resnet_service.inference.results import Classification

_SHOWN = 3


class Outcome(NamedTuple):
    """What became of a part: images with a row, those of them with an error, and those that could not be read.

    ``examples`` are sentences about the first few that failed.
    """

    written: int
    refused: int
    unread: int
    examples: tuple[str, ...]


def run_shard(shard: Shard, classifier: ImageClassifier, output: Output, top_k: int | None) -> Outcome:
    """Classify one part's images, one after the other, and write their rows. A bad image costs no other.

    Raises:
        ServiceError: Something that concerns not one image but all: the results cannot be written, …

    """
    results: list[Result] = []
    examples: list[str] = []
    unread = 0
    for group in _ahead(shard):
        for read in group:
            if read.unread is not None:
                unread += 1
                examples.append(f"{read.path}: {read.unread}.")
            else:
                answer = _answer(read, classifier, top_k)
                results.append(Result(read.path, read.image, answer))
                if isinstance(answer, ServiceError):
                    examples.append(f"{read.path}: {answer}")
    if results:
        output.write(shard.name, results)
    refused = sum(isinstance(result.answer, ServiceError) for result in results)
    return Outcome(len(results), refused, unread, tuple(examples[:_SHOWN]))


def _answer(read: Read, classifier: ImageClassifier, top_k: int | None) -> Classification | ServiceError:
    if read.error is not None:
        return read.error
    try:
        return classifier.classify(read.data, top_k)
    except (RequestError, InvalidModelOutput) as error:  # of this image, today and tomorrow
        return error


def _ahead(shard: Shard) -> Iterator[list[Read]]:
    """Read one group ahead of the one that is being classified."""
    groups = read_images(shard.images)
    with ThreadPoolExecutor(1, thread_name_prefix="reading") as reader:
        coming = reader.submit(next, groups, None)
        while (group := coming.result()) is not None:
            coming = reader.submit(next, groups, None)
            yield group
