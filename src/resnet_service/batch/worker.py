"""The work of every engine: read, classify and write one shard, prefetching the next images."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from resnet_service.batch.inputs import Read, read_images
from resnet_service.batch.outputs import Output, Result
from resnet_service.batch.shards import Shard
from resnet_service.errors import InvalidModelOutput, OutOfResources, RequestError, ServiceError
from resnet_service.inference.base import ImageClassifier
from resnet_service.inference.results import Classification
from resnet_service.system.resources import EXHAUSTION, is_exhaustion

_MAX_EXAMPLES = 3
# Seconds before each new attempt at an image for which memory, descriptors or threads were missing: other workers may
# hold them.
_RETRY_SECONDS = (0.1, 0.5, 2.0)


class Outcome(NamedTuple):
    """The outcome of a shard: images with a row, those of them with an error, and images that could not be read.

    ``examples`` are sentences about the first few failures.
    """

    written: int
    refused: int
    unread: int
    examples: tuple[str, ...]


def run_shard(shard: Shard, classifier: ImageClassifier, output: Output, top_k: int | None) -> Outcome:
    """Classify one shard's images, one after the other, and write their rows; an invalid image affects no other.

    Raises:
        OutOfResources: There was no memory, descriptor or thread for an image, in several attempts.
        ServiceError: Another error that does not concern a single image; for example, the results cannot be written.

    """
    results: list[Result] = []
    examples: list[str] = []
    unread = 0
    for group in _prefetched(shard):
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
    return Outcome(len(results), refused, unread, tuple(examples[:_MAX_EXAMPLES]))


def _answer(read: Read, classifier: ImageClassifier, top_k: int | None) -> Classification | ServiceError:
    if read.error is not None:
        return read.error
    for seconds in (*_RETRY_SECONDS, None):
        try:
            return classifier.classify(read.data, top_k)
        except (RequestError, InvalidModelOutput) as error:  # permanent errors of this image
            return error
        except (OutOfResources, *EXHAUSTION) as error:
            if not (isinstance(error, OutOfResources) or is_exhaustion(error)):
                raise
            if seconds is None:
                raise OutOfResources(
                    f"{read.path}: There is too little memory, or there are too few descriptors or threads. Written "
                    "results stay; run again to continue, perhaps with fewer --workers."
                ) from error
            time.sleep(seconds)
    raise AssertionError("the last attempt returns or raises")


def _prefetched(shard: Shard) -> Iterator[list[Read]]:
    """Yield groups of images; while one is being classified, the next is read."""
    groups = read_images(shard.images)
    with ThreadPoolExecutor(1, thread_name_prefix="reading") as reader:
        upcoming = reader.submit(next, groups, None)
        while (group := upcoming.result()) is not None:
            upcoming = reader.submit(next, groups, None)
            yield group
