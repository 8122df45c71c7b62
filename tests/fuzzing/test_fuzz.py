"""Untrusted bytes against every reader: the kept corpus, seeded damage, and (slow) coverage-guided search."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fuzz.damage import damaged
from fuzz.targets import TARGETS, corpus
from resnet_service.imaging.decode import decode
from resnet_service.imaging.formats import ACCEPTED_FORMATS, HEIC
from tests.support.damaged import IMAGES, decode_damaged
from tests.support.servers import REPOSITORY

KEPT = [(target, path) for target in TARGETS for path in corpus(target)]

FILES_EACH = 150
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}


@pytest.mark.parametrize(("target", "path"), KEPT, ids=[f"{target}/{path.name}" for target, path in KEPT])
def test_the_kept_corpus_raises_nothing(target: str, path: Path) -> None:
    TARGETS[target](path.read_bytes())


def test_the_corpus_has_every_format_and_stays_small() -> None:
    readable = {decode(path.read_bytes()).info.format for path in corpus("decode") if path.stem == "plain"}
    assert readable == {*ACCEPTED_FORMATS, HEIC}
    assert sum(path.stat().st_size for _, path in KEPT) < 200_000


@pytest.mark.parametrize("name", IMAGES)
def test_damaged_images_are_read_or_refused(name: str) -> None:
    assert {"broken_image"} <= decode_damaged(name, range(FILES_EACH))


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGES)
def test_damaged_images_leave_no_memory_behind(name: str) -> None:
    """3,000 files of each kind, in a process that holds nothing else; about two minutes for all."""
    measure = [sys.executable, "-c", f"from tests.support.damaged import growth; print(growth({name!r}))"]
    done = subprocess.run(measure, capture_output=True, text=True, timeout=120, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert float(done.stdout) < 20


@pytest.mark.parametrize("name", sorted(TARGETS.keys() - {"decode"}))
def test_damaged_model_files_are_read_or_refused(name: str) -> None:
    threads = threading.active_count()
    for path in corpus(name):
        for seed in range(FILES_EACH):
            TARGETS[name](damaged(path.read_bytes(), seed))
    assert threading.active_count() == threads


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_coverage_guided_search_finds_nothing(target: str, tmp_path: Path) -> None:
    """30 seconds of libFuzzer for each target; what it finds belongs into the corpus.

    Linux counts as a process's peak memory, which libFuzzer bounds, what its parent held when it was started. So there
    is a shell between it and these tests, which hold gigabytes.
    """
    done = subprocess.run(
        ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-m", "fuzz", target, "30"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        cwd=tmp_path,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "stat::number_of_executed_units" in done.stderr
