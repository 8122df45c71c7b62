"""The operations page is executed: what can run here runs, top to bottom, in one shell; the rest names real files."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from resnet_service.observability.metrics import Metrics
from resnet_service.settings import ENV_PREFIX, Settings
from tests.support.servers import REPOSITORY

PAGE = (REPOSITORY / "docs" / "operations.md").read_text()
ALERTS = (REPOSITORY / "deploy" / "prometheus" / "alerts.yml").read_text()
KINDS = {"", "docker", "kubernetes", "keys", "ray"}


def commands(*kinds: str) -> list[str]:
    """Return the commands of the page's console blocks of these kinds, in their order."""
    blocks = re.findall(r"^```console ?(\w*)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert {kind for kind, _ in blocks} <= KINDS
    return [line for kind, block in blocks if kind in kinds for line in re.findall(r"^\$ (.+)$", block, re.MULTILINE)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with what the commands name."""
    (tmp_path / "checkpoints").symlink_to(REPOSITORY / "checkpoints")
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "python").symlink_to(sys.executable)
    (tools / "resnet-service").write_text(f'#!/bin/sh\nexec {sys.executable} -m resnet_service "$@"\n')
    (tools / "resnet-service").chmod(0o755)
    return tmp_path


def test_the_page_runs_from_top_to_bottom(place: Path) -> None:
    # Keys came into the settings later than this page into the documentation.
    kinds = ("", "keys") if "api_keys_file" in Settings.model_fields else ("",)
    steps = commands(*kinds)
    assert len(steps) >= 12
    port = free_port()
    lines = [
        "set -e",
        "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT",
        *(step.replace("localhost:8080", f"127.0.0.1:{port}").replace("localhost:", "127.0.0.1:") for step in steps),
        "trap - EXIT",
        "echo; echo all of it",
    ]
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        cwd=place,
        env={
            "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(sys.path),
            f"{ENV_PREFIX}PORT": str(port),
            "OTHER_PORT": str(free_port()),
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all of it\n")
    assert '"label":"bag"' in done.stdout
    assert done.stderr.count("Serving current ") >= 2, "it was reloaded"
    assert "Traceback" not in done.stderr


def test_commands_that_need_docker_or_a_cluster_name_files_that_are_there() -> None:
    named = [
        word for command in commands("docker", "kubernetes", "ray") for word in re.findall(r"\bdeploy/\S+", command)
    ]
    assert len(named) >= 3
    for path in named:
        assert (REPOSITORY / path).exists(), path


def test_settings_that_the_page_names_exist() -> None:
    for name in re.findall(rf"{ENV_PREFIX}([A-Z_]+)", "".join(PAGE.split("## Rotate keys")[::2]) + PAGE):
        if name != "API_KEYS_FILE":
            assert name.lower() in Settings.model_fields, name


def test_the_figures_are_those_of_the_benchmarks() -> None:
    measured = (REPOSITORY / "docs" / "benchmarks" / "README.md").read_text()
    for precision in ("INT8", "BF16", "FP32"):
        row = re.search(rf"^\| {precision} \| (\d\S*) \| (\d+) \| (\d+) MB \|$", PAGE, flags=re.MULTILINE)
        assert row is not None
        throughput, by_core, memory = row.groups()
        served = re.search(
            rf"^\| resnet-service {precision} \| (\d\S*) \| (\d\S*) \| (\d\S*) \| (\d\S*) \|$", measured, re.M
        )
        assert served is not None
        assert float(throughput) == float(served[3])
        assert int(by_core) == int(float(throughput) / 2)
        remembered = re.search(rf"^\| resnet-service {precision} \| [\d.]+ \| (\d+) \| \d+ \|$", measured, re.MULTILINE)
        assert remembered is not None
        assert memory == remembered[1]


def test_alerts_are_explained_and_ask_for_metrics_that_exist() -> None:
    for alert in re.findall(r"alert: (\w+)", ALERTS):
        assert f"| `{alert}` |" in PAGE
    known = {row.name for row in Metrics().rows}
    known |= {f"{row.name}{part}" for row in Metrics().rows for part in ("_sum", "_count", "_bucket")}
    asked = set(re.findall(r"\bresnet_service_\w+", ALERTS)) | set(re.findall(r"`(resnet_service_\w+)`", PAGE))
    assert asked - {"resnet_service_concurrent_requests"} <= known
