"""Environments: for the service as its image has it, for peers with PyTorch, and for peers around an exported model.

Apart from each other and from the one of development, because servers import what they find: TorchServe takes OpenVINO
in, LitServe takes PyTorch in, FastAPI and Uvicorn take in telemetry and watchers of files, and all would pay in memory
and start-up for packages that are there for someone else.
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
    """The Python of each environment; ``own`` is the one of development, which runs the service's PyTorch runtimes."""

    own: Path
    serve: Path
    torch: Path
    openvino: Path


def make() -> Interpreters:
    """Create the environments where they are missing or their requirements have changed.

    Raises:
        subprocess.CalledProcessError: pip failed, and said why.

    """
    peers = BENCHMARKS / "requirements"
    return Interpreters(
        own=Path(sys.executable),
        serve=_make("serve", REPOSITORY / "requirements" / "serve.txt"),
        torch=_make("torch", peers / "torch.txt"),
        openvino=_make("openvino", peers / "openvino.txt"),
    )


def _make(name: str, requirements: Path) -> Path:
    folder = CACHE / "environments" / name
    python, stamp = folder / "bin" / "python", folder / "installed"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return python
    print(f"Creating the environment {name}", flush=True)
    venv.create(folder, clear=True, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if name == "torch":
        # As `make` installs it: without CUDA where that can be had; a CPU server would hold it in memory for nothing.
        cpu_only = {"PIP_INDEX_URL": CPU_WHEELS} if cpu_index_answers() else {}
        subprocess.run([*pip, "torch", "torchvision"], env=os.environ | cpu_only, check=True)
    subprocess.run([*pip, "--requirement", str(requirements)], check=True)
    stamp.write_text(digest)
    return python
