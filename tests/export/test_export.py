"""Exporting: the exported model answers as its checkpoint does, or is not written."""

import io
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from resnet_service.errors import AccuracyLossExceeded, InvalidDataset, UnsuitableRuntime
from resnet_service.export import half_precision, parity, pytorch_graph
from resnet_service.export.calibration import Images
from resnet_service.export.export import default_target, export
from resnet_service.export.onnx_metadata import record_evaluation
from resnet_service.imaging.decode import decode
from resnet_service.imaging.preprocess import crop
from resnet_service.models.checkpoint.checkpoint import load_checkpoint, save_checkpoint
from resnet_service.models.exported import read_exported
from resnet_service.models.labels import read_label_set
from resnet_service.models.metadata import Agreement, EvaluationRecord
from resnet_service.runtimes.registry import open_runtime
from resnet_service.system.files import sha256_of
from resnet_service.types import Precision
from tests.support.images import EXAMPLES, encoded, imagenet_photographs, noise
from tests.support.models import Both, ExportedByCommand, metadata, random_checkpoint, random_model
from tests.support.servers import REPOSITORY, cli

SAMPLE = REPOSITORY / "tests" / "data" / "fashion-mnist"
FASHION = REPOSITORY / "checkpoints" / "resnet18-fashion-mnist.safetensors"


def crops(count: int, side: int = 64) -> np.ndarray:
    return np.stack([np.asarray(noise(side, side, seed)) for seed in range(count)])


@pytest.fixture
def fp32(exported: Path) -> Path:
    """Return the random checkpoint in FP32, beside ``int8``."""
    return exported


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the shipped model in INT8, calibrated with 100 images of the sample."""
    target = tmp_path_factory.mktemp("exported") / "fashion-int8.onnx"
    export(FASHION, target, precision="int8", images=SAMPLE)
    return target


@pytest.fixture(scope="module")
def small_int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small network of random weights in INT8, calibrated with 100 images of the sample."""
    folder = tmp_path_factory.mktemp("exported")
    _, labels = read_label_set(REPOSITORY / "labels" / "fashion-mnist.json")
    source = random_checkpoint(folder / "model.pth", arch="timm/test_resnet", labels=labels)
    export(source, folder / "small-int8.onnx", precision="int8", images=SAMPLE, max_loss=100)
    return folder / "small-int8.onnx"


def test_fp32_gives_the_checkpoints_logits(checkpoint: Path, fp32: Path) -> None:
    """On a CPU with BF16, OpenVINO would compute in BF16 unless told otherwise."""
    pixels = crops(8)
    expected, found = open_runtime(checkpoint, "torch").logits(pixels), open_runtime(fp32).logits(pixels)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
    assert (np.argsort(-found, axis=1) == np.argsort(-expected, axis=1)).all()


def test_fp32_ranks_photographs_as_real_weights_do(imagenet_checkpoint: Path, imagenet_exported: Path) -> None:
    reference, exported = open_runtime(imagenet_checkpoint, "torch"), open_runtime(imagenet_exported)
    paths = [*sorted(EXAMPLES.glob("*.jpg")), *(path for path, _ in imagenet_photographs())]
    pixels = np.stack([crop(decode(path.read_bytes()).image, reference.metadata) for path in paths])
    expected, found = reference.logits(pixels), exported.logits(pixels)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
    assert (np.argsort(-found)[:, :5] == np.argsort(-expected)[:, :5]).all()


LARGER = ["mobilenet_v3_small", "shufflenet_v2_x0_5", "timm/resnet26t"]


@pytest.mark.slow
@pytest.mark.parametrize("arch", LARGER)
def test_other_architectures_are_exported_too(tmp_path: Path, arch: str) -> None:
    """About thirty seconds each, most of it in the exporter."""
    path = random_checkpoint(tmp_path / "model.pth", arch=arch)
    written = export(path, tmp_path / "model.onnx")
    assert written.packing is not None
    assert written.packing.agreement.max_logit_difference < 1e-3


