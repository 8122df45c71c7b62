"""The comparison of ways to save a model: files, canaries and damage are what the page says, with a small network."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.serialization import canaries, page, plot, writing
from benchmarks.serialization.catalogue import FORMATS, LANGUAGES, PRECISIONS, Language
from benchmarks.serialization.damage import Damage, Region, damaged, try_damaged, weight_spans
from benchmarks.serialization.loaders import LOADERS
from benchmarks.serialization.processes import Failed, Loaded, LoadingProcess, Setup
from benchmarks.serialization.results import Results
from resnet_service.errors import PickledCode, UnreadableModel
from tests.support.models import random_model

CLASSES, SIDE, THREADS = 10, 64, 2
FILES = {one.name: one.file for one in FORMATS}
# PyTorch does not support TorchScript on Python 3.14.
TORCHSCRIPT = ("torchscript",) if sys.version_info < (3, 14) else ()
WRITTEN = ("state_dict", "pickle", "checkpoint", "safetensors-library", "safetensors", "torch-export", *TORCHSCRIPT)
RESULTS = Results.read(page.RESULTS)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a network in the formats that PyTorch writes within a second."""
    folder = tmp_path_factory.mktemp("formats")
    writing.write(random_model(num_classes=CLASSES), writing.facts(CLASSES, SIDE), folder, WRITTEN, None)
    return folder


@pytest.fixture(scope="module")
def setup(files: Path) -> Setup:
    crops = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    np.save(files / "crops.npy", crops)
    return Setup(CLASSES, THREADS, files / "crops.npy")


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_shows_the_results(language: Language) -> None:
    text = page.PAGES[language].read_text()
    assert page.with_blocks(text, page.blocks(RESULTS, language)) == text, "run it with --report"


