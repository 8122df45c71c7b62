"""The batch engine of one machine: a thread for each CPU, which share one classifier.

Threads suffice, since decoding, resizing and the network release the interpreter lock, and they share one copy of the
model. With a small network the lock costs throughput: at 3 ms an image, two threads had 0.77 of the throughput of two
processes (``python -m benchmarks.batch``).
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from resnet_service.batch.outputs import Output
from resnet_service.batch.shards import Shard
from resnet_service.batch.worker import Outcome, run_shard
from resnet_service.inference.base import ImageClassifier


def run_local(
    shards: Sequence[Shard], classifier: ImageClassifier, output: Output, *, top_k: int | None, workers: int
) -> Iterator[Outcome]:
    """Run all shards; yield the outcome of each when it is done.

    Args:
        shards: The shards.
        classifier: Opened for at least ``workers`` images at once.
        output: Folder of the results.
        top_k: Classes for each image; ``None`` for the default.
        workers: Number of threads.

    Raises:
        ServiceError: As for ``run_shard``; running shards are finished first.

    """
    with ThreadPoolExecutor(workers, thread_name_prefix="batch") as pool:
        remaining = iter(shards)
        running: set[Future[Outcome]] = set()
        while True:
            for shard in remaining:
                running.add(pool.submit(run_shard, shard, classifier, output, top_k))
                if len(running) >= 2 * workers:
                    break
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            try:
                for future in finished:
                    yield future.result()
            except BaseException:  # an error, or a closed generator: start no more shards
                pool.shutdown(wait=False, cancel_futures=True)
                raise
