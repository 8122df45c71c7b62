"""The budget of memory in which images are decoded."""

import io
import threading
import time
from collections.abc import Callable

import pytest
from PIL import Image

from resnet_service.errors import DeadlineExceeded, DecodingTooLarge
from resnet_service.imaging.decode import decode
from resnet_service.inference.classifier import Classifier, ClassifierConfig
from resnet_service.inference.deadline import set_deadline
from resnet_service.inference.decoding_budget import taken_from
from resnet_service.system.budget import SharedBudget
from tests.support.images import encoded, noise
from tests.support.servers import REPOSITORY

IMAGE = encoded(noise(64, 64), "PNG")


def test_what_was_taken_comes_back_even_after_an_error() -> None:
    budget = SharedBudget(100)

    def decode_in(budget: SharedBudget) -> None:
        with taken_from(budget) as take:
            take(60)
            assert budget.used == 60
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        decode_in(budget)
    assert budget.used == 0


def test_an_image_beyond_the_budget_is_refused_and_takes_nothing() -> None:
    budget = SharedBudget(805_306_368)
    with pytest.raises(DecodingTooLarge, match=r"900 MB.*805 MB.*fewer pixels"), taken_from(budget) as take:
        take(900_000_000)
    assert budget.used == 0


def test_a_waiting_image_gives_up_at_the_deadline_of_its_request() -> None:
    budget = SharedBudget(100)
    assert budget.try_acquire(80)
    errors = []

    def wait() -> None:
        set_deadline(time.monotonic() + 0.05)
        try:
            with taken_from(budget) as take:
                take(50)
        except DeadlineExceeded as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(5)
    assert errors
    assert budget.used == 80
    assert budget.acquire(20, 0)  # the turn was given up, too


def test_small_images_do_not_overtake_a_large_one_that_waits() -> None:
    budget = SharedBudget(100)
    order: list[str] = []
    assert budget.try_acquire(50)

    def take(name: str, size: int) -> None:
        assert budget.acquire(size, 5)
        order.append(name)
        budget.release(size)

    large = threading.Thread(target=take, args=("large", 100))
    large.start()
    time.sleep(0.05)
    small = threading.Thread(target=take, args=("small", 10))
    small.start()
    time.sleep(0.05)
    assert order == []
    budget.release(50)
    large.join(5)
    small.join(5)
    assert order == ["large", "small"]


def test_an_error_of_the_reservation_is_not_a_broken_image() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    with pytest.raises(DecodingTooLarge), taken_from(SharedBudget(1)) as take:
        decode(buffer.getvalue(), reserve=lambda size, _: take(size))


class Recording(SharedBudget):
    """Remembers what was taken."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.taken: list[int] = []

    def acquire(self, size: int, seconds: float) -> bool:
        self.taken.append(size)
        return super().acquire(size, seconds)


@pytest.mark.parametrize(
    "ask",
    [
        lambda classifier: classifier.classify(IMAGE),
        lambda classifier: classifier.score([IMAGE]),
        lambda classifier: classifier.embed(IMAGE),
        lambda classifier: classifier.explain(IMAGE),
    ],
    ids=["classify", "score", "embed", "explain"],
)
def test_every_answer_takes_its_memory_from_the_budget_and_gives_it_back(ask: Callable[[Classifier], object]) -> None:
    path = REPOSITORY / "checkpoints" / "resnet18-fashion-mnist-int8.onnx"
    budget = Recording(2**40)
    ask(Classifier.open(path, ClassifierConfig(budget=budget)))
    assert len(budget.taken) == 1
    assert budget.taken[0] > 2**20
    assert budget.used == 0
