"""Build the files of a release in ``dist/``: wheel, source archive, bill of materials, and their digests.

They are built from a commit, so a tree with changes is refused. The same commit gives the same bytes:
``requirements/build.txt`` pins the build backend by hash, and the times in the archives are the commit's.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from collections.abc import Iterable
from pathlib import Path

from tools import sbom

DIGESTS = "SHA256SUMS"
# The files that contain the version; CHANGELOG.md's heading is checked separately.
VERSION_PATTERNS = {
    "src/resnet_service/__init__.py": r'^__version__ = "(.+)"$',
    "CITATION.cff": r"^version: (.+)$",
    "Dockerfile": r"^ARG VERSION=(.+)$",
    "deploy/kubernetes/overlays/production/kustomization.yaml": r"^    newTag: (.+)$",
    "deploy/kubernetes/kserve/inferenceservice.yaml": r"^ +image: .+/resnet-service:(.+)$",
    "docs/openapi.json": r'^  "version": "(.+)"$',
}


class Refused(Exception):
    """The tree cannot be released; the message says why and what to do."""


def main() -> int:
    """Build the release of this commit in ``dist/``; return 1 and print the reason if it is refused."""
    root = Path.cwd()
    try:
        version = check(root)
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    target = root / "dist"
    shutil.rmtree(target, ignore_errors=True)  # so that only files of this release get a digest
    wheel, source = build(root, target, commit_time(root))
    bill = target / f"resnet_service-{version}.cdx.json"
    with tempfile.TemporaryDirectory() as folder:
        sbom.describe(sbom.serving_environment(Path(folder), wheel), version, bill)
    write_digests([wheel, source, bill])
    print(f"Release {version} of {git(root, 'rev-parse', 'HEAD')[:12]} in dist/:")
    for path in sorted(target.iterdir()):
        print(f"  {path.name}")
    return 0


def check(root: Path) -> str:
    """Return the version of ``root`` if it can be released.

    Raises:
        Refused: The tree has uncommitted changes, its versions differ, or CHANGELOG.md lacks the version.

    """
    if changed := git(root, "status", "--porcelain", "--untracked-files=all"):
        first = changed.splitlines()[0].split(maxsplit=1)[1]
        raise Refused(f"The tree has changes that are not committed ({first}, …). Commit or remove them.")
    found = versions(root)
    version = found["src/resnet_service/__init__.py"]
    for path, there in found.items():
        if there != version:
            raise Refused(f"{path} names version {there}, but the package is {version}. Make them agree.")
    if (newest := newest_heading(root)) != version:
        raise Refused(
            f"The newest heading of CHANGELOG.md is {newest!r}, but the package is {version}. "
            "Update the heading or the package's version."
        )
    return version


def versions(root: Path) -> dict[str, str]:
    """Return the version in each of ``VERSION_PATTERNS``; ``nothing`` if there is none, all if there are several."""
    return {
        path: " and ".join(re.findall(pattern, (root / path).read_text(), flags=re.MULTILINE)) or "nothing"
        for path, pattern in VERSION_PATTERNS.items()
    }


def newest_heading(root: Path) -> str:
    """Return the first heading of the second level in ``CHANGELOG.md``: a version, or ``Unreleased``."""
    heading = re.search(r"^## (.+)$", (root / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    return heading[1].strip() if heading else "nothing"


def commit_time(root: Path) -> int:
    """Return the time of the commit, in seconds since 1970."""
    return int(git(root, "log", "-1", "--format=%ct"))


def git(root: Path, *arguments: str) -> str:
    """Return the output of git.

    Raises:
        Refused: git failed; the message has the last line of its errors.

    """
    command = ["git", "-C", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - arguments of this file
    if done.returncode:
        raise Refused(f"git {arguments[0]} failed: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout.strip()


def build(root: Path, target: Path, time: int) -> tuple[Path, Path]:
    """Build the source archive of ``root``, and the wheel from that archive, which proves that it is complete.

    Args:
        root: The tree.
        target: The folder for both.
        time: Modification time of the files in the archives, in seconds since 1970.

    Returns:
        The paths of wheel and source archive.

    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        python = _build_environment(root, folder)
        _hatchling(python, "sdist", root, target, time)
        source = next(target.glob("resnet_service-*.tar.gz"))
        with tarfile.open(source) as archive:
            archive.extractall(folder / "source", filter="data")
        _hatchling(python, "wheel", folder / "source" / source.name.removesuffix(".tar.gz"), target, time)
    return next(target.glob("resnet_service-*.whl")), source


def _build_environment(root: Path, folder: Path) -> Path:
    environment = folder / "build"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    lock = root / "requirements" / "build.txt"
    sbom.pip("--python", str(python), "install", "--require-hashes", "--requirement", str(lock))
    return python


def _hatchling(python: Path, kind: str, source: Path, target: Path, time: int) -> None:
    command = [str(python), "-I", "-m", "hatchling", "build", "--target", kind, "--directory", str(target)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(time)}
    subprocess.run(command, check=True, cwd=source, env=environment, stdout=subprocess.DEVNULL)  # noqa: S603 - as above


def write_digests(files: Iterable[Path]) -> None:
    """Write the files' SHA-256 beside them, as ``sha256sum --check`` reads it."""
    paths = sorted(files)
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in paths]
    (paths[0].parent / DIGESTS).write_text("".join(lines))


if __name__ == "__main__":
    sys.exit(main())
