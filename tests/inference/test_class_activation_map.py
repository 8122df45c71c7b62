"""Class activation maps: the formula, and the path from a file's bytes, against a reference in PyTorch."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from resnet_service.errors import InvalidClassId, InvalidModelOutput, OutputUnavailable
from resnet_service.export.export import export
from resnet_service.imaging.preprocess import crop, normalise
from resnet_service.inference.class_activation_map import activation_map, check_class_id
from resnet_service.inference.classifier import Classifier, ClassifierConfig
from resnet_service.models.architectures import build
from resnet_service.models.checkpoint.checkpoint import load_checkpoint, save_checkpoint
from resnet_service.models.labels import LabelSet
from resnet_service.runtimes.registry import open_runtime
from tests.support.images import CAT, encoded, noise
from tests.support.models import Both, ExportedByCommand, as_older_version, metadata
from tests.support.servers import REPOSITORY

FASHION = REPOSITORY / "checkpoints" / "resnet18-fashion-mnist.safetensors"
INT8 = FASHION.with_name("resnet18-fashion-mnist-int8.onnx")
SAMPLE = REPOSITORY / "tests" / "data" / "fashion-mnist"
SHOES = [path.read_bytes() for path in sorted(SAMPLE.rglob("*.png"))[::40]]


@pytest.fixture(params=["random", pytest.param("fashion", marks=pytest.mark.slow)])
def both(request: pytest.FixtureRequest) -> Both:
    """Return a resnet18 for 64 pixels, as checkpoint and exported in FP32: random weights, and those that ship."""
    if request.param == "random":
        return Both(request.getfixturevalue("checkpoint"), request.getfixturevalue("exported"))
    shipped: ExportedByCommand = request.getfixturevalue("fashion_exported")
    return Both(FASHION, shipped.path)


@functools.cache
def classifier(path: Path) -> Classifier:
    """Open a file once for all tests: compiling takes a second."""
    opened = open_runtime(path)
    return Classifier(opened, LabelSet.numbered(opened.metadata.num_classes), config=ClassifierConfig(decoding="exact"))


load = functools.cache(load_checkpoint)


def reference(path: Path, image: bytes, class_id: int) -> np.ndarray:
    """The method of Zhou et al. as in their code: a hook on the last block, the weights of the last layer."""
    from resnet_service.imaging.decode import decode

    checkpoint = load(path)
    seen: list[torch.Tensor] = []
    last_block, fc = checkpoint.model.layer4, checkpoint.model.fc
    assert isinstance(last_block, nn.Module)
    assert isinstance(fc, nn.Linear)
    hook = last_block.register_forward_hook(lambda _module, _input, output: seen.append(output.clone()))
    pixels = normalise(crop(decode(image).image, checkpoint.metadata)[np.newaxis], checkpoint.metadata)
    with torch.inference_mode():
        checkpoint.model(torch.from_numpy(pixels).permute(0, 3, 1, 2))
        values: np.ndarray = torch.einsum("k,kyx->yx", fc.weight[class_id], seen[0][0]).numpy()
    hook.remove()
    return values


def test_the_formula() -> None:
    features = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    weights = np.array([1, -1, 0.5], np.float32)
    expected = [[0 - 4 + 4, 1 - 5 + 4.5], [2 - 6 + 5, 3 - 7 + 5.5]]
    np.testing.assert_array_equal(activation_map(features, weights), np.array(expected, np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_no_map_of_unsound_features(bad: float) -> None:
    features = np.ones((3, 2, 2), np.float32)
    features[1, 0, 1] = bad
    with pytest.raises(InvalidModelOutput):
        activation_map(features, np.ones(3, np.float32))


@pytest.mark.parametrize("class_id", [-1, 10, 2**70])
def test_there_is_no_such_class(class_id: int) -> None:
    with pytest.raises(InvalidClassId, match="between 0 and 9"):
        check_class_id(class_id, 10)


@pytest.mark.parametrize("image", SHOES, ids=range(len(SHOES)))
def test_64_pixels_equal_the_reference(both: Both, image: bytes) -> None:
    answer = classifier(both.exported).explain(image)
    assert answer.values.shape == (2, 2)
    np.testing.assert_allclose(answer.values, reference(both.checkpoint, image, answer.class_id), rtol=0, atol=1e-3)


@pytest.mark.parametrize("class_id", [None, 0, 9])
@pytest.mark.parametrize("image", [CAT.read_bytes(), encoded(noise(300, 500), "PNG")], ids=["cat", "noise"])
def test_224_pixels_equal_the_reference(small_network: Both, image: bytes, class_id: int | None) -> None:
    checkpoint, exported = small_network
    answer = classifier(exported).explain(image, class_id)
    assert answer.values.shape == (7, 7)
    assert class_id in (None, answer.class_id)
    np.testing.assert_allclose(answer.values, reference(checkpoint, image, answer.class_id), rtol=0, atol=1e-3)


def test_the_reference_runtime_explains_and_embeds_alike(small_network: Both) -> None:
    ours, theirs = classifier(small_network.exported), classifier(small_network.checkpoint)
    assert ours.model.outputs == theirs.model.outputs
    mine, yours = ours.explain(CAT.read_bytes()), theirs.explain(CAT.read_bytes())
    assert mine.class_id == yours.class_id
    np.testing.assert_allclose(mine.values, yours.values, rtol=0, atol=1e-3)
    vectors = [one.embed(CAT.read_bytes()).vector for one in (ours, theirs)]
    np.testing.assert_allclose(vectors[0], vectors[1], rtol=0, atol=1e-3)


def test_explaining_answers_what_classifying_does(both: Both) -> None:
    opened = classifier(both.exported)
    for image in SHOES:
        best = opened.classify(image, 1).predictions[0]
        explained = opened.explain(image)
        assert (explained.class_id, explained.label) == (best.class_id, best.label)
        assert explained.score == pytest.approx(best.score)


# In INT8, what the last layer takes is rounded once more after the feature map was averaged. Of these images, whose
# activations lie within the range that calibration has seen, logits move by 0.005; a CPU may round elsewhere.
@pytest.mark.parametrize(
    ("name", "tolerance", "rounding"),
    [("random", 1e-3, 1e-5), pytest.param("fashion", 1e-3, 1e-5, marks=pytest.mark.slow), ("int8", 0.02, 0.005)],
)
def test_a_maps_mean_is_its_logit_without_the_bias(
    name: str, tolerance: float, rounding: float, request: pytest.FixtureRequest
) -> None:
    source, path = FASHION, INT8
    if name == "random":
        source, path = request.getfixturevalue("checkpoint"), request.getfixturevalue("exported")
    elif name == "fashion":
        path = request.getfixturevalue("fashion_exported").path
    runtime = open_runtime(path)
    assert runtime.class_weights is not None
    bias = load(source).model.fc.bias.detach().numpy()  # type: ignore[union-attr, operator]
    missed = np.zeros((10, 10))  # by the map of one class from the logit of another, in the worst of the images
    for seed in range(5):
        logits, embedding, feature_map = runtime.features(np.asarray(noise(64, 64, seed)))
        assert feature_map is not None
        np.testing.assert_allclose(feature_map.mean(axis=(1, 2)), embedding, rtol=0, atol=rounding)
        means = np.array([activation_map(feature_map, weights).mean() for weights in runtime.class_weights])
        np.testing.assert_allclose(means + bias, logits, rtol=0, atol=tolerance)
        missed = np.maximum(missed, np.abs((means + bias)[:, np.newaxis] - logits))
    # So no class's weights can be taken for another's.
    assert missed[~np.eye(10, dtype=bool)].min() > 2 * tolerance


def test_int8_explains_with_the_weights_that_it_multiplies_with() -> None:
    runtime = open_runtime(INT8)
    original = load(FASHION).model.fc.weight.detach().numpy()  # type: ignore[union-attr, operator]
    weights = runtime.class_weights
    assert weights is not None
    assert 0 < np.abs(weights - original).max() < np.abs(original).max() / 100
    for row in weights:  # of a class, all are multiples of one step
        steps = row / np.abs(row[row != 0]).min()
        assert len(np.unique(row)) <= 256
        np.testing.assert_allclose(steps, np.rint(steps), atol=0.01 * np.abs(steps).max())


@pytest.mark.parametrize("image", [CAT.read_bytes(), encoded(Image.new("RGB", (60, 90)), "PNG")], ids=["cat", "black"])
def test_a_vector_can_have_length_one(both: Both, image: bytes) -> None:
    opened = classifier(both.exported)
    plain, normalised = opened.embed(image).vector, opened.embed(image, normalise=True).vector
    assert plain.dtype == normalised.dtype == np.float32
    assert plain.shape == (512,)
    assert np.linalg.norm(normalised) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(normalised * np.linalg.norm(plain), plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("arch", "side", "length"),
    [("mobilenet_v3_small", 64, 1024), ("squeezenet1_1", 64, None), ("timm/test_vit", 160, 64)],
)
def test_networks_that_end_otherwise_say_so(tmp_path: Path, arch: str, side: int, length: int | None) -> None:
    """In the reference runtime, which finds a network's last layers by the same code as the export."""
    path = tmp_path / "model.pth"
    save_checkpoint(build(arch, 10), path, metadata(arch=arch, input_size=side, resize_size=side))
    opened = classifier(path)
    assert opened.model.outputs.embedding == length
    with pytest.raises(OutputUnavailable, match=f"{arch} does not, so its answers cannot be explained"):
        opened.explain(CAT.read_bytes())
    if length is None:
        with pytest.raises(OutputUnavailable, match="no embeddings"):
            opened.embed(CAT.read_bytes())
    else:
        assert opened.embed(CAT.read_bytes()).vector.shape == (length,)


