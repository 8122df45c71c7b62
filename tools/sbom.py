"""Write the software bill of materials of the serving environment, as CycloneDX JSON, into ``dist/``.

It describes an environment that is installed from the lock for serving. Unlike the lock, that has each package's
licence and dependencies, and no packages of other platforms. So the bill is valid for the platform that made it.
"""

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

LOCK = Path("requirements/serve.txt")
TARGET = Path("dist/resnet-service.cdx.json")
# Of packages whose metadata state their licence in words that cyclonedx-py does not recognise.
LICENCES = {"protobuf": "BSD-3-Clause"}


def main() -> None:
    """Create the environment, describe it, and remove it."""
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder))
        describe(serving_environment(Path(folder), wheel), version_of(wheel), TARGET)
    print(f"Wrote {TARGET}")


def build_wheel(folder: Path) -> Path:
    """Build this package's wheel into ``folder``."""
    pip("wheel", "--no-deps", "--wheel-dir", str(folder), ".")
    return next(folder.glob("resnet_service-*.whl"))


def serving_environment(folder: Path, wheel: Path) -> Path:
    """Install the packages of the lock and ``wheel`` into a new environment in ``folder``; return its interpreter.

    pip runs outside of the environment, so that the environment contains no installer.
    """
    environment = folder / "environment"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    pip("--python", str(python), "install", "--no-deps", "--require-hashes", "--requirement", str(LOCK))
    # By name: pip would record a path, and the bill would contain it.
    name = f"resnet-service=={version_of(wheel)}"
    pip("--python", str(python), "install", "--no-deps", "--no-index", "--find-links", str(wheel.parent), name)
    return python


def version_of(wheel: Path) -> str:
    """Return the version that a wheel's file name gives."""
    return wheel.name.split("-")[1]


def describe(python: Path, version: str, target: Path) -> None:
    """Write the bill of ``python``'s environment to ``target``; the same environment gives the same file."""
    target.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "cyclonedx_py", "environment", str(python)]
    command += ["--pyproject", "pyproject.toml", "--output-reproducible", "--output-file", str(target)]
    subprocess.run(command, check=True)  # noqa: S603 - arguments of this file
    # cyclonedx-py reads the component from pyproject.toml, where the version is dynamic.
    bill = json.loads(target.read_text())
    bill["metadata"]["component"].update(version=version, purl=f"pkg:pypi/resnet-service@{version}")
    for component in bill["components"]:
        if component["name"] in LICENCES:
            component.setdefault("licenses", [{"license": {"id": LICENCES[component["name"]]}}])
    target.write_text(json.dumps(bill, indent=2, sort_keys=True) + "\n")


def pip(*arguments: str) -> None:
    """Run pip; if it fails, exit with its code."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    code = subprocess.run(command, check=False).returncode  # noqa: S603 - arguments of this file
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
