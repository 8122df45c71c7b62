"""The memory in which images are decoded: taken before decoding begins, given back when the decoded image is gone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from resnet_service.errors import DeadlineExceeded, DecodingTooLarge
from resnet_service.inference.deadline import remaining_seconds
from resnet_service.system.budget import SharedBudget

_MEGABYTE = 1_000_000


@contextmanager
def taken_from(budget: SharedBudget) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes bytes, once; what it took is given back at the end of the block.

    The function waits until the bytes are free.

    Raises:
        DecodingTooLarge: The bytes exceed the whole budget.
        DeadlineExceeded: They were not free before the deadline of the request.

    """
    taken = 0

    def take(size: int) -> None:
        nonlocal taken
        if size > budget.limit:
            raise DecodingTooLarge(
                f"Decoding this image takes up to {-(-size // _MEGABYTE):,} MB of memory; the limit is "
                f"{budget.limit // _MEGABYTE:,} MB. Send it with fewer pixels, or as a baseline JPEG."
            )
        if not budget.acquire(size, remaining_seconds()):
            raise DeadlineExceeded("Other images took the memory until the deadline had passed. Try again later.")
        taken = size

    try:
        yield take
    finally:
        if taken:
            budget.release(taken)