def test_an_exported_file_knows_how_its_network_ends(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    save_checkpoint(build("timm/test_vit", 10), path, metadata(arch="timm/test_vit", input_size=160, resize_size=160))
    written = export(path, tmp_path / "model.onnx")
    assert written.packing is not None
    assert written.packing.outputs is not None
    assert written.packing.outputs.embedding == 64
    assert written.packing.outputs.feature_map is None
    with pytest.raises(OutputUnavailable, match="does not, so its answers cannot be explained"):
        classifier(tmp_path / "model.onnx").explain(CAT.read_bytes())
    expected, found = (
        classifier(tmp_path / name).embed(CAT.read_bytes()).vector for name in ("model.pth", "model.onnx")
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("runtime", ["torchscript", "torch-dynamic-int8"])
def test_optimised_runtimes_give_scores_only(checkpoint: Path, runtime: str) -> None:
    opened = Classifier.open(checkpoint, ClassifierConfig(runtime=runtime))  # type: ignore[arg-type]
    for ask in (opened.explain, opened.embed):
        with pytest.raises(OutputUnavailable, match=f"The runtime {runtime} gives scores only"):
            ask(CAT.read_bytes())


def test_files_of_older_versions_say_that_they_can_be_exported_again(tmp_path: Path, exported: Path) -> None:
    older = as_older_version(exported, tmp_path / "older.onnx")
    opened = classifier(older)
    assert opened.classify(SHOES[0]).predictions == classifier(exported).classify(SHOES[0]).predictions
    for ask in (opened.explain, opened.embed):
        with pytest.raises(OutputUnavailable, match="exported by an older version"):
            ask(SHOES[0])
