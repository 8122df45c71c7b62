"""A program for the tests: a Ray on this machine, and the service on it as the documentation starts it.

python ray_serve.py CPUS PORT

Prints ``up`` when it serves. Then prints the number of running replicas for each line that it reads, and ends with its
input. Apart from the tests' process, which is not to hold Ray's threads, signal handlers and warnings.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import ray
from ray import serve

_START_SECONDS = 150


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cpus", type=int)
    parser.add_argument("port", type=int)
    args = parser.parse_args()
    started = ray.init(num_cpus=args.cpus, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    try:
        # `serve run` takes the port of the Serve that is there.
        serve.start(http_options={"host": "127.0.0.1", "port": args.port})
        command = [str(Path(sys.executable).with_name("serve")), "run", "--non-blocking"]
        command += ["--address", started.address_info["gcs_address"], "resnet_service.ray.serving:app"]
        subprocess.run(command, check=True, timeout=_START_SECONDS, stdin=subprocess.DEVNULL, stdout=sys.stderr)
        print("up", flush=True)
        for _ in sys.stdin:
            states = serve.status().applications["default"].deployments["resnet-service"].replica_states
            print(sum(count for state, count in states.items() if state == "RUNNING"), flush=True)
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