def test_a_small_network_is_exported_too(small_network: Both) -> None:
    packing = read_exported(small_network.exported).metadata.packing
    assert packing is not None
    assert packing.agreement.max_logit_difference < 1e-3


def test_the_file_records_its_export(checkpoint: Path, fp32: Path) -> None:
    exported = read_exported(fp32)
    source = load_checkpoint(checkpoint)
    packing = exported.metadata.packing
    assert packing is not None
    assert packing.checkpoint_sha256 == source.sha256 == sha256_of(checkpoint.read_bytes())
    assert packing.calibration is None
    assert packing.agreement.top1_agreement == 100
    assert {"torch", "onnx", "openvino"} <= exported.metadata.library_versions.keys()
    changed = {"packing", "library_versions"}
    assert exported.metadata.model_dump(exclude=changed) == source.metadata.model_dump(exclude=changed)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_onnx_runtime_runs_it_at_any_batch(precision: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(precision)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    pixels = crops(5)
    (theirs,) = session.run(["logits"], {"pixels": pixels})
    ours = open_runtime(path).logits(pixels)
    # Both quantize in the same way, but round at different points.
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-3 if precision == "fp32" else 0.5)


SLOW_INT8 = pytest.param("int8", marks=pytest.mark.slow)


@pytest.mark.parametrize("made", ["small_int8", SLOW_INT8])
def test_int8_is_measured(made: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(made)
    metadata = read_exported(path).metadata
    packing = metadata.packing
    assert packing is not None
    assert packing.precision == "int8"
    assert packing.calibration is not None
    assert packing.calibration.pictures == 100
    assert packing.agreement.pictures == 100
    assert packing.agreement.top1_loss is not None
    assert metadata.evaluations == ()  # the checkpoint's do not apply


@pytest.mark.slow
def test_int8_is_small_and_answers_alike(int8: Path) -> None:
    """15 s. The fast test_shipped_model.py checks the same of the shipped file."""
    packing = read_exported(int8).metadata.packing
    assert packing is not None
    assert int8.stat().st_size < 12_000_000
    assert packing.agreement.top1_agreement >= 97


@pytest.mark.parametrize(("made", "layers"), [("small_int8", 14), pytest.param("int8", 20, marks=pytest.mark.slow)])
def test_int8_is_computed_in_int8(made: str, layers: int, request: pytest.FixtureRequest) -> None:
    """The file stores the weights of all but tiny convolutions as bytes, and none as floats."""
    import onnx

    path: Path = request.getfixturevalue(made)
    weights = [one for one in onnx.load(path).graph.initializer if np.prod(one.dims) > 1000]
    assert len(weights) >= layers
    assert {one.data_type for one in weights} == {onnx.TensorProto.INT8}


@pytest.mark.slow
def test_bf16_halves_the_file(tmp_path: Path) -> None:
    written = export(FASHION, tmp_path / "model.onnx", precision="bf16", images=SAMPLE)
    assert (tmp_path / "model.onnx").stat().st_size < 23_000_000
    assert written.packing is not None
    assert written.packing.agreement.top1_agreement >= 98
    assert written.packing.calibration is None


def test_weights_beyond_the_range_of_fp16_stay_fp32(tmp_path: Path) -> None:
    model = random_model("timm/test_resnet")
    model.fc.weight.data[0, 0] = 1e6  # type: ignore[union-attr, operator]
    save_checkpoint(model, tmp_path / "model.pth", metadata(arch="timm/test_resnet"))
    exported, _ = pytorch_graph.export_graph(load_checkpoint(tmp_path / "model.pth"))
    half_precision.store_weights_fp16(exported)
    (kept,) = (one for one in exported.graph.initializer if one.name.endswith("fc.weight"))
    assert onnxruntime.InferenceSession(exported.SerializeToString()) is not None
    assert kept.data_type == 1


def test_with_true_classes_loss_is_counted_in_points() -> None:
    lossy = Agreement(pictures=100, top1_agreement=90, top1_loss=1.2, max_logit_difference=1)
    with pytest.raises(AccuracyLossExceeded, match=r"1\.20 points of top-1 accuracy"):
        parity.check_accuracy_loss(lossy, "int8", 1.0)
    parity.check_accuracy_loss(lossy, "int8", 1.2)


def test_without_true_classes_loss_is_the_share_of_changed_answers() -> None:
    lossy = Agreement(pictures=200, top1_agreement=98.5, max_logit_difference=1)
    with pytest.raises(AccuracyLossExceeded, match=r"1\.50 % of first answers change"):
        parity.check_accuracy_loss(lossy, "int8", 1.0)
    parity.check_accuracy_loss(lossy, "int8", 1.5)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [(0, 0.002), (100, 100.02), (0, np.nan), (np.nan, 0), (np.inf, 0), (np.inf, np.inf), (0, -np.inf)],
)
def test_fp32_may_only_round(expected: float, actual: float) -> None:
    with pytest.raises(AccuracyLossExceeded, match=r"^The logits differ by .*, more than rounding explains .*Wait\.$"):
        parity.check_difference(np.array([1, expected]), np.array([1, actual]), "The logits differ", "Wait.")
    assert parity.check_difference(np.array([0, 1]), np.array([0.0005, 1]), "", "") == pytest.approx(0.0005)
    assert parity.check_difference(np.array([0, 100]), np.array([0.005, 100]), "", "") == pytest.approx(0.005)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_logits_that_are_no_numbers_are_an_error(fp32: Path, precision: Precision) -> None:
    exported = read_exported(fp32)._replace(precision=precision)
    images = Images([], list(crops(1)), None, None)
    with pytest.raises(AccuracyLossExceeded, match=f"^{'This architecture' if precision == 'fp32' else 'In INT8'}"):
        parity.compare(lambda _: np.full(10, np.nan, np.float32), exported, images)