def test_a_page_without_a_block_is_noticed() -> None:
    made = {"one": "new", "two": "new"}
    text = "<!-- measured: one -->\nold\n<!-- end of one -->\n<!-- measured: two -->\n<!-- end of two -->\n"
    assert page.with_blocks(text, made).count("new") == 2
    assert "old" not in page.with_blocks(text, made)
    with pytest.raises(LookupError, match="has the blocks"):
        page.with_blocks(text.replace("measured: two", "about two"), made)
    with pytest.raises(LookupError, match="the block one has no end"):
        page.with_blocks(text.replace("<!-- end of one -->", ""), made)


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    plot.draw(RESULTS, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_the_text_of_the_page_follows_from_the_results() -> None:
    found = RESULTS.formats
    assert found.keys() == FILES.keys()
    ran = {(name, loader) for name, one in found.items() for loader, attempt in one.canary.items() if attempt.ran}
    assert ran == {
        ("pickle", "pickle"),
        ("torchscript", "torchscript"),
        ("torch-export", "torch_export"),
        *((name, "careless") for name in ("state_dict", "pickle", "checkpoint")),
    }
    assert all(one.canary["service"].error for one in found.values()), "this service refuses them all"
    regions: tuple[Region, ...]
    for one in FORMATS:
        figures = found[one.name]
        assert figures.damage["end"].noticed == figures.damage["end"].copies, one.name
        assert (figures.has_preprocessing and figures.has_labels) == one.ours
        checksum = one.name in ("safetensors", *PRECISIONS)
        regions = ("weights", "rest") if checksum else ("weights",)
        for region in regions:
            noticed, copies = figures.damage[region].noticed, figures.damage[region].copies
            # The checksums of a zip archive are of the weights; the service compares them.
            compared = checksum or one.name == "checkpoint"
            assert noticed == copies if compared else noticed < copies / 2, (one.name, region)
        without = ("checkpoint", "safetensors", "onnx", *PRECISIONS)
        assert figures.needs_pytorch == (one.name not in without), one.name
        assert figures.needs_code == (one.name not in ("torchscript", "torch-export", "onnx", *PRECISIONS)), one.name
    assert min(found, key=lambda name: found[name].bytes) == "int8"
    assert set(found["torch-export"].newer.values()) > {"same"}, "an older version does not read it"
    others = [found[name] for name in ("state_dict", "pickle", "checkpoint", "safetensors-library", "torchscript")]
    assert {outcome for one in others for outcome in (*one.older.values(), *one.newer.values())} == {"same"}


@pytest.mark.parametrize("name", ["pickle", "torch-export", *TORCHSCRIPT])
def test_loading_runs_code_and_the_service_refuses_it(name: str, files: Path, canary: Path, tmp_path: Path) -> None:
    planted = tmp_path / FILES[name]
    canaries.plant(name, files / FILES[name], planted, canary)
    with pytest.raises(PickledCode):
        LOADERS["service"](planted, CLASSES, THREADS)
    assert not canary.exists()
    loader = {one.name: one.loader for one in FORMATS}[name]
    with contextlib.suppress(Exception):  # what comes after the canary does not matter
        LOADERS[loader](planted, CLASSES, THREADS)
    assert canary.exists()


def test_a_state_dict_runs_code_only_without_weights_only(files: Path, canary: Path, tmp_path: Path) -> None:
    planted = tmp_path / FILES["state_dict"]
    canaries.plant("state_dict", files / FILES["state_dict"], planted, canary)
    for refusing in ("state_dict", "service"):
        with pytest.raises(Exception, match=r"(?i)weights"):
            LOADERS[refusing](planted, CLASSES, THREADS)
    assert not canary.exists()
    with pytest.raises(RuntimeError, match="note"):
        LOADERS["careless"](planted, CLASSES, THREADS)
    assert canary.exists()


def test_a_pickle_with_another_suffix_is_refused(files: Path, canary: Path, tmp_path: Path) -> None:
    planted = tmp_path / FILES["safetensors"]
    canaries.plant("safetensors", files / FILES["safetensors"], planted, canary)
    with pytest.raises(Exception, match=r"(?i)header"):
        LOADERS["safetensors"](planted, CLASSES, THREADS)
    with pytest.raises(UnreadableModel):
        LOADERS["service"](planted, CLASSES, THREADS)
    assert not canary.exists()


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("region", ["weights", "rest"])
def test_one_bit_is_flipped_where_it_should_be(name: str, region: Region, files: Path) -> None:
    path = files / FILES[name]
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    spans = weight_spans(path)
    assert 0.99 < sum(end - begin for begin, end in spans) / len(whole) < 1
    for data in damaged(path, region, 3):
        (position,) = np.flatnonzero(whole != np.frombuffer(data, np.uint8))
        assert (whole[position] ^ data[position]).bit_count() == 1
        assert any(begin <= position < end for begin, end in spans) == (region == "weights")


def test_the_weights_of_an_onnx_file_are_found(exported: Path) -> None:
    assert 0.99 < sum(end - begin for begin, end in weight_spans(exported)) / exported.stat().st_size < 1


def test_damage_is_counted(exported: Path, files: Path, setup: Setup, tmp_path: Path) -> None:
    with LoadingProcess("service", setup) as process:
        assert try_damaged(process, exported, "weights", 3, tmp_path) == Damage(copies=3, noticed=3, harmless=0)
        assert try_damaged(process, exported, "end", 2, tmp_path) == Damage(copies=2, noticed=2, harmless=0)
        with pytest.raises(RuntimeError, match="does not load: ModelFileNotFound"):
            try_damaged(process, files / "none.onnx", "end", 1, tmp_path)


@pytest.fixture
def without_torch(setup: Setup) -> Iterator[LoadingProcess]:
    with LoadingProcess("service", setup, block=("torch", "torchvision")) as process:
        yield process


def test_what_a_format_needs_is_found_by_blocking_it(
    exported: Path, files: Path, setup: Setup, without_torch: LoadingProcess
) -> None:
    found = without_torch.load(exported, runs=2)
    assert isinstance(found, Loaded)
    assert found.logits.shape == (2, CLASSES)
    assert len(found.milliseconds) == 2
    assert 0 < min(found.milliseconds) / 1000 < found.seconds
    assert 50e6 < found.peak_bytes < 2e9
    with LoadingProcess("state_dict", setup, block=("torch",)) as process:
        failed = process.load(files / FILES["state_dict"])
    assert isinstance(failed, Failed)
    assert failed.error == "ModuleNotFoundError"


def test_a_process_that_ends_is_started_again(exported: Path, setup: Setup) -> None:
    with LoadingProcess("service", setup) as process:
        first = process.load(exported)
        assert process._process is not None
        process._process.kill()
        assert process.load(exported) == Failed("ended", "The process ended, or took too long.")
        second = process.load(exported)
    assert isinstance(first, Loaded)
    assert isinstance(second, Loaded)
    np.testing.assert_array_equal(first.logits, second.logits)


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    RESULTS.write(tmp_path / "results.json")
    assert Results.read(tmp_path / "results.json") == RESULTS
