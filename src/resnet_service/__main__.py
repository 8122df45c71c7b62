"""``python -m resnet_service``."""

from resnet_service.cli import main

main()
