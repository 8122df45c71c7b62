"""No telemetry, neither by this package nor by its dependencies."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# OpenVINO and NNCF would send reports from a child process, so a fork counts as well as a connection.
TELLTALES = """
import os, sys
told = []
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "os.fork"):
        told.append(f"{event} {arguments!r:.200}")
sys.addaudithook(watch)
"""
SERVING = """
import resnet_service.server.startup, resnet_service.server.server
from pathlib import Path
from resnet_service.inference.classifier import Classifier
Classifier.open(Path("checkpoints/resnet18-fashion-mnist-int8.onnx")).warm_up()
"""
EXPORTING = """
import resnet_service.export.quantization
import nncf
nncf.telemetry.telemetry.start_session("test")
"""
REPORT = """
import time
time.sleep(1)  # reports are sent by threads
print(*told, sep="; ")
"""


@pytest.mark.parametrize("work", [SERVING, EXPORTING], ids=["serving", "exporting"])
def test_no_process_of_ours_reports_its_use(work: str, tmp_path: Path) -> None:
    environment = {
        "HOME": str(tmp_path),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }  # no CI variable, which would switch reports off by itself
    command = [sys.executable, "-c", TELLTALES + work + REPORT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, env=environment)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
