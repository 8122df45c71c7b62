"""A process of a service whose classifier costs nothing; `benchmarks.scaling` starts it in place of the real one."""

from benchmarks.overhead_servers import FreeClassifier
from resnet_service.inference import loader
from resnet_service.server import worker
from resnet_service.settings import Settings
from resnet_service.system.budget import SharedBudget


class FreeLoader:
    """Has the classifier at once."""

    def __init__(self, settings: Settings, budget: SharedBudget | None = None) -> None:
        self.budget = budget or SharedBudget(settings.max_decoding_bytes)

    async def result(self) -> FreeClassifier:
        """Return the classifier."""
        return FreeClassifier()


def free_of_cost() -> None:
    """Let this process serve the classifier that costs nothing."""
    loader.ModelLoader = FreeLoader  # type: ignore[assignment, misc]


if __name__ == "__main__":
    free_of_cost()
    worker.main()
