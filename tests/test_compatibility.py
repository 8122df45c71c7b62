"""What version 1.0 published must keep working in every later 1.x version."""

import json
from pathlib import Path

import numpy as np
import pytest

from resnet_service.inference.classifier import Classifier
from support.pictures import CAT

WRITTEN_BY_1_0 = Path("tests/data/written-by-1.0.0")
ANSWERS = json.loads((WRITTEN_BY_1_0 / "answers.json").read_text())


@pytest.mark.parametrize("name", ["small.pth", "small.onnx"])
def test_a_model_file_of_version_1_0_is_served_as_it_was(name: str) -> None:
    classifier = Classifier.open(WRITTEN_BY_1_0 / name, decoding="exact")
    classifier.warm_up()
    assert classifier.model.version == ANSWERS[name]["version"]
    logits = classifier.score([CAT.read_bytes()]).logits[0]
    np.testing.assert_allclose(logits, ANSWERS[name]["logits"], atol=1e-3)
