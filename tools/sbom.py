"""Write the software bill of materials of what serves, as CycloneDX JSON, into ``dist/``.

It describes a real environment, made of the lock for serving, rather than the lock: so it has each package's licence
and the graph of who needs whom, and nothing that is only for another platform. It is for the platform that makes it.
"""

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

LOCK = Path("requirements/serve.txt")
TARGET = Path("dist/resnet-service.cdx.json")


def main() -> None:
    """Make the environment, describe it, and remove it."""
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder))
        describe(serving_environment(Path(folder), wheel), version_of(wheel), TARGET)
    print(f"Wrote {TARGET}")


def build_wheel(folder: Path) -> Path:
    """Build this package's wheel into ``folder``."""
    pip("wheel", "--no-deps", "--wheel-dir", str(folder), ".")
    return next(folder.glob("resnet_service-*.whl"))


def serving_environment(folder: Path, wheel: Path) -> Path:
    """Install what the lock names, and ``wheel``, into a new environment in ``folder``; return its interpreter.

    pip installs from outside, so that the environment holds what serves and no installer either.
    """
    environment = folder / "environment"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    pip("--python", str(python), "install", "--no-deps", "--require-hashes", "--requirement", str(LOCK))
    # By name: of a path, pip would record where on this machine it was, and the bill would tell.
    name = f"resnet-service=={version_of(wheel)}"
    pip("--python", str(python), "install", "--no-deps", "--no-index", "--find-links", str(wheel.parent), name)
    return python


def version_of(wheel: Path) -> str:
    """Return the version that a wheel's file name gives."""
    return wheel.name.split("-")[1]


def describe(python: Path, version: str, target: Path) -> None:
    """Write to ``target`` what the environment of ``python`` holds; the same environment gives the same file."""
    target.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "cyclonedx_py", "environment", str(python)]
    command += ["--pyproject", "pyproject.toml", "--output-reproducible", "--output-file", str(target)]
    subprocess.run(command, check=True)  # noqa: S603 - arguments of this file
    # cyclonedx-py takes what the environment is for from pyproject.toml, where the version is dynamic.
    bill = json.loads(target.read_text())
    bill["metadata"]["component"].update(version=version, purl=f"pkg:pypi/resnet-service@{version}")
    target.write_text(json.dumps(bill, indent=2, sort_keys=True) + "\n")


def pip(*arguments: str) -> None:
    """Run pip, and end with its own message and exit code where it fails."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    code = subprocess.run(command, check=False).returncode  # noqa: S603 - arguments of this file
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
