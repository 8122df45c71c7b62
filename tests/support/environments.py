"""Separate environments, for packages that would change the versions of others."""

import hashlib
import os
import subprocess
import venv
from pathlib import Path

from tests.support.servers import REPOSITORY

INSTALL_SECONDS = 900


def ray_python() -> Path:
    """Return a Python that has this package with the extra `ray`; made once for the checkout and each pyproject.toml.

    Ray brings other versions of protobuf than the packages that prepare models.
    """
    folder = REPOSITORY / ".venv-ray"
    python, stamp = folder / "bin" / "python", folder / "installed"
    digest = hashlib.sha256((REPOSITORY / "pyproject.toml").read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        venv.create(folder, clear=True, with_pip=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*command, "--editable", f"{REPOSITORY}[ray]"], check=True, timeout=INSTALL_SECONDS)
        stamp.write_text(digest)
    return python


def ray_environment(temporary: Path, **more: str) -> dict[str, str]:
    """Return the environment for a program with Ray, which keeps its sockets and logs in ``temporary``.

    That path must be short: a socket's name has at most 107 bytes.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "RESNET_SERVICE_"))}
    source = str(REPOSITORY / "src")
    return {**kept, "PYTHONPATH": source, "RAY_TMPDIR": str(temporary), "RAY_USAGE_STATS_ENABLED": "0", **more}
