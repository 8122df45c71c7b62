"""Install PyTorch into the running interpreter's environment, without 5 GB of CUDA if possible.

On Linux x86-64, the default wheel includes CUDA libraries that a CPU service never loads. PyTorch has a separate index
of CPU-only wheels. It is used if it answers within seconds, otherwise the default index.
"""

import os
import platform
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path

CPU_WHEELS = os.environ.get("TORCH_CPU_WHEELS", "https://download.pytorch.org/whl/cpu")
ANSWER_SECONDS = 5


def cpu_index_answers() -> bool:
    """Return whether the index of CPU-only wheels can be reached."""
    try:
        with urllib.request.urlopen(f"{CPU_WHEELS}/torch/", timeout=ANSWER_SECONDS):  # noqa: S310 - a constant or the user's choice
            return True
    except (OSError, ValueError):
        return False


def main() -> None:
    """Install the requirements of the extra ``torch``."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    requirements = project["optional-dependencies"]["torch"]
    environment = dict(os.environ)
    if platform.system() == "Linux" and platform.machine() == "x86_64":
        if cpu_index_answers():
            print(f"Installing CPU-only PyTorch from {CPU_WHEELS}", flush=True)
            environment["PIP_INDEX_URL"] = CPU_WHEELS
            binary = [requirement for requirement in requirements if requirement.startswith("torch")]
            pip(binary, environment)
            return
        print(f"{CPU_WHEELS} does not answer; installing the default PyTorch, 5 GB with CUDA", flush=True)
    else:
        print("Installing PyTorch", flush=True)
    pip(requirements, environment)


def pip(requirements: list[str], environment: dict[str, str]) -> None:
    """Install ``requirements``; if pip fails, exit with its code."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    code = subprocess.run(command, env=environment, check=False).returncode  # noqa: S603 - requirements of this project
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
