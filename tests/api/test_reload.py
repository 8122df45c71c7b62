import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from resnet_service.api.app import create_app
from resnet_service.api.dependencies import Service
from resnet_service.api.reload import Reloader
from resnet_service.errors import UnreadableModel
from resnet_service.inference.base import ImageClassifier
from resnet_service.inference.executor import InferenceExecutor
from resnet_service.inference.fake import FakeClassifier
from resnet_service.settings import Settings


async def until_reloaded(reloader: Reloader) -> None:
    async with asyncio.timeout(10):
        while reloader.busy:
            await asyncio.sleep(0.005)


def test_the_loop_turns_meanwhile_and_a_second_request_is_not_lost() -> None:
    turned = threading.Event()
    opened: list[ImageClassifier] = []
    swapped: list[ImageClassifier] = []
    outcomes: list[bool] = []

    async def install(classifier: ImageClassifier) -> None:
        swapped.append(classifier)

    def open_() -> ImageClassifier:
        assert turned.wait(5), "the loop stood still"
        opened.append(FakeClassifier())
        return opened[-1]

    async def main() -> None:
        reloader = Reloader(open_, install, outcomes.append)
        reloader.request()
        await asyncio.sleep(0.05)
        reloader.request()
        reloader.request()
        turned.set()
        await until_reloaded(reloader)

    asyncio.run(main())
    assert swapped == opened
    assert len(swapped) == 2
    assert outcomes == [True, True]


@pytest.mark.parametrize("failure", [UnreadableModel("/models/m.pth is damaged."), MemoryError()])
def test_what_fails_is_one_line_and_changes_nothing(failure: Exception, caplog: pytest.LogCaptureFixture) -> None:
    def open_() -> ImageClassifier:
        raise failure

    outcomes: list[bool] = []

    async def main() -> None:
        swapped: list[ImageClassifier] = []

        async def install(classifier: ImageClassifier) -> None:
            swapped.append(classifier)

        reloader = Reloader(open_, install, outcomes.append)
        reloader.request()
        await until_reloaded(reloader)
        assert swapped == []

    asyncio.run(main())
    assert outcomes == [False]
    (record,) = caplog.records
    assert record.getMessage().startswith("Reload failed; the old model keeps serving: ")
    assert (str(failure) or "MemoryError") in record.getMessage()


def test_every_thread_that_infers_warms_up_before_the_new_model_serves() -> None:
    workers = 3
    classifier = FakeClassifier()
    app = create_app(Settings(workers=workers), classifier)
    inferring: set[str] = set()

    async def main() -> None:
        async with app.router.lifespan_context(app):
            inferring.update(classifier.warmed_in)
            classifier.warmed_in.clear()
            service = app.state.service
            # One thread has other work, and the others must not take its turn meanwhile.
            work = asyncio.create_task(service.executor.run(time.sleep, 0.2))
            service.reloader.request()
            await until_reloaded(service.reloader)
            await work

    asyncio.run(main())
    assert len(inferring) == workers
    assert classifier.warmed_in >= inferring


def test_another_model_serves_since_it_came() -> None:
    executor = InferenceExecutor(1, slots=2)

    async def install(opened: ImageClassifier) -> None:
        raise NotImplementedError

    service = Service(Settings(), FakeClassifier(), executor, Reloader(FakeClassifier, install, lambda succeeded: None))
    service.serving_since = datetime.now(UTC) - timedelta(days=1)
    other = FakeClassifier()
    service.serve(other)
    assert service.classifier is other
    assert timedelta(0) <= datetime.now(UTC) - service.serving_since < timedelta(minutes=1)
    executor.close()
