"""The engine of one machine: a thread for each CPU, all with one classifier.

Threads, since decoding, resizing and the network run outside Python's lock: one copy of the model, nothing to send, and
no process to be lost. Where the network is small, the lock is felt: at 3 ms an image, two threads did 0.77 of what two
processes did (``python -m benchmarks.batch``).
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
    """Do all parts; yield what became of each when it is done.

    Args:
        shards: What to do.
        classifier: Opened for at least ``workers`` images at once.
        output: Where results go.
        top_k: Answers for each image; ``None`` for the default.
        workers: Threads.

    Raises:
        ServiceError: As for ``run_shard``; parts that are in work are finished first.

    """
    with ThreadPoolExecutor(workers, thread_name_prefix="batch") as pool:
        coming = iter(shards)
        running: set[Future[Outcome]] = set()
        while True:
            for shard in coming:
                running.add(pool.submit(run_shard, shard, classifier, output, top_k))
                if len(running) >= 2 * workers:
                    break
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            try:
                for one in finished:
                    yield one.result()
            except BaseException:  # whatever ends it, a closed generator included: begin nothing more
                pool.shutdown(wait=False, cancel_futures=True)
                raise
