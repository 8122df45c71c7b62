"""From settings to the classifier that they ask for."""

import threading
from concurrent.futures import Future

from resnet_service.classifier import Classifier
from resnet_service.cpus import available_cpus
from resnet_service.default_model import choose_model
from resnet_service.runtime import find_runtime
from resnet_service.settings import Settings


def worker_count(settings: Settings) -> int:
    """Return how many pictures are worked on at once."""
    return settings.workers or available_cpus()


def open_classifier(settings: Settings) -> Classifier:
    """Load the model and its labels; errors as for ``Classifier.open``."""
    return Classifier.open(
        choose_model(settings.checkpoint),
        runtime=settings.runtime,
        arch=settings.arch,
        label_file=settings.labels,
        workers=worker_count(settings),
        threads=settings.threads,
        max_pixels=settings.max_pixels,
        decoding=settings.decode,
    )


def begin_opening(settings: Settings) -> Future[Classifier]:
    """Load in a thread of its own, so that the caller can import the web framework meanwhile.

    What the thread will need is imported before it begins: two threads that import at once can meet half a module.

    Raises:
        ServiceError: There is no such file, or nothing that runs it; the result raises what is found out later.

    """
    find_runtime(choose_model(settings.checkpoint), settings.runtime)
    opening: Future[Classifier] = Future()

    def open_() -> None:
        try:
            opening.set_result(open_classifier(settings))
        except BaseException as error:  # noqa: BLE001 - whatever it is, who waits for the result raises it
            opening.set_exception(error)

    # A daemon: whoever fails in the meantime should not wait for a model that nobody will use.
    threading.Thread(target=open_, name="opening", daemon=True).start()
    return opening
