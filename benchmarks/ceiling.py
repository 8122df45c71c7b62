"""The throughput of the processor without HTTP: decode, resize and infer, in one pinned process a CPU.

    python -m benchmarks.ceiling MODEL --seconds 4

prints images a second as JSON. Decoding and resizing are the service's code; the network runs in OpenVINO with one
thread a process, at the precision of the exported model.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

from resnet_service.system.cpus import available_cpus

_WARM_UP_IMAGES = 20
_START_SECONDS = 60


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--seconds", type=float, default=4)
    args = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))[: available_cpus()]
    context = multiprocessing.get_context("spawn")
    start, rates = context.Barrier(len(cpus)), context.Queue()
    workers = [
        context.Process(target=_work, args=(args.model, cpu, args.seconds, start, rates), daemon=True) for cpu in cpus
    ]
    for worker in workers:
        worker.start()
    total = sum(rates.get(timeout=2 * _START_SECONDS + args.seconds) for _ in workers)
    for worker in workers:
        worker.join(_START_SECONDS)
    print(json.dumps({"per_second": total}))


def _work(model: Path, cpu: int, seconds: float, start: Barrier, rates: "Queue[float]") -> None:
    os.sched_setaffinity(0, {cpu})  # before OpenVINO counts the CPUs
    import numpy as np
    import openvino

    from benchmarks.files import Files
    from resnet_service.imaging.decode import DRAFT_MARGIN, decode
    from resnet_service.imaging.preprocess import crop
    from resnet_service.models.exported import read_exported

    exported = read_exported(model)
    metadata = exported.metadata
    side = metadata.input_size
    core = openvino.Core()
    network = core.read_model(exported.data)
    network.reshape([1, side, side, 3])
    hint = "bf16" if exported.precision == "bf16" else "f32"
    settings = {"INFERENCE_PRECISION_HINT": hint, "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}
    request = core.compile_model(network, "CPU", settings).create_infer_request()
    images = itertools.cycle([path.read_bytes() for path in Files().photographs()])

    def one(data: bytes) -> None:
        pixels = crop(decode(data, min_side=DRAFT_MARGIN * metadata.resize_size).image, metadata, exact=False)
        request.infer([pixels[np.newaxis]], share_inputs=True, share_outputs=True)

    for data in itertools.islice(images, _WARM_UP_IMAGES):
        one(data)
    start.wait(_START_SECONDS)
    done, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        one(next(images))
        done += 1
    rates.put(done / passed)


if __name__ == "__main__":
    main()
