import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from resnet_service.errors import InvalidDataset
from resnet_service.evaluation.datasets import Dataset, Sample
from resnet_service.evaluation.evaluate import CALIBRATION_BINS, Evaluation, evaluate
from resnet_service.imaging.decode import ImageInfo
from resnet_service.inference.fake import FakeClassifier
from resnet_service.inference.ranking import RankedClass
from resnet_service.inference.results import Classification, Timing
from resnet_service.models.checkpoint.checkpoint import load_checkpoint
from tests.support.images import encoded, noise
from tests.support.models import random_checkpoint
from tests.support.servers import cli

IMAGE = encoded(noise(8, 8), "PNG")


def dataset(*samples: tuple[bytes, int]) -> Dataset:
    listed = [
        Sample(f"{number}.png", class_id, functools.partial(bytes, data))
        for number, (data, class_id) in enumerate(samples)
    ]
    return Dataset("made", listed, "0" * 64)


class Scripted(FakeClassifier):
    """Answers with the bytes of the image: the confidence of the first answer in percent, then the classes."""

    def classify(self, data: bytes, top_k: int | None = None) -> Classification:
        confidence, *classes = data
        ranked = [RankedClass(class_id, f"class {class_id}", confidence / 100) for class_id in classes]
        return Classification(ranked, ImageInfo("PNG", 8, 8), Timing(0, 0, 0, float(confidence)))


def scripted(*answers: tuple[int, int, int]) -> Evaluation:
    """Evaluate answers, each (confidence in percent, answered class, true class)."""
    samples = [(bytes([confidence, answer]), truth) for confidence, answer, truth in answers]
    return evaluate(Scripted(3), dataset(*samples))


def test_accuracy_confusion_and_classes() -> None:
    found = scripted((90, 0, 0), (90, 1, 0), (90, 1, 1), (90, 1, 1))
    assert found.top1 == 75
    assert found.confusion.tolist() == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert found.per_class == {"class 0": 50.0, "class 1": 100.0}


def test_top_5_counts_the_true_class_at_any_rank() -> None:
    found = evaluate(Scripted(9), dataset((bytes([50, 1, 2, 3, 4, 5]), 5), (bytes([50, 1, 2, 3, 4, 5]), 6)))
    assert (found.top1, found.top5) == (0, 50)


def test_calibration_error_by_hand() -> None:
    """Ten answers of confidence 0.9, six right; ten of 0.5, five right: (10 * 0.3 + 10 * 0) / 20."""
    sure = [(90, 0, 0)] * 6 + [(90, 0, 1)] * 4
    torn = [(50, 0, 0)] * 5 + [(50, 0, 1)] * 5
    assert scripted(*sure, *torn).calibration_error == pytest.approx(0.15)


def test_full_confidence_falls_into_the_last_bin() -> None:
    bins = scripted((100, 0, 0)).calibration
    assert len(bins) == CALIBRATION_BINS
    assert (bins[-1].size, bins[-1].accuracy) == (1, 1.0)


def test_latency_percentiles() -> None:
    found = scripted(*[(percent, 0, 0) for percent in range(1, 101)])
    assert found.latency_ms == pytest.approx({"p50": 50.5, "p95": 95.05, "p99": 99.01})


def test_order_is_kept_with_many_workers() -> None:
    samples = [(bytes([50, number % 3]), number % 3) for number in range(100)]
    seen: list[int] = []
    found = evaluate(Scripted(3), dataset(*samples), workers=4, progress=seen.append)
    assert found.top1 == 100
    assert seen == list(range(1, 101))
    assert np.array_equal(found.truth, np.arange(100) % 3)


def test_unreadable_images_are_reported_and_the_others_evaluated(tmp_path: Path) -> None:
    opened = dataset((IMAGE, 0), (b"hello", 0), (IMAGE[:20], 1), (IMAGE, 1))
    opened.samples.append(Sample("gone.png", 0, (tmp_path / "gone.png").read_bytes))
    found = evaluate(FakeClassifier(), opened)
    assert [name for name, _ in found.unreadable] == ["1.png", "2.png", "gone.png"]
    assert found.unreadable[2][1] == "The file cannot be read: No such file or directory."
    assert found.truth.tolist() == [0, 1]


def test_a_data_set_without_readable_images_is_an_error() -> None:
    with pytest.raises(InvalidDataset, match=r"No image of made can be read\. The first, 0\.png: These bytes"):
        evaluate(FakeClassifier(), dataset((b"hello", 0)))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number in range(10):
        (tmp_path / "images" / f"class {number}").mkdir(parents=True)
        (tmp_path / "images" / f"class {number}" / "a.png").write_bytes(encoded(noise(70, 70, number), "PNG"))
    return tmp_path / "images"


@pytest.mark.slow
def test_the_command_measures_plots_and_records(tmp_path: Path, images: Path) -> None:
    model = random_checkpoint(tmp_path / "model.pth")
    (images / "class 3" / "broken.png").write_bytes(b"hello")
    done = cli("evaluate", model, images, "--json", "--plot", tmp_path / "plots", "--record")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["pictures"] == 10
    assert [entry["name"] for entry in found["unreadable"]] == ["class 3/broken.png"]
    assert (tmp_path / "plots" / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "plots" / "reliability.png").read_bytes().startswith(b"\x89PNG")
    (record,) = load_checkpoint(model).metadata.evaluations
    assert (record.dataset, record.top1, record.sha256) == ("images", found["top1"], found["sha256"])

    again = cli("evaluate", model, images, "--record")
    assert "unreadable: class 3/broken.png: These bytes are not an image" in again.stderr
    assert "calibration error" in again.stdout
    assert len(load_checkpoint(model).metadata.evaluations) == 1


@pytest.mark.slow
def test_recording_keeps_half_precision(tmp_path: Path, images: Path) -> None:
    import torch

    from resnet_service.models.checkpoint.checkpoint import save_checkpoint
    from tests.support.models import metadata, random_model

    save_checkpoint(random_model(), tmp_path / "half.pth", metadata(), dtype=torch.float16)
    before = (tmp_path / "half.pth").stat().st_size
    assert cli("evaluate", tmp_path / "half.pth", images, "--record").returncode == 0
    assert (tmp_path / "half.pth").stat().st_size < before + 2000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images: (images / "class 12").mkdir() or (images / "class 12" / "a.png").touch(), "'class 12'"),
        (lambda images: [path.unlink() for path in images.rglob("*.png")], "empty"),
    ],
    ids=["unknown class", "empty"],
)
def test_a_bad_data_set_is_one_line_and_nothing_is_written(
    tmp_path: Path, exported: Path, images: Path, change: Callable[[Path], object], message: str
) -> None:
    model = Path(shutil.copy(exported, tmp_path / "model.onnx"))
    before = model.read_bytes()
    change(images)
    done = cli("evaluate", model, images, "--record", "--plot", tmp_path / "plots")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "plots").exists()
    assert model.read_bytes() == before
