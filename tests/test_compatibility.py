"""What version 1.0 published must keep working in every later 1.x version."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from resnet_service.inference.classifier import Classifier, ClassifierConfig
from tests.support.images import CAT

WRITTEN_BY_1_0 = Path("tests/data/written-by-1.0.0")
# What other programs import, as `docs/architecture.md` lists it: the path that 1.0 published, the path of today, names.
PUBLIC = (
    ("api.app", "api.app", ("create_app",)),
    ("client", "client", ("AsyncClient", "Client", "Failure", "Overloaded", "ServiceRefused", "Unreachable")),
    ("datasets", "evaluation.datasets", ("open_dataset",)),
    ("decode", "imaging.decode", ("decode",)),
    ("fake", "inference.fake", ("FakeClassifier",)),
    ("labels", "models.labels", ("read_label_set",)),
    ("metadata", "models.metadata", ("ModelMetadata", "Provenance")),
    ("prepare.checkpoint", "models.checkpoint.checkpoint", ("load_checkpoint", "save_checkpoint")),
    ("preprocess", "imaging.preprocess", ("crop", "normalise")),
    ("probe", "server.healthcheck", ("main", "probe")),
    ("settings", "settings", ("Settings", "load_settings")),
)
ANSWERS = json.loads((WRITTEN_BY_1_0 / "answers.json").read_text())


@pytest.mark.parametrize("name", ["small.pth", "small.onnx"])
def test_a_model_file_of_version_1_0_is_served_as_it_was(name: str) -> None:
    classifier = Classifier.open(WRITTEN_BY_1_0 / name, ClassifierConfig(decoding="exact"))
    classifier.warm_up()
    assert classifier.model.version == ANSWERS[name]["version"]
    logits = classifier.score([CAT.read_bytes()]).logits[0]
    np.testing.assert_allclose(logits, ANSWERS[name]["logits"], atol=1e-3)


@pytest.mark.parametrize(("old", "new", "names"), PUBLIC, ids=[old for old, _, _ in PUBLIC])
@pytest.mark.filterwarnings("ignore:resnet_service:DeprecationWarning")
def test_a_published_path_gives_what_is_at_its_new_place(old: str, new: str, names: tuple[str, ...]) -> None:
    for name in names:
        here = getattr(import_module(f"resnet_service.{new}"), name)
        assert getattr(import_module(f"resnet_service.{old}"), name) is here


@pytest.mark.filterwarnings("ignore:resnet_service:DeprecationWarning")
def test_the_steps_of_the_training_page_of_1_0_still_work(tmp_path: Path) -> None:
    """What `docs/own-model.md` of 1.0 did with each of these modules, by its import paths."""
    paths = ("datasets", "decode", "labels", "metadata", "prepare.checkpoint", "preprocess")
    datasets, decoding, labelling, metadata, checkpoints, preprocess = (
        import_module(f"resnet_service.{path}") for path in paths
    )
    labels, reference = labelling.read_label_set(Path("labels/fashion-mnist.json"))
    dataset = datasets.open_dataset(Path("tests/data/fashion-mnist"), labels)
    checkpoint = checkpoints.load_checkpoint(WRITTEN_BY_1_0 / "small.pth")
    image = decoding.decode(dataset.samples[0].read()).image
    pixels = preprocess.crop(image, checkpoint.metadata)
    assert preprocess.normalise(pixels[np.newaxis], checkpoint.metadata).shape == (1, 64, 64, 3)
    provenance = metadata.Provenance(source="a test")
    facts = checkpoint.metadata.model_copy(update={"provenance": provenance})
    checkpoints.save_checkpoint(checkpoint.model, tmp_path / "mine.pth", facts)
    assert checkpoints.load_checkpoint(tmp_path / "mine.pth").metadata.provenance == provenance
    assert reference.name == "fashion-mnist"


def test_an_old_path_says_where_its_module_is_now() -> None:
    code = "import resnet_service.decode"
    command = [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "resnet_service.decode has moved to resnet_service.imaging.decode." in done.stderr


def test_the_old_health_check_still_runs() -> None:
    command = [sys.executable, "-m", "resnet_service.probe"]
    environment = {"RESNET_SERVICE_PORT": "1", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert (done.returncode, done.stderr) == (1, "127.0.0.1, port 1: [Errno 111] Connection refused\n")


def test_the_application_on_ray_is_at_its_published_path() -> None:
    # Importing it needs Ray, which has an environment of its own in these tests.
    assert "\napp = " in Path("src/resnet_service/ray/serving.py").read_text()
