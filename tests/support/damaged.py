"""Damaged images: results of their decoding, and growth of memory."""

import os
import time
from pathlib import Path

from fuzz.damage import damaged
from fuzz.targets import corpus
from resnet_service.errors import RequestError
from resnet_service.imaging.decode import decode
from resnet_service.imaging.formats import ACCEPTED_FORMATS
from tests.support.images import encoded, noise

IMAGES = {path.name: path.read_bytes() for path in corpus("decode")}
IMAGES |= {f"noise.{name.lower()}": encoded(noise(64, 48), name) for name in ACCEPTED_FORMATS}

FILES_EACH_SLOW = 3_000


def decode_damaged(name: str, seeds: range) -> set[str]:
    """Decode an image after every damage; return the kinds of answers."""
    answers = set()
    for seed in seeds:
        data = damaged(IMAGES[name], seed)
        begun = time.process_time()
        try:
            decode(data, max_pixels=1_000_000, min_side=32)
            answers.add("read")
        except RequestError as error:
            answers.add(error.code)
        assert time.process_time() - begun < 2, f"seed {seed} took too long"
    return answers


def growth(name: str) -> float:
    """Return by how many MB this process's resident memory grows with damaged images, after a warm-up."""

    def resident() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    decode_damaged(name, range(500))
    before = resident()
    decode_damaged(name, range(500, FILES_EACH_SLOW))
    return resident() - before