def test_the_summary_says_what_the_answers_were_compared_with() -> None:
    agreement = Agreement(pictures=9, top1_agreement=100, max_logit_difference=0.0002)
    assert parity.summary(agreement, "fp32").startswith("Compared with the reference implementation on 9 images: ")
    assert parity.summary(agreement, "int8").startswith("Compared with the model in FP32 on 9 images: ")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_bf16_and_int8_need_images(checkpoint: Path, tmp_path: Path, precision: str) -> None:
    done = cli("export", checkpoint, "--precision", precision, "--output", tmp_path / "m.onnx")
    assert done.returncode == 1
    assert "--calibration" in done.stderr
    assert not (tmp_path / "m.onnx").exists()


def test_too_few_images_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    for number in range(19):
        (tmp_path / f"{number}.png").write_bytes(encoded(noise(64, 64, number), "PNG"))
    with pytest.raises(InvalidDataset, match="19 readable images; at least 20"):
        export(checkpoint, tmp_path / "m.onnx", precision="int8", images=tmp_path)


def test_a_model_that_loses_too_much_is_not_written(tmp_path: Path) -> None:
    """A small network, and images without classes, of which one is unreadable and reported."""
    checkpoint = random_checkpoint(tmp_path / "model.pth", arch="timm/test_resnet")
    (tmp_path / "images").mkdir()
    for number in range(24):
        (tmp_path / "images" / f"{number}.png").write_bytes(encoded(noise(64, 64, number), "PNG"))
    (tmp_path / "images" / "notes.txt").write_text("hello")
    messages: list[str] = []
    with pytest.raises(AccuracyLossExceeded, match="first answers change"):
        export(
            checkpoint,
            tmp_path / "m.onnx",
            precision="int8",
            images=tmp_path / "images",
            max_loss=-1,
            on_message=messages.append,
        )
    assert not (tmp_path / "m.onnx").exists()
    assert any("Skipped notes.txt: These bytes are not an image" in message for message in messages)
    assert any("12 images" in message for message in messages)


