"""The machine and the package versions of a run."""

import json
import platform
import re
import subprocess
import time
from pathlib import Path

from benchmarks.environments import Interpreters
from benchmarks.paths import environment
from resnet_service.system.cpus import available_cpus

# Instructions that decide how fast a network runs at each precision.
_TELLING_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
_PACKAGES = {
    "own": ("resnet-service", "torch", "fastapi", "starlette", "uvicorn", "uvloop", "pillow", "numpy"),
    "serve": ("openvino", "fastapi", "starlette", "uvicorn", "uvloop", "pillow", "numpy"),
    "torch": ("torch", "torchvision", "flask", "litserve", "bentoml", "torchserve", "pillow"),
    "openvino": ("openvino", "litserve", "bentoml", "pillow", "numpy"),
}
_ASK = """
import importlib.metadata, json, sys
found = {one.name.lower(): one.version for one in importlib.metadata.distributions()}
print(json.dumps({name: found[name] for name in sys.argv[1:] if name in found}))
"""


def describe() -> dict[str, str]:
    """Return processor, cores, memory and system."""
    info = Path("/proc/cpuinfo").read_text()
    flags = set(_first(r"^flags\s*: (.*)$", info).split())
    kilobytes = int(_first(r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text()) or 0)
    return {
        "processor": _first(r"^model name\s*: (.*)$", info),
        "cores": str(available_cpus()),
        "instructions": ", ".join(flag for flag in _TELLING_FLAGS if flag in flags),
        "memory": f"{kilobytes / 1e6:.0f} GB",
        "system": f"{platform.system()} {platform.release()}",
    }


def others_share(seconds: float = 2) -> float:
    """Return the share of CPU time, in percent, that other programs use."""
    idle, total = _cpu_times()
    time.sleep(seconds)
    idle_later, total_later = _cpu_times()
    return round(100 * (1 - (idle_later - idle) / (total_later - total)), 1)


def versions(interpreters: Interpreters) -> dict[str, str]:
    """Return the version of each package, by environment and package."""
    found = {"python": platform.python_version()}
    for name, packages in _PACKAGES.items():
        python = str(getattr(interpreters, name))
        answer = json.loads(_output([python, "-c", _ASK, *packages]))
        found |= {f"{package} ({name})" if name != "own" else package: v for package, v in answer.items()}
    found["java"] = _first(r'version "([^"]+)"', _output(["java", "-version"]))
    found["wrk"] = _first(r"wrk (\S+)", _output(["wrk", "-v"]))
    return found


def _cpu_times() -> tuple[int, int]:
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return fields[3] + fields[4], sum(fields[:8])  # idle and iowait; user time includes guest time


def _output(command: list[str]) -> str:
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    return done.stdout or done.stderr


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text, flags=re.MULTILINE)
    return found[1] if found else ""
