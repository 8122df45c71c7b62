"""A process that loads files and answers: ``python -m benchmarks.serialization.child LOADER CLASSES THREADS CROPS``.

It reads requests, one JSON object a line: ``path``, and the number of timed ``runs``. It writes a line when the first
image is answered, with the logits of all images, and another with the times and the peak memory; or one with an error.
Modules named by ``--block`` cannot be imported.
"""

import argparse
import json
import os
import re
import resource
import sys
import time
from pathlib import Path
from typing import Any

_MEMORY_LIMIT = 16 << 30  # bytes of address space: a damaged size must not take the machine's memory
_WARM_UP_RUNS = 3


def main() -> None:
    """Serve requests until the input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("loader")
    parser.add_argument("classes", type=int)
    parser.add_argument("threads", type=int)
    parser.add_argument("crops", type=Path)
    parser.add_argument("--block", nargs="*", default=[])
    args = parser.parse_args()
    sys.modules.update(dict.fromkeys(args.block))  # None makes an import fail
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_LIMIT, _MEMORY_LIMIT))
    # Libraries that print must not disturb the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def write(**content: Any) -> None:
        print(json.dumps(content), file=answers)

    for line in sys.stdin:
        request = json.loads(line)
        try:
            import numpy as np

            from benchmarks.serialization.loaders import LOADERS

            crops = np.load(args.crops)
            answer = LOADERS[args.loader](Path(request["path"]), args.classes, args.threads)
            first = answer(crops[:1])
            write(answered=True)
            logits = [first, *(answer(crops[index : index + 1]) for index in range(1, len(crops)))]
            for _ in range(_WARM_UP_RUNS if request["runs"] else 0):
                answer(crops[:1])
            times = []
            for run in range(request["runs"]):
                crop = crops[run % len(crops)][np.newaxis]
                begin = time.perf_counter()
                answer(crop)
                times.append(1000 * (time.perf_counter() - begin))
            write(logits=np.concatenate(logits).tolist(), milliseconds=times, peak_bytes=_peak_bytes())
        except BaseException as error:  # noqa: BLE001 - whatever a damaged file causes is the answer
            write(error=type(error).__name__, message=str(error)[:500])


def _peak_bytes() -> int:
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


if __name__ == "__main__":
    main()
