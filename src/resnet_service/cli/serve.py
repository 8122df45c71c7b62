"""The command ``serve``."""

import os
from typing import Any

from resnet_service.cli.console import one_line_errors
from resnet_service.cli.flags import as_flags


@as_flags
def serve(**flags: Any) -> None:
    """Load and check a model, then serve it over HTTP."""
    with one_line_errors():
        from resnet_service.observability.logs import writing
        from resnet_service.server.startup import start
        from resnet_service.settings import ENV_PREFIX, SECRETS, load_settings
        from resnet_service.system.descriptors import log_descriptor

        settings = load_settings(**flags)
        for name in SECRETS:
            # Crash dumps and child processes show the environment, and nothing reads these variables again.
            os.environ.pop(f"{ENV_PREFIX}{name.upper()}", None)
        with log_descriptor() as descriptor, writing(settings.log_format, settings.log_level, descriptor):
            start(settings)