def test_calibration_and_comparison_share_no_image() -> None:
    from resnet_service.export.calibration import choose_images
    from resnet_service.models.labels import labels_for

    facts = load_checkpoint(FASHION).metadata
    chosen = choose_images(SAMPLE, "int8", facts, labels_for(facts, FASHION), lambda _: None)
    digests = [{image.tobytes() for image in part} for part in (chosen.calibration, chosen.held_out)]
    assert len(digests[0] | digests[1]) == 200
    assert not digests[0] & digests[1]
    assert chosen.classes is not None
    assert len(set(chosen.classes)) == 10


def test_fp32_decodes_no_more_images_than_a_folder_must_have(monkeypatch: pytest.MonkeyPatch) -> None:
    from resnet_service.export import calibration
    from resnet_service.models.labels import labels_for

    decoded: list[bytes] = []

    def counted(data: bytes) -> object:
        decoded.append(data)
        return decode(data)

    monkeypatch.setattr(calibration, "decode", counted)
    facts = load_checkpoint(FASHION).metadata
    chosen = calibration.choose_images(SAMPLE, "fp32", facts, labels_for(facts, FASHION), lambda _: None)
    assert (len(decoded), len(chosen.calibration), len(chosen.held_out)) == (calibration.MIN_IMAGES, 0, 16)


def test_an_architecture_that_cannot_be_exported_is_refused(small_network: Both) -> None:
    class BranchesOnData(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x  # the branch depends on the data

    loaded = load_checkpoint(small_network.checkpoint)
    object.__setattr__(loaded, "model", BranchesOnData())
    with pytest.raises(UnsuitableRuntime, match="cannot be exported"):
        pytorch_graph.export_graph(loaded)


@pytest.mark.parametrize("made", ["fp32", "small_int8", SLOW_INT8])
def test_nothing_of_this_machine_is_in_the_file(made: str, request: pytest.FixtureRequest) -> None:
    """The exporter notes the source file of each operation."""
    path: Path = request.getfixturevalue(made)
    for trace in (b"site-packages", b"\nFile ", b'File "', str(REPOSITORY).encode()):
        assert trace not in path.read_bytes()


def test_default_names() -> None:
    assert default_target(Path("a/b.pth"), "fp32") == Path("a/b.onnx")
    assert default_target(Path("a/b.pth"), "int8") == Path("a/b-int8.onnx")


def test_an_evaluation_is_recorded_without_touching_the_graph(tmp_path: Path, fp32: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(fp32.read_bytes())
    record = EvaluationRecord(dataset="d", sha256="0" * 64, pictures=9, top1=50, top5=90, calibration_error=0.1)
    record_evaluation(path, record)
    record_evaluation(path, record.model_copy(update={"top1": 60}))
    after, before = read_exported(path), read_exported(fp32)
    assert [kept.top1 for kept in after.metadata.evaluations] == [60]
    assert after.metadata.packing == before.metadata.packing
    np.testing.assert_array_equal(open_runtime(path).logits(crops(1)), open_runtime(fp32).logits(crops(1)))


@pytest.mark.slow
def test_the_commands_export_inspect_and_evaluate(tmp_path: Path, fashion_exported: ExportedByCommand) -> None:
    path, done = fashion_exported
    assert (
        "Compared with the reference implementation on 4 images: the first answer is the same for 100.00 %"
        in done.stderr
    )
    assert f"Wrote {path}: FP32, {path.stat().st_size / 1e6:.1f} MB" in done.stderr
    target = tmp_path / "fashion.onnx"
    shutil.copy(path, target)
    inspected = cli("inspect", target)
    assert "checkpoint_sha256" in inspected.stdout
    evaluated = cli("evaluate", target, SAMPLE, "--record")
    assert evaluated.returncode == 0, evaluated.stderr
    (record,) = read_exported(target).metadata.evaluations
    assert (record.dataset, record.pictures) == ("fashion-mnist", 200)  # replaces the record over 10,000 images


def test_metadata_survive_onnx_tools(fp32: Path) -> None:
    import onnx

    buffer = io.BytesIO(fp32.read_bytes())
    model = onnx.load(buffer)
    onnx.checker.check_model(model)
    assert [entry.key for entry in model.metadata_props] == ["resnet_service"]
