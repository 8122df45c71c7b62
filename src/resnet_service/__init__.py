"""An image classification service that loads one validated checkpoint and answers over HTTP."""

import sys

from resnet_service import moved_paths

__version__ = "1.2.0"

# OpenVINO and NNCF report each import and use to a server on the Internet, from a child process, unless this package
# cannot be imported. A process that holds other people's images sends no reports.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

moved_paths.install()
