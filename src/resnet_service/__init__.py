"""An image classification service: loads one validated model and answers over HTTP."""

import sys

from resnet_service import moved_paths

__version__ = "1.0.0"

# OpenVINO and NNCF send usage reports over the Internet, from a child process, if this package can be imported. A
# process that handles other people's images sends no telemetry.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

moved_paths.install()
