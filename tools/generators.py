"""Run the generators of clients and the linters that others use over the saved OpenAPI document: ``make generators``.

They come from npm and PyPI into a folder that is removed again. Warnings count as errors.
"""

import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

from tools.openapi import TARGET

NODE_PACKAGES = (
    "openapi-typescript@7.13.0",
    "typescript@5.9.3",
    "@stoplight/spectral-cli@6.16.3",
    "@redocly/cli@2.77.0",
)
# 0.28 and 0.29 write `Unset` without importing it, for operations with several bodies and no optional parameter.
PYTHON_PACKAGES = ("openapi-python-client==0.27.1",)
SECONDS = 600
# Spectral has no rules of its own. Whom to contact is for those to say who run a service.
RULES = "extends: ['spectral:oas']\nrules: {info-contact: off}\n"
# openapi-python-client knows no ranges of media types.
CONFIGURATION = "content_type_overrides: {'image/*': application/octet-stream}\n"
IMPORT_ALL = """
import importlib, pkgutil, client
for module in pkgutil.walk_packages(client.__path__, "client."):
    importlib.import_module(module.name)
"""


def main() -> int:
    """Install the programs, run each, and print how it ended; return 0 if all succeeded."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        install(folder)
        failed = [title for title, command in commands(folder) if not succeeds(title, command, folder)]
    return len(failed)


def install(folder: Path) -> None:
    """Install the programs into ``folder``; packages from npm run no scripts."""
    npm = ["npm", "install", "--prefix", str(folder), "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
    run([*npm, *NODE_PACKAGES], folder)
    venv.create(folder / "environment", with_pip=True)
    pip = [str(folder / "environment" / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    run([*pip, "--disable-pip-version-check", *PYTHON_PACKAGES], folder)
    (folder / "rules.yaml").write_text(RULES)
    (folder / "configuration.yaml").write_text(CONFIGURATION)


def commands(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each program's name and command, in an order in which all files are there."""
    document = str(TARGET.resolve())
    node, python = folder / "node_modules" / ".bin", folder / "environment" / "bin"
    types = str(folder / "types.ts")
    yield "openapi-typescript", [f"{node}/openapi-typescript", document, "--output", types]
    yield "its types, with tsc", [f"{node}/tsc", "--noEmit", "--strict", types]
    client = ["generate", "--path", document, "--meta", "none", "--output-path", str(folder / "client")]
    client += ["--config", str(folder / "configuration.yaml"), "--fail-on-warning"]
    yield "openapi-python-client", [f"{python}/openapi-python-client", *client]
    yield "its client, imported", [f"{python}/python", "-c", IMPORT_ALL]
    rules = ["--ruleset", str(folder / "rules.yaml"), "--fail-severity", "warn"]
    yield "spectral", [f"{node}/spectral", "lint", document, *rules]
    yield "redocly", [f"{node}/redocly", "lint", document, "--extends", "recommended"]


def succeeds(title: str, command: list[str], folder: Path) -> bool:
    """Run a program, print its output if it failed, and return whether it succeeded."""
    done = run(command, folder, check=False)
    print(f"{title}: {'failed' if done.returncode else 'ok'}", flush=True)
    if done.returncode:
        print(done.stdout, done.stderr, file=sys.stderr)
    return done.returncode == 0


def run(command: list[str], folder: Path, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command in ``folder``; programs report their use to nobody."""
    # Generators format what they have written with the ruff beside them.
    path = f"{folder / 'environment' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "REDOCLY_TELEMETRY": "off", "CI": "true"}
    return subprocess.run(  # noqa: S603 - arguments of this file
        command, capture_output=True, text=True, timeout=SECONDS, check=check, cwd=folder, env=environment
    )


if __name__ == "__main__":
    sys.exit(main())
