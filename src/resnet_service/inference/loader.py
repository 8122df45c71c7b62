"""The loading of the classifier that the settings name, in a thread of its own."""

import asyncio
import importlib.readers  # noqa: F401 - imported by the first look-up of a package's file
import threading
from concurrent.futures import Future

from resnet_service.inference.classifier import Classifier, ClassifierConfig
from resnet_service.models.architecture_names import canonical_for
from resnet_service.models.discovery import choose_model
from resnet_service.runtimes.registry import find_runtime
from resnet_service.settings import Settings
from resnet_service.system.budget import SharedBudget


def open_classifier(settings: Settings, budget: SharedBudget | None = None) -> Classifier:
    """Load the model and its labels and warm it up; errors as for ``Classifier.open`` and ``Classifier.warm_up``.

    ``budget`` is the memory for decoding that the processes of a service share; by default, it is this process's own.
    """
    classifier = Classifier.open(
        choose_model(settings.checkpoint),
        ClassifierConfig(
            runtime=settings.runtime,
            arch=settings.arch,
            label_file=settings.labels,
            workers=settings.worker_count,
            threads=settings.threads,
            max_pixels=settings.max_pixels,
            decoding=settings.decode,
            max_decoding_bytes=settings.max_decoding_bytes,
            budget=budget,
        ),
    )
    classifier.warm_up()
    return classifier


class ModelLoader:
    """Loads a model in a thread, while the caller imports the web framework.

    The packages that the thread needs are imported before it starts: a thread may otherwise see a module that another
    thread has only half imported.

    Args:
        settings: Name the model.
        budget: The memory for decoding, if processes share it. ``budget`` is also an attribute, for the reloads: the
            images of the old model and of the new one count together.

    Raises:
        ServiceError: The file does not exist, or no runtime can run it; ``result`` raises all other errors.

    """

    def __init__(self, settings: Settings, budget: SharedBudget | None = None) -> None:
        self.budget = budget or SharedBudget(settings.max_decoding_bytes)
        path = choose_model(settings.checkpoint)
        find_runtime(path, settings.runtime, canonical_for(path, settings.arch))
        self._result: Future[Classifier] = Future()
        # Not a daemon thread: the process would abort if it exited while OpenVINO was compiling.
        threading.Thread(target=_open, args=(settings, self.budget, self._result), name="model-loader").start()

    async def result(self) -> Classifier:
        """Return the classifier, once, and drop the reference, so that a reload can free it."""
        result, self._result = self._result, Future()
        return await asyncio.wrap_future(result)


def _open(settings: Settings, budget: SharedBudget | None, result: Future[Classifier]) -> None:
    try:
        result.set_result(open_classifier(settings, budget))
    except BaseException as error:  # noqa: BLE001 - ``result`` raises it
        result.set_exception(error)
