"""The image without an engine: built by buildah, run as its own user in namespaces that hold nothing else.

For machines, such as those of continuous integration, where no Docker runs and no image registry answers. The base
image, where buildah's store does not have it, is stood in for by a Debian with the same Python from Debian's packages.
What a container gets is what ``docker run --network none --read-only --cap-drop ALL --security-opt no-new-privileges``
would give it, and not even a writable ``/tmp``.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.support.servers import REPOSITORY

TAG = "resnet-service:test"
BASE = "docker.io/library/python:3.11-slim-bookworm"
BUILD_SECONDS = 900
START_SECONDS = 30
STOP_SECONDS = 20
NEEDED = ("buildah", "debootstrap", "unshare", "nsenter", "setpriv", "ip")

_ENVIRONMENT = {**os.environ, "BUILDAH_ISOLATION": "chroot"}


def require_containers() -> None:
    """Skip if images cannot be built or run, but fail in continuous integration."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    reason = f"lacks {', '.join(missing)}" if missing else "is not run by root" if os.geteuid() else ""
    if reason:
        (pytest.fail if "CI" in os.environ else pytest.skip)(f"the image is not tested: this machine {reason}")


def buildah(*arguments: str | Path, timeout: float = 60) -> str:
    """Run buildah; return what it prints, or fail with its messages."""
    done = subprocess.run(
        ["buildah", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env=_ENVIRONMENT,
    )
    assert done.returncode == 0, f"buildah {arguments[0]}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout.strip()


def build(tag: str = TAG, **arguments: str) -> None:
    """Build the repository's Dockerfile, with ``--build-arg`` for each of ``arguments``."""
    _provide_base()
    options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as config:
        config.write(_pip_configuration())
        config.flush()
        paths = [f"{config.name}:/etc/pip.conf", *(f"{path}:{path}" for path in _paths_of(_pip_configuration()))]
        mounts = [f"--volume={path}:ro" for path in paths]
        # In Docker's format, since that of OCI has no health checks.
        command = ["bud", "--format=docker", "--pull-never", "--layers", *mounts, *options, "--tag", tag]
        buildah(*command, REPOSITORY, timeout=BUILD_SECONDS)


def configuration(tag: str = TAG) -> dict[str, Any]:
    """Return the image's configuration, as an engine would read it."""
    config: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", tag))["Docker"]["config"]
    return config


def _provide_base() -> None:
    known = subprocess.run(["buildah", "inspect", "--type", "image", BASE], capture_output=True, check=False)
    if known.returncode == 0:
        return
    sources = Path("/etc/apt/sources.list.d/debian.sources").read_text()
    mirror = re.search(r"^URIs: (\S+)", sources, flags=re.MULTILINE)
    assert mirror is not None, "no mirror of Debian is configured"
    packages = "python3,python3-venv,python3-pip,ca-certificates"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        command = ["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(root), mirror[1]]
        subprocess.run(command, check=True, capture_output=True, timeout=BUILD_SECONDS)
        for link, target in (("python", "python3"), ("python3", "python3"), ("pip", "pip3")):
            (root / "usr/local/bin" / link).symlink_to(f"/usr/bin/{target}")
        container = buildah("from", "scratch")
        subprocess.run(["cp", "-a", f"{root}/.", buildah("mount", container)], check=True, timeout=BUILD_SECONDS)
        buildah("config", "--env", "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", container)
        buildah("commit", "--rm", container, BASE, timeout=BUILD_SECONDS)


def _pip_configuration() -> str:
    """Return this machine's pip configuration (mirrors, certificates), for the pip inside the build."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    found = re.findall(r"^(?:global|install|:env:)\.([a-z-]+)='(.*)'$", listed, flags=re.MULTILINE)
    return "\n".join(["[global]", *(f"{name} = {value}" for name, value in dict(found).items()), ""])


def _paths_of(config: str) -> list[str]:
    """Return this machine's folders that a configuration names, which the build should see too."""
    named = re.findall(r"(?<![\w:/])(?:file://)?(/[^\s']+)", config)
    paths = {"/etc/ssl/certs" if path.startswith("/etc/ssl/") else path.removesuffix("/simple") for path in named}
    return sorted(path for path in paths if Path(path).exists())


# Arguments: folder, working directory, user, group, mounts as FROM=TO, a bare --, what is to be run.
_ENTER = r"""
set -e; root=$1; folder=$2; user=$3; group=$4; shift 4
ip link set lo up
mount --bind "$root" "$root"; mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"; mount --rbind /dev "$root/dev"
while [ "$1" != -- ]; do mount --bind -o ro "${1%%=*}" "$root${1#*=}"; shift; done; shift
mount -o remount,bind,ro "$root"
exec chroot "$root" /usr/bin/setpriv --reuid="$user" --regid="$group" --clear-groups --no-new-privs \
    --bounding-set=-all --inh-caps=-all /usr/bin/env -i -C "$folder" "$@"
"""


class Container:
    """A running container of an image; its log is what its process prints, its ``root`` the image's file system."""

    def __init__(self, *arguments: str, tag: str = TAG, mounts: dict[Path, str] | None = None, **environment: str):
        self._config = configuration(tag)
        self._id = buildah("from", "--pull-never", tag)
        self.root = Path(buildah("mount", self._id))
        inside = [f"{source}={target}" for source, target in (mounts or {}).items()]
        for target in (mounts or {}).values():
            (self.root / target.lstrip("/")).touch()
        self._user, _, self._group = self._config["User"].partition(":")
        self._variables = [*self._config["Env"], *(f"{name}={value}" for name, value in environment.items())]
        command = [*self._config["Entrypoint"], *(arguments or self._config["Cmd"])]
        namespaces = ["unshare", "--net", "--mount", "--pid", "--ipc", "--uts", "--fork"]
        place = [str(self.root), self._config["WorkingDir"], self._user, self._group]
        self._begun = time.monotonic()
        self.ready_seconds: float | None = None
        self._log: list[str] = []
        self.process = subprocess.Popen(
            [*namespaces, "bash", "-c", _ENTER, "_", *place, *inside, "--", *self._variables, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._known = threading.Event()
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            # Not unshare's --kill-child: the kernel forgets that request when the child changes its user.
            os.kill(self.pid, signal.SIGKILL)
            self.process.wait(STOP_SECONDS)
        self._reader.join(STOP_SECONDS)
        buildah("umount", self._id)
        buildah("rm", self._id)

    def _read_log(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._log.append(line)
                if "Ready on " in line:
                    self.ready_seconds = time.monotonic() - self._begun
                    self._known.set()
        self._known.set()

    @property
    def log(self) -> str:
        return "".join(self._log)

    def wait_until_ready(self) -> float:
        """Return the seconds from the start of its process until it answers."""
        self._known.wait(START_SECONDS)
        assert self.ready_seconds is not None, f"it did not get ready:\n{self.log}"
        return self.ready_seconds

    @property
    def pid(self) -> int:
        """The ID, outside of the container, of its process 1."""
        (child,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(child)

    def beside(self, *command: str | Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command of this machine in the container's network."""
        line = ["nsenter", f"--target={self.pid}", "--net", *map(str, command)]
        return subprocess.run(line, capture_output=True, text=True, timeout=timeout, check=False)

    def inside(self, *command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command of the image in the container, as its user and with its variables, as ``docker exec`` does."""
        user = f"--reuid={self._user}", f"--regid={self._group}", "--clear-groups", "--no-new-privs"
        line = ["nsenter", f"--target={self.pid}", "--net", "--mount", "--pid", "--root", "/usr/bin/setpriv", *user]
        return subprocess.run(
            [*line, "/usr/bin/env", "-i", "-C", self._config["WorkingDir"], *self._variables, *command],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal to the container's process 1; return its exit code."""
        os.kill(self.pid, number)
        return self.process.wait(STOP_SECONDS)


@contextlib.contextmanager
def container(*arguments: str, **options: Any) -> Iterator[Container]:
    """Run a container that serves; ready when yielded."""
    with Container(*arguments, **options) as running:
        running.wait_until_ready()
        yield running
