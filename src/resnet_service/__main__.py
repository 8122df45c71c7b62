"""Entry point of ``python -m resnet_service`` and of the command ``resnet-service``."""

from resnet_service.system.descriptors import open_standard_descriptors
from resnet_service.system.memory import gc_frozen, limit_malloc_arenas


def main() -> None:
    """Run the command line."""
    open_standard_descriptors()
    limit_malloc_arenas()
    with gc_frozen():
        from resnet_service.cli.app import main as run
    run()


if __name__ == "__main__":
    main()
