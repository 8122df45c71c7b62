"""Entry point of ``python -m resnet_service`` and of the command ``resnet-service``."""

import sys

from resnet_service.system.descriptors import open_standard_descriptors
from resnet_service.system.memory import gc_frozen, limit_malloc_arenas
from resnet_service.system.signals import handle_early_signals


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] == ["serve"]:  # before the imports, which take longer than the load of a small model
        handle_early_signals()
    open_standard_descriptors()
    limit_malloc_arenas()
    with gc_frozen():
        from resnet_service.cli.app import main as run
    run()


if __name__ == "__main__":
    main()
