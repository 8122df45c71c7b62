"""Runtimes give the same answers, each runs its kinds of file, and serving an exported model needs no PyTorch."""

import contextlib
import os
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Any, get_args

import httpx
import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image

from resnet_service.api.app import create_app
from resnet_service.errors import (
    ClassCountMismatch,
    InvalidMetadata,
    Overloaded,
    SuspiciousModel,
    UnsuitableRuntime,
)
from resnet_service.imaging.decode import DecodedImage, decode
from resnet_service.imaging.heatmap import draw
from resnet_service.inference.classifier import Classifier, ClassifierConfig
from resnet_service.inference.ranking import rank
from resnet_service.models.labels import LabelSet
from resnet_service.models.metadata import METADATA_KEY, Agreement, ModelMetadata, Outputs, Packing
from resnet_service.runtimes.base import Features
from resnet_service.runtimes.openvino import OpenVINORuntime
from resnet_service.runtimes.registry import open_runtime
from resnet_service.runtimes.torch import OPTIMISATIONS
from resnet_service.settings import Settings
from resnet_service.system.files import sha256_of
from resnet_service.types import Precision, RuntimeName
from tests.support.images import CAT, noise
from tests.support.models import Both, metadata
from tests.support.servers import REPOSITORY, cli, served, server_process

PIXELS = np.stack([np.asarray(noise(64, 64, seed)) for seed in range(8)])


