"""Load generation with wrk, which needs about 1 % of a CPU at the throughput of these servers."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.paths import BENCHMARKS, environment

_ANSWER_SECONDS = 60
_MARGIN_SECONDS = 90


class Load(NamedTuple):
    """The result of a run of wrk: responses a second, latency percentiles in milliseconds, number of errors."""

    per_second: float
    p50: float
    p95: float
    p99: float
    requests: int
    errors: int


def run(url: str, field: str | None, images: Sequence[Path], *, connections: int, seconds: float) -> Load:
    """Post ``images`` in turn over ``connections`` connections; each waits for a response before the next request.

    Raises:
        RuntimeError: wrk failed, or received no response.

    """
    whole = max(1, round(seconds))
    settings = ["-t1", f"-c{connections}", f"-d{whole}s", "--timeout", f"{_ANSWER_SECONDS}s"]
    script = ["-s", str(BENCHMARKS / "post.lua")]
    command = ["wrk", *settings, *script, url, "--", field or "-", *map(str, images)]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=whole + _MARGIN_SECONDS, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"wrk failed: {done.stderr.strip() or done.stdout.strip()}")
    return parse(done.stdout)


def parse(output: str) -> Load:
    """Parse the line of JSON that ``post.lua`` prints last.

    Raises:
        RuntimeError: There is no such line, or there were no responses.

    """
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if not lines:
        raise RuntimeError(f"wrk printed no result: {output[-500:]}")
    found = json.loads(lines[-1])
    if not found["requests"]:
        raise RuntimeError("no request was answered")
    per_second = found["requests"] / found["microseconds"] * 1e6
    p50, p95, p99 = (found[name] / 1000 for name in ("p50", "p95", "p99"))
    return Load(per_second, p50, p95, p99, found["requests"], found["errors"])
