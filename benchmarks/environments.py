"""Virtual environments: for the service as in its image, for peers with PyTorch, and for peers with OpenVINO.

They are separate, because servers import optional packages that they find: TorchServe imports OpenVINO, LitServe
imports PyTorch, FastAPI and Uvicorn import telemetry and file watchers. Packages of another server would cost memory
and start-up time.
"""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import NamedTuple

from benchmarks.paths import BENCHMARKS, CACHE, REPOSITORY
from tools.install_torch import CPU_WHEELS, cpu_index_answers


class Interpreters(NamedTuple):
    """The Python of each environment; ``own`` is the development environment, for the service's PyTorch runtimes."""

    own: Path
    serve: Path
    torch: Path
    openvino: Path


def make() -> Interpreters:
    """Create the environments that are missing or whose requirements have changed.

    Raises:
        subprocess.CalledProcessError: pip failed and has printed why.

    """
    peers = BENCHMARKS / "requirements"
    return Interpreters(
        own=Path(sys.executable),
        serve=make_one("serve", REPOSITORY / "requirements" / "serve.txt"),
        torch=make_one("torch", peers / "torch.txt"),
        openvino=make_one("openvino", peers / "openvino.txt"),
    )


def make_one(name: str, requirements: Path) -> Path:
    """Create one environment, unless it is there with these requirements; return its Python."""
    folder = CACHE / "environments" / name
    python, stamp = folder / "bin" / "python", folder / "installed"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return python
    print(f"Creating the environment {name}", flush=True)
    venv.create(folder, clear=True, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if name == "torch":
        # As `make` installs it: without CUDA if possible, which would only take memory on a CPU server.
        cpu_only = {"PIP_INDEX_URL": CPU_WHEELS} if cpu_index_answers() else {}
        subprocess.run([*pip, "torch", "torchvision"], env=os.environ | cpu_only, check=True)
    subprocess.run([*pip, "--requirement", str(requirements)], check=True)
    stamp.write_text(digest)
    return python