@pytest.mark.parametrize(
    ("runtime", "tolerance"), [("torch", 0), ("torchscript", 1e-4), ("torch-dynamic-int8", 0.05), ("openvino", 1e-3)]
)
def test_all_runtimes_answer_alike(checkpoint: Path, exported: Path, runtime: RuntimeName, tolerance: float) -> None:
    expected = open_runtime(checkpoint, "torch").logits(PIXELS)
    opened = open_runtime(exported if runtime == "openvino" else checkpoint, runtime)
    assert opened.name == runtime
    np.testing.assert_allclose(opened.logits(PIXELS), expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(opened.logits(PIXELS[:1]), expected[:1], rtol=0, atol=max(tolerance, 1e-5))


def test_auto_is_what_fits_the_file(checkpoint: Path, exported: Path, small_network: Both) -> None:
    assert open_runtime(exported).name == "openvino"
    assert open_runtime(checkpoint).name == "openvino"
    assert open_runtime(small_network.checkpoint).name == "torch"


@pytest.mark.parametrize("runtime", ["torch", "torchscript", "torch-dynamic-int8"])
def test_an_exported_model_does_not_run_in_torch(exported: Path, runtime: RuntimeName) -> None:
    with pytest.raises(UnsuitableRuntime, match="or the checkpoint that"):
        open_runtime(exported, runtime)


def test_a_checkpoint_without_a_graph_does_not_run_in_openvino(small_network: Both) -> None:
    with pytest.raises(UnsuitableRuntime, match=f"resnet-service export {small_network.checkpoint}"):
        open_runtime(small_network.checkpoint, "openvino")


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_alone_and_busy_answer_alike(exported: Path, threads: int) -> None:
    runtime = OpenVINORuntime.open(exported, workers=2, threads=threads)
    np.testing.assert_allclose(runtime.logits(PIXELS), runtime.logits(PIXELS, prefer_latency=False), rtol=0, atol=1e-4)


@pytest.mark.parametrize("prefer_latency", [True, False])
def test_threads_get_their_own_answers(exported: Path, prefer_latency: bool) -> None:
    """More threads than infer requests, with either preference."""
    runtime = OpenVINORuntime.open(exported, workers=2)
    assert len(PIXELS) > 2 + runtime.prefetch
    expected = runtime.logits(PIXELS)
    wrong: list[int] = []

    def ask(index: int) -> None:
        for _ in range(50):
            found = runtime.logits(PIXELS[index : index + 1], prefer_latency=prefer_latency)[0]
            if not np.allclose(found, expected[index], rtol=0, atol=1e-4):
                wrong.append(index)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(PIXELS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not wrong


@pytest.mark.parametrize("prefer_latency", [True, False])
def test_no_thread_is_bound_to_a_cpu(exported: Path, prefer_latency: bool) -> None:
    """Another process on this machine would bind its threads to the same CPUs."""
    runtime = OpenVINORuntime.open(exported, workers=2)
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            runtime.logits(PIXELS, prefer_latency=prefer_latency)

    thread = threading.Thread(target=work)
    thread.start()
    seen = set()
    end = time.monotonic() + 1
    while time.monotonic() < end:
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(ProcessLookupError):  # it has ended
                seen.add(frozenset(os.sched_getaffinity(int(task.name))))
    done.set()
    thread.join(60)
    assert seen == {frozenset(os.sched_getaffinity(0))}


class Recording:
    """A runtime that records its calls, and lets a test block them."""

    name = "recording"
    precision: Precision = "fp32"
    sha256 = "0" * 64
    outputs = Outputs()
    logits_only = "It gives logits only."
    class_weights = None
    prefetch = 0

    def __init__(self) -> None:
        self.metadata = metadata()
        self.calls: list[bool] = []
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)

    def logits(self, crops: np.ndarray, *, prefer_latency: bool = True) -> np.ndarray:
        self.calls.append(prefer_latency)
        self.entered.release()
        assert self.gate.wait(20)
        return np.zeros((len(crops), 10), np.float32)

    def features(self, pixels: np.ndarray, *, prefer_latency: bool = True) -> Features:
        raise NotImplementedError


def test_an_image_is_alone_until_another_is_in_work() -> None:
    runtime = Recording()
    classifier = Classifier(runtime, LabelSet.numbered(10), config=ClassifierConfig(workers=2))
    threads = [threading.Thread(target=classifier.classify, args=(CAT.read_bytes(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
        assert runtime.entered.acquire(timeout=20)
    runtime.gate.set()
    for thread in threads:
        thread.join(20)
    classifier.classify(CAT.read_bytes())
    with pytest.raises(Exception, match="damaged"):
        classifier.classify(CAT.read_bytes()[:1000])
    classifier.classify(CAT.read_bytes())
    assert runtime.calls == [True, False, True, True]


def test_while_networks_are_computed_the_next_images_are_decoded_and_then_kept_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images: list[weakref.ref[Image.Image]] = []

    def noted(*args: Any, **options: Any) -> DecodedImage:
        decoded = decode(*args, **options)
        images.append(weakref.ref(decoded.image))
        return decoded

    monkeypatch.setattr("resnet_service.inference.classifier.decode", noted)
    runtime, cat = Recording(), CAT.read_bytes()
    classifier = Classifier(runtime, LabelSet.numbered(10), config=ClassifierConfig(workers=1))
    asks = [lambda: classifier.classify(cat), lambda: classifier.classify(cat), lambda: classifier.score([cat])]
    with ThreadPoolExecutor(len(asks)) as threads:
        asked = [threads.submit(ask) for ask in asks]
        try:
            for _ in asks:
                assert runtime.entered.acquire(timeout=20)
            assert len(images) == len(asks)
            assert not [kept for kept in images if kept() is not None]
        finally:
            runtime.gate.set()
        for answer in asked:
            answer.result(20)


@pytest.mark.parametrize("workers", [1, 2])
def test_no_more_images_are_decoded_at_once_than_there_are_workers(
    exported: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    now, most, lock = 0, 0, threading.Lock()

    def counted(*args: Any, **options: Any) -> DecodedImage:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.05)  # so that other threads enter meanwhile, if they can
        with lock:
            now -= 1
        return decode(*args, **options)

    monkeypatch.setattr("resnet_service.inference.classifier.decode", counted)
    classifier, cat = Classifier.open(exported, ClassifierConfig(workers=workers)), CAT.read_bytes()
    asks = [lambda: classifier.classify(cat), lambda: classifier.embed(cat), lambda: classifier.score([cat])] * 2
    with ThreadPoolExecutor(len(asks)) as threads:
        for asked in [threads.submit(ask) for ask in asks]:
            asked.result(20)
    assert most == workers


def test_what_is_drawn_on_counts_as_decoded_until_it_is_drawn(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawing, drawn = threading.Event(), threading.Event()

    def held_back(*args: Any) -> bytes:
        drawing.set()
        assert drawn.wait(20)
        return draw(*args)

    monkeypatch.setattr("resnet_service.inference.classifier.draw", held_back)
    classifier, cat = Classifier.open(exported, ClassifierConfig(workers=1)), CAT.read_bytes()
    with ThreadPoolExecutor(2) as threads:
        explained = threads.submit(classifier.explain, cat, None, "overlay")
        assert drawing.wait(20)
        classified = threads.submit(classifier.classify, cat)
        with pytest.raises(TimeoutError):
            classified.result(0.2)
        drawn.set()
        assert explained.result(20).png
        assert classified.result(20).predictions


@pytest.mark.parametrize("workers", [1, 2])
def test_the_server_has_threads_for_what_the_runtime_queues_and_no_more_slots(exported: Path, workers: int) -> None:
    app = create_app(Settings(checkpoint=exported, workers=workers, queue=2))
    with served(app) as client:
        service = app.state.service
        assert service.executor.threads == workers + service.classifier.model.prefetch > workers
        permits = [service.executor.admit() for _ in range(3 * workers)]
        with pytest.raises(Overloaded):
            service.executor.admit()
        for permit in permits:
            permit.release()
        assert client.post("/predict", content=CAT.read_bytes()).status_code == HTTPStatus.OK


def test_no_call_that_the_runtime_can_queue_waits_for_another(exported: Path) -> None:
    """Each call has an infer request: all wait at the barrier, in place of the computation."""
    runtime = OpenVINORuntime.open(exported, workers=2)
    together = threading.Barrier(2 + runtime.prefetch, timeout=20)

    def ask() -> None:
        with runtime._throughput.acquire():
            together.wait()

    with ThreadPoolExecutor(together.parties) as threads:
        for asked in [threads.submit(ask) for _ in range(together.parties)]:
            asked.result(30)


def onnx_file(
    path: Path, *, taken: tuple[int, list[int | str]], given: list[int | str], operator: str = "Cast"
) -> Path:
    """Write an exported file with valid metadata and a stub as network."""
    node = helper.make_node(operator, ["pixels"], ["logits"])
    if operator == "Cast":
        node.attribute.append(helper.make_attribute("to", TensorProto.FLOAT))
    graph = helper.make_graph(
        [node],
        "stub",
        [helper.make_tensor_value_info("pixels", *taken)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, given)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    packing = Packing(
        checkpoint_sha256="0" * 64,
        graph_sha256=sha256_of(graph.SerializeToString()),
        precision="fp32",
        agreement=Agreement(pictures=1, top1_agreement=100, max_logit_difference=0),
    )
    facts = ModelMetadata(arch="resnet18", num_classes=3, input_size=8, resize_size=8, packing=packing)
    helper.set_model_props(model, {METADATA_KEY: facts.model_dump_json()})
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("taken", "given", "operator", "error"),
    [
        ((TensorProto.FLOAT, ["n", 8, 8, 3]), ["n", 8, 8, 3], "Cast", InvalidMetadata),
        ((TensorProto.UINT8, ["n", 3, 8, 8]), ["n", 3, 8, 8], "Cast", InvalidMetadata),
        ((TensorProto.UINT8, ["n", 8, 8, 3]), ["n", 8, 8, 3], "Cast", ClassCountMismatch),
        ((TensorProto.UINT8, ["n", 8, 8, 3]), ["n", 3], "NoSuchOperator", SuspiciousModel),
    ],
    ids=["floats in", "channels first", "no logits out", "unknown operator"],
)
def test_a_network_that_is_not_what_its_metadata_say(
    tmp_path: Path,
    taken: tuple[int, list[int | str]],
    given: list[int | str],
    operator: str,
    error: type[Exception],
) -> None:
    with pytest.raises(error):
        OpenVINORuntime.open(onnx_file(tmp_path / "m.onnx", taken=taken, given=given, operator=operator))


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["torchscript", "torch-dynamic-int8"])
def test_the_service_runs_in_it_and_says_so(checkpoint: Path, runtime: str) -> None:
    with server_process("--checkpoint", checkpoint, "--runtime", runtime) as server:
        assert httpx.post(f"{server.url}/predict", content=CAT.read_bytes()).status_code == 200
        body = httpx.get(f"{server.url}/metadata").json()
        assert body["runtime"] == runtime
        assert body["precision"] == ("int8" if "int8" in runtime else "fp32")
        assert "Warning" not in server.log


def test_scores_over_http_are_those_of_the_checkpoint(checkpoint: Path, exported: Path) -> None:
    classifier = Classifier.open(checkpoint, ClassifierConfig(decoding="exact"))
    expected = classifier.classify(CAT.read_bytes())
    with server_process("--checkpoint", exported, "--decode", "exact") as server:
        body = httpx.post(f"{server.url}/predict", content=CAT.read_bytes()).json()
        about = httpx.get(f"{server.url}/metadata").json()
    assert [one["label"] for one in body["predictions"]] == [one.label for one in expected.predictions]
    assert [one["score"] for one in body["predictions"]] == pytest.approx(
        [one.score for one in expected.predictions], abs=1e-3
    )
    assert (about["runtime"], about["precision"]) == ("openvino", "fp32")
    assert about["metadata"]["packing"]["checkpoint_sha256"] == sha256_of(checkpoint.read_bytes())


FORBIDDEN = (
    "torch",
    "torchvision",
    "timm",
    "onnx",
    "nncf",
    "onnxruntime",
    "matplotlib",
    "scipy",
    "hypothesis",
    "pytest",
    "rich",
)


def test_serving_an_exported_model_imports_nothing_heavy(exported: Path) -> None:
    script = (
        "import sys; from pathlib import Path; import resnet_service.cli.app, resnet_service.server.server\n"
        "from resnet_service.inference.classifier import Classifier, ClassifierConfig\n"
        f"Classifier.open(Path({str(exported)!r}), ClassifierConfig(workers=2)).warm_up()\n"
        f"print([name for name in {FORBIDDEN!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_without_torch_a_checkpoint_is_refused_with_advice(tmp_path: Path, small_network: Both) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    done = cli("classify", "--checkpoint", small_network.checkpoint, CAT, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "torch is not installed" in done.stderr
    assert "Serve an exported model" in done.stderr


@pytest.mark.slow
def test_an_environment_without_torch_serves_an_exported_model(exported: Path, tmp_path: Path) -> None:
    """The wheel and its dependencies, nothing else."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True, timeout=60)
    python = tmp_path / "venv" / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, str(REPOSITORY)], check=True, timeout=300)
    installed = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True, timeout=60, check=True)
    names = {line.split()[0].lower() for line in installed.stdout.splitlines()[2:]}
    assert not names & {"torch", "torchvision", "timm", "onnxruntime", "nncf", "triton"}
    assert not [name for name in names if name.startswith(("nvidia", "cuda"))]
    done = subprocess.run(
        [python, "-m", "resnet_service", "classify", "--checkpoint", exported, "--json", CAT],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    expected = Classifier.open(exported).classify(CAT.read_bytes())
    assert expected.predictions[0].label in done.stdout
    size = sum(file.stat().st_size for file in (tmp_path / "venv").rglob("*") if file.is_file())
    assert size < 500e6


def test_logits_feed_the_ranking(exported: Path) -> None:
    runtime = open_runtime(exported)
    classifier = Classifier.open(exported)
    (best, *_) = rank(runtime.logits(PIXELS[:1])[0], classifier.model.labels, 1)
    assert best.class_id == int(runtime.logits(PIXELS[:1])[0].argmax())


def test_each_runtime_that_the_settings_offer_has_an_implementation() -> None:
    assert {"auto", OpenVINORuntime.name, *OPTIMISATIONS} == set(get_args(RuntimeName))
