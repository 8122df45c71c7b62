"""From settings to the classifier that they ask for."""

import asyncio
import importlib.readers  # noqa: F401 - what finding a file of the package imports the first time
import threading
from concurrent.futures import Future

from resnet_service.inference.classifier import Classifier, ClassifierConfig
from resnet_service.models.discovery import choose_model
from resnet_service.runtimes.registry import find_runtime
from resnet_service.settings import Settings
from resnet_service.system.cpus import available_cpus


def worker_count(settings: Settings) -> int:
    """Return how many images are worked on at once."""
    return settings.workers or available_cpus()


def open_classifier(settings: Settings) -> Classifier:
    """Load the model and its labels, and try it; errors as for ``Classifier.open`` and ``Classifier.warm_up``."""
    classifier = Classifier.open(
        choose_model(settings.checkpoint),
        ClassifierConfig(
            runtime=settings.runtime,
            arch=settings.arch,
            label_file=settings.labels,
            workers=worker_count(settings),
            threads=settings.threads,
            max_pixels=settings.max_pixels,
            decoding=settings.decode,
        ),
    )
    classifier.warm_up()
    return classifier


class ModelLoader:
    """A model that is loaded in a thread of its own, so that its caller can import the web framework meanwhile.

    What the thread will need is imported before it begins: two threads that import at once can meet half a module.

    Raises:
        ServiceError: There is no such file, or nothing that runs it; ``result`` raises what is found out later.

    """

    def __init__(self, settings: Settings) -> None:
        find_runtime(choose_model(settings.checkpoint), settings.runtime)
        self._result: Future[Classifier] = Future()
        # No daemon: a process that ends while OpenVINO compiles would abort.
        threading.Thread(target=_open, args=(settings, self._result), name="opening").start()

    async def result(self) -> Classifier:
        """Return the classifier, once, and do not keep it: it should go when another takes its place."""
        result, self._result = self._result, Future()
        return await asyncio.wrap_future(result)


def _open(settings: Settings, result: Future[Classifier]) -> None:
    try:
        result.set_result(open_classifier(settings))
    except BaseException as error:  # noqa: BLE001 - whatever it is, who waits for the result raises it
        result.set_exception(error)
