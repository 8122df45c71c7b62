"""TorchServe with its ``image_classifier`` handler: writes the configuration, then executes TorchServe.

``MODEL`` is the model archive. TorchServe writes into a temporary folder, which is removed after the run.
"""

import os
import socket
import sys
import tempfile
from pathlib import Path

from benchmarks.servers import options

CONFIGURATION = """\
inference_address=http://{host}:{port}
management_address=http://{host}:{management}
metrics_address=http://{host}:{metrics}
grpc_inference_port={grpc_inference}
grpc_management_port={grpc_management}
default_workers_per_model={workers}
job_queue_size=1000
max_request_size=20000000
disable_system_metrics=true
async_logging=true
models={{"{name}": {{"1.0": {{"marName": "{archive}", "minWorkers": {workers}, "maxWorkers": {workers}, \
"batchSize": {batch}, "maxBatchDelay": {delay}, "responseTimeout": 60}}}}}}
"""

# By default it logs several lines for each request.
LOGGING = """\
<Configuration>
  <Appenders><Console name="console"><PatternLayout pattern="%d %p %m%n"/></Console></Appenders>
  <Loggers><Root level="warn"><AppenderRef ref="console"/></Root></Loggers>
</Configuration>
"""


def main() -> None:
    """Replace this process with TorchServe."""
    archive = options.model()
    folder = Path(tempfile.mkdtemp(prefix="torchserve-"))
    configuration = folder / "config.properties"
    configuration.write_text(
        CONFIGURATION.format(
            host=options.HOST,
            port=options.port(),
            management=free_port(),
            metrics=free_port(),
            grpc_inference=free_port(),
            grpc_management=free_port(),
            workers=options.number("WORKERS", 1),
            batch=options.number("BATCH", 1),
            delay=options.number("BATCH_MILLISECONDS", 0) or 1,
            name=archive.stem,
            archive=archive.name,
        )
    )
    logging = folder / "log4j2.xml"
    logging.write_text(LOGGING)
    os.chdir(folder)  # it writes logs into the current folder
    os.environ |= {"TMPDIR": str(folder), "TEMP": str(folder), "OMP_NUM_THREADS": str(options.number("THREADS", 1))}
    store, loaded = ["--model-store", str(archive.parent)], ["--models", f"{archive.stem}={archive.name}"]
    configured = ["--ts-config", str(configuration), "--log-config", str(logging)]
    switches = ["--foreground", "--ncs", "--disable-token-auth"]
    command = [sys.executable, "-m", "ts.model_server", *store, *loaded, *configured, *switches]
    os.execv(sys.executable, command)  # noqa: S606 - no shell is needed


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind((options.HOST, 0))
        number: int = probe.getsockname()[1]
    return number


if __name__ == "__main__":
    main()
