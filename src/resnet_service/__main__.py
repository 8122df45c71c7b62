"""``python -m resnet_service``, and the command ``resnet-service``."""

from resnet_service.system.memory import objects_that_stay, share_one_heap


def main() -> None:
    """Run the command line."""
    share_one_heap()
    with objects_that_stay():
        from resnet_service.cli.app import main as run
    run()


if __name__ == "__main__":
    main()
