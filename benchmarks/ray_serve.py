"""The cost of Ray Serve for each request: one replica against ``resnet-service serve``, in turns on one machine.

python -m benchmarks.ray_serve MODEL IMAGES [--cpus 2] [--connections 1,8] [--rounds 5] [--seconds 8]

IMAGES is a folder of JPEGs. It needs a Python with the extra `ray`, and wrk. Ray also runs while the other server is
measured, and takes a few percent of a CPU then, which slightly favours Ray.
"""

import argparse
import json
import logging
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.load import Load, run

_START_SECONDS = 60


def main() -> None:
    """Measure, and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--connections", default="1,8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8)
    args = parser.parse_args()
    model, images = args.model.absolute(), sorted(args.images.absolute().glob("*.jpg"))
    with own_server(model, args.cpus) as own, ray_serve(model, args.cpus) as rays:
        urls = {"resnet-service serve": own, "Ray Serve": rays}
        for url in urls.values():
            run(f"{url}/predict", None, images, connections=4, seconds=3)
        for connections in map(int, args.connections.split(",")):
            found: dict[str, list[Load]] = {name: [] for name in urls}
            for _ in range(args.rounds):
                for name, url in urls.items():
                    found[name].append(
                        run(f"{url}/predict", None, images, connections=connections, seconds=args.seconds)
                    )
            print(json.dumps(summary(connections, found)), flush=True)


def summary(connections: int, found: dict[str, list[Load]]) -> dict[str, object]:
    """Return medians over the rounds, and the median of the rounds' ratios."""
    own, rays = found.values()
    ratios = [one.per_second / other.per_second for one, other in zip(rays, own, strict=True)]
    return {
        "connections": connections,
        "load_average": round(os.getloadavg()[0], 1),
        **{
            name: {
                "per_second": round(statistics.median(load.per_second for load in loads), 1),
                "p50_ms": round(statistics.median(load.p50 for load in loads), 1),
                "errors": sum(load.errors for load in loads),
            }
            for name, loads in found.items()
        },
        "ratios": [round(ratio, 2) for ratio in ratios],
        "ratio": round(statistics.median(ratios), 2),
    }


def free_port() -> int:
    """Return a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def own_server(model: Path, cpus: int) -> Iterator[str]:
    """Run ``resnet-service serve`` with ``cpus`` workers; yield its URL."""
    port = free_port()
    options = ["--checkpoint", str(model), "--port", str(port), "--workers", str(cpus), "--log-level", "warning"]
    process = subprocess.Popen([sys.executable, "-m", "resnet_service", "serve", *options])
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _ready(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("resnet-service did not start")
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(_START_SECONDS)


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health/ready", timeout=5) as answer:  # noqa: S310 - http, to this machine
            return bool(answer.status == 200)
    except urllib.error.URLError:
        return False


@contextmanager
def ray_serve(model: Path, cpus: int) -> Iterator[str]:
    """Run one replica with ``cpus`` CPUs on Ray Serve; yield its URL."""
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_TOKEN=secrets.token_hex(32))
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        os.environ["RAY_TMPDIR"] = folder  # before Ray's import; its sockets need a short path
        # The import of the module builds an application from the environment.
        os.environ.update(RESNET_SERVICE_CHECKPOINT=str(model), RESNET_SERVICE_WORKERS=str(cpus))
        import ray
        from ray import serve

        from resnet_service.ray.serving import build

        ray.init(
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address="127.0.0.1",
        )
        try:
            port = free_port()
            serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"enable_access_log": False})
            serve.run(build(max_replicas=1))
            yield f"http://127.0.0.1:{port}"
        finally:
            serve.shutdown()
            ray.shutdown()


if __name__ == "__main__":
    main()
