"""The Open Inference Protocol over a real socket: with the clients people use, and with what none sends."""

import asyncio
import base64
import dataclasses
import json
import re
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from kserve import InferenceRESTClient, InferRequest, RESTConfig
from kserve import InferInput as KServeInput
from kserve.protocol.infer_type import RequestedOutput
from numpy.typing import NDArray
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from resnet_service.api.app import create_app
from resnet_service.api.open_inference.tensors import HEADER, MAX_JSON_VALUES
from resnet_service.errors import InvalidModelOutput, InvalidTensor, TooManyPixels
from resnet_service.imaging.decode import decode
from resnet_service.imaging.preprocess import crop, denormalise, normalise
from resnet_service.inference.classifier import Classifier, ClassifierConfig
from resnet_service.inference.fake import FakeClassifier
from resnet_service.inference.ranking import softmax
from resnet_service.inference.results import Scores
from resnet_service.models.metadata import ModelMetadata
from resnet_service.settings import Settings
from tests.support.images import CAT, encoded, noise
from tests.support.servers import REPOSITORY, served

MODEL = "resnet18-fashion-mnist-int8"
IMAGE = encoded(noise(40, 30), "JPEG")
CRASHED = "its log says why"


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.open(REPOSITORY / "checkpoints" / f"{MODEL}.onnx")


@pytest.fixture(scope="module")
def client(classifier: Classifier) -> Iterator[httpx.Client]:
    with served(create_app(Settings(max_batch=4, max_body_bytes=4_000_000), classifier)) as client:
        yield client


@pytest.fixture(scope="module")
def triton(client: httpx.Client) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(str(client.base_url).removeprefix("http://").rstrip("/")) as triton:
        yield triton


def crops(classifier: Classifier, *images: bytes) -> NDArray[np.uint8]:
    # As the classifier under test prepares them: fast.
    metadata = classifier.model.metadata
    min_side = 2 * metadata.resize_size
    return np.stack([crop(decode(data, min_side=min_side).image, metadata, exact=False) for data in images])


def filled(name: str, datatype: str, values: NDArray[Any], *, binary: bool = True) -> InferInput:
    tensor = InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values, binary_data=binary)
    return tensor


def images(*data: bytes | str) -> InferInput:
    return filled("image", "BYTES", np.array(data, dtype=object))


# Triton's client


def test_triton_asks_what_there_is(triton: InferenceServerClient, classifier: Classifier) -> None:
    version = classifier.model.version
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready(MODEL)
    assert triton.is_model_ready(MODEL, version)
    assert not triton.is_model_ready(MODEL, "1")
    assert not triton.is_model_ready("another")
    assert triton.get_server_metadata()["extensions"] == ["binary_tensor_data", "classification"]
    for described in (triton.get_model_metadata(MODEL), triton.get_model_metadata(MODEL, version)):
        assert described["versions"] == [version]
        side = classifier.model.metadata.input_size
        assert [(one["name"], one["datatype"], one["shape"]) for one in described["inputs"]] == [
            ("image", "BYTES", [-1]),
            ("pixels", "UINT8", [-1, side, side, 3]),
            ("normalized", "FP32", [-1, 3, side, side]),
        ]
        assert [(one["name"], one["shape"]) for one in described["outputs"]] == [
            ("probabilities", [-1, 10]),
            ("logits", [-1, 10]),
        ]


@pytest.mark.parametrize("version", [False, True])
def test_triton_sends_images(triton: InferenceServerClient, classifier: Classifier, version: bool) -> None:
    data = [CAT.read_bytes(), IMAGE]
    named = {"model_version": classifier.model.version} if version else {}
    result = triton.infer(MODEL, [images(*data)], request_id="42", **named)
    assert result.get_response()["id"] == "42"
    assert result.get_response()["model_version"] == classifier.model.version
    for row, image in zip(result.as_numpy("probabilities"), data, strict=True):
        expected = classifier.classify(image, 10).predictions
        assert int(row.argmax()) == expected[0].class_id
        assert np.allclose(np.sort(row)[::-1], [ranked.score for ranked in expected], atol=1e-6)
    assert np.allclose(softmax(result.as_numpy("logits")), result.as_numpy("probabilities"), atol=1e-6)


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("kind", ["pixels", "normalized"])
def test_triton_sends_crops(
    triton: InferenceServerClient, classifier: Classifier, kind: str, binary_in: bool, binary_out: bool
) -> None:
    data = [CAT.read_bytes(), IMAGE]
    prepared = crops(classifier, *data)
    if kind == "pixels":
        tensor = filled(kind, "UINT8", prepared, binary=binary_in)
    else:
        normal = np.ascontiguousarray(normalise(prepared, classifier.model.metadata).transpose(0, 3, 1, 2))
        tensor = filled(kind, "FP32", normal, binary=binary_in)
    outputs = [InferRequestedOutput("logits", binary_data=binary_out)]
    result = triton.infer(MODEL, [tensor], outputs=outputs)
    assert [output["name"] for output in result.get_response()["outputs"]] == ["logits"]
    assert np.array_equal(result.as_numpy("logits"), classifier.score(data).logits)


@pytest.mark.parametrize("binary", [True, False])
def test_triton_asks_for_classes_by_name(triton: InferenceServerClient, classifier: Classifier, binary: bool) -> None:
    outputs = [
        InferRequestedOutput("probabilities", binary_data=binary, class_count=3),
        InferRequestedOutput("logits", binary_data=binary, class_count=99),
    ]
    result = triton.infer(MODEL, [images(IMAGE)], outputs=outputs)
    best, every = result.as_numpy("probabilities"), result.as_numpy("logits")
    assert best.shape == (1, 3)
    assert every.shape == (1, 10)  # as many as there are
    said = [text.decode() if isinstance(text, bytes) else text for text in best[0]]
    expected = classifier.classify(IMAGE, 3).predictions
    assert said == [f"{ranked.score:f}:{ranked.class_id}:{ranked.label}" for ranked in expected]


def test_triton_may_send_a_column(triton: InferenceServerClient) -> None:
    column = filled("image", "BYTES", np.array([[IMAGE], [IMAGE]], dtype=object))
    assert triton.infer(MODEL, [column]).as_numpy("logits").shape == (2, 10)


def test_triton_sends_base64_in_json(triton: InferenceServerClient) -> None:
    texts = np.array([base64.b64encode(IMAGE)], dtype=object)
    in_json = triton.infer(MODEL, [filled("image", "BYTES", texts, binary=False)])
    assert np.array_equal(in_json.as_numpy("logits"), triton.infer(MODEL, [images(IMAGE)]).as_numpy("logits"))


@pytest.mark.parametrize(
    ("model", "version", "tensor", "status", "said"),
    [
        ("another", "", images(IMAGE), "404", "This model is not served"),
        (MODEL, "1", images(IMAGE), "404", "version of resnet18-fashion-mnist-int8 is not served"),
        (MODEL, "", images(b"text"), "415", "not an image"),
        (MODEL, "", images(IMAGE, IMAGE[:300]), "422", "Image 2 of 2"),
        (MODEL, "", images(*[IMAGE] * 5), "413", "the limit of 4"),
        (MODEL, "", filled("input", "BYTES", np.array([IMAGE], dtype=object)), "400", "no such input"),
        (MODEL, "", filled("image", "UINT8", np.zeros(4, np.uint8)), "400", "must be BYTES"),
        (MODEL, "", filled("pixels", "UINT8", np.zeros((1, 8, 8, 3), np.uint8)), "400", "must be [-1,"),
    ],
)
def test_triton_is_told_what_is_wrong(
    triton: InferenceServerClient, model: str, version: str, tensor: InferInput, status: str, said: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        triton.infer(model, [tensor], model_version=version)
    assert caught.value.status() == status
    assert said in caught.value.message()


def test_triton_compresses_in_vain(triton: InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="Content-Encoding gzip is not accepted"):
        triton.infer(MODEL, [images(IMAGE)], request_compression_algorithm="gzip")


# KServe's client


def kserve_input(binary: bool) -> KServeInput:
    tensor = KServeInput("image", [1], "BYTES")
    text = IMAGE if binary else base64.b64encode(IMAGE)
    tensor.set_data_from_numpy(np.array([text], dtype=object), binary_data=binary)
    return tensor


@pytest.mark.parametrize("binary", [True, False])
def test_kserve_asks_and_infers(client: httpx.Client, classifier: Classifier, binary: bool) -> None:
    url = str(client.base_url)

    async def ask() -> None:
        async with InferenceRESTClient(RESTConfig(protocol="v2")) as kserve:
            assert await kserve.is_server_live(url)
            assert await kserve.is_server_ready(url)
            assert await kserve.is_model_ready(url, MODEL)
            assert not await kserve.is_model_ready(url, "another")
            outputs = [
                RequestedOutput("logits", {"binary_data": binary}),
                RequestedOutput("probabilities", {"binary_data": binary, "classification": 1}),
            ]
            request = InferRequest(MODEL, [kserve_input(binary)], request_id="a-1", request_outputs=outputs)
            answer = await kserve.infer(url, request, model_name=MODEL)
            assert answer.id == "a-1"
            assert np.array_equal(answer.outputs[0].as_numpy(), classifier.score([IMAGE]).logits)
            best = classifier.classify(IMAGE, 1).predictions[0]
            assert answer.outputs[1].data == [f"{best.score:f}:{best.class_id}:{best.label}"]
            with pytest.raises(httpx.HTTPStatusError, match="This model is not served"):
                await kserve.infer(url, request, model_name="another")

    asyncio.run(ask())


def test_not_ready_is_not_ready_for_them_either() -> None:
    fake = FakeClassifier()
    with served(create_app(Settings(), fake)) as client:
        fake.failure = fake.warm_up_failure = InvalidModelOutput("NaN")
        assert client.post("/v2/models/fake/infer", json=request(IMAGE)).json() == {
            "error": "The service failed to answer; its log says why."
        }
        for path in ("/v2/health/ready", "/v2/models/fake/ready", "/health/ready"):
            assert client.get(path).status_code == 503
        assert "not ready" in client.get("/v2/health/ready").json()["error"]
        assert client.get("/v2/health/live").json() == {"live": True}


# What no client sends


def request(*data: bytes, **changes: Any) -> dict[str, Any]:
    texts = [base64.b64encode(one).decode() for one in data]
    tensor = {"name": "image", "shape": [len(data)], "datatype": "BYTES", "data": texts}
    return {"inputs": [{**tensor, **changes}]}


def pixels(data: Any, **changes: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "pixels", "shape": [1, 2, 2, 3], "datatype": "UINT8", "data": data, **changes}]}


def floats(data: Any) -> dict[str, Any]:
    return pixels(data, name="normalized", datatype="FP32", shape=[1, 3, 2, 2])


ONE = {"name": "image", "shape": [1], "datatype": "BYTES"}
GOOD = request(IMAGE)
HOSTILE: dict[str, tuple[Any, int, str]] = {
    "not JSON": (b"{", 400, "not an inference request"),
    "empty": (b"", 400, "not an inference request"),
    "a list": ([], 400, "not an inference request"),
    "deep": (b'{"inputs":' + b"[" * 100_000, 400, "recursion limit"),
    "deep in data": (
        b'{"inputs":[{"name":"pixels","shape":[1,2,2,3],"datatype":"UINT8","data":' + b"[" * 500 + b"]" * 500 + b"}]}",
        400,
        "recursion limit",
    ),
    "no inputs": ({"inputs": []}, 400, "inputs"),
    "two inputs": ({"inputs": GOOD["inputs"] * 2}, 400, "send one"),
    "many inputs": ({"inputs": GOOD["inputs"] * 1000}, 400, "inputs"),
    "input of no name": ({"inputs": [{"shape": [1], "datatype": "BYTES", "data": []}]}, 400, "name"),
    "name is a number": (request(IMAGE, name=1), 400, "name"),
    "no dimension": (request(IMAGE, shape=[]), 400, "shape"),
    "many dimensions": (request(IMAGE, shape=[1] * 100_000), 400, "shape"),
    "negative": (request(IMAGE, shape=[-1]), 400, "at least 1"),
    "zero": (request(IMAGE, shape=[0]), 400, "at least 1"),
    "true": (request(IMAGE, shape=[True]), 400, "shape"),
    "half": (request(IMAGE, shape=[1.5]), 400, "shape"),
    "beyond 64 bits": (request(IMAGE, shape=[2**70]), 413, "limit of 4"),
    "overflowing": (request(IMAGE, shape=[2**32, 2**32]), 400, "shape"),
    "more than it says": (request(IMAGE, IMAGE, shape=[1]), 400, "does not match its shape"),
    "fewer than it says": (request(IMAGE, shape=[2]), 400, "does not match its shape"),
    "no data": ({"inputs": [ONE]}, 400, "needs either data"),
    "data is text": (request(IMAGE, data="x"), 400, "needs either data"),
    "not base64": (request(IMAGE, data=["!"]), 400, "base64"),
    "not ASCII": (request(IMAGE, data=["é"]), 400, "base64"),
    "number for text": (request(IMAGE, data=[1]), 400, "data"),
    "empty image": (request(b""), 400, "0 bytes"),
    "ragged": (pixels([[[[1, 2, 3], [1, 2]], [[1, 2, 3], [1, 2, 3]]]]), 400, "do not match its shape"),
    "too few": (pixels([1] * 11), 400, "does not match its shape"),
    "no values": (pixels([]), 400, "does not match its shape"),
    "rows of nothing": (pixels([[]] * 1000), 400, "does not match its shape"),
    "a row of nothing": (pixels([[]]), 400, "do not match its shape"),
    "a row of two images": (request(IMAGE, data=[["AA==", "AA=="]]), 400, "do not match its shape"),
    "another nesting": (pixels([[1] * 12]), 400, "data"),
    "permuted": (pixels([[[[1, 2]] * 2] * 3]), 400, "do not match its shape"),
    "256": (pixels([256] * 12), 400, "less than or equal to 255"),
    "below zero": (pixels([-1] * 12), 400, "greater than or equal to 0"),
    "huge": (pixels([10**400] * 12), 400, "data"),
    "float for a byte": (pixels([1.5] * 12), 400, "data"),
    "text for a byte": (pixels(["1"] * 12), 400, "data"),
    "true for a byte": (pixels([True] * 12), 400, "data"),
    "null": (floats([None] * 12), 400, "data"),
    "not normalised": (floats([128.0] * 12), 400, "outside the range of normalised pixels"),
    "beyond FP32": (floats([1e300] * 12), 400, "outside the range of normalised pixels"),
    "an integer beyond FP64": (floats([10**400] * 12), 400, ""),
    "NaN": (json.dumps(floats([float("nan")] * 12)).encode(), 400, "outside the range of normalised pixels"),
    "infinite": (json.dumps(floats([float("-inf")] * 12)).encode(), 400, "outside the range of normalised pixels"),
    "too many values": (
        b'{"inputs":[' + b"[]," * (MAX_JSON_VALUES // 2 + 1) + b"[]]}",
        400,
        f"more than {MAX_JSON_VALUES:,} values",
    ),
    "shared memory": (request(IMAGE, parameters={"shared_memory_region": "r"}), 400, "Shared memory"),
    "unknown output": ({**GOOD, "outputs": [{"name": "softmax"}]}, 400, "no such output"),
    "many outputs": ({**GOOD, "outputs": [{"name": "logits"}] * 1000}, 400, "outputs"),
    "classification of -1": (
        {**GOOD, "outputs": [{"name": "logits", "parameters": {"classification": -1}}]},
        400,
        "classification",
    ),
    "classification of true": (
        {**GOOD, "outputs": [{"name": "logits", "parameters": {"classification": True}}]},
        400,
        "classification",
    ),
    "binary_data of text": (
        {**GOOD, "outputs": [{"name": "logits", "parameters": {"binary_data": "yes"}}]},
        400,
        "binary_data",
    ),
    "binary without a header": (request(IMAGE, data=None, parameters={"binary_data_size": 10}), 400, "0 bytes"),
    "a long id": ({**GOOD, "id": "x" * 10_000}, 400, "id"),
}


@pytest.fixture(scope="module")
def small() -> Iterator[httpx.Client]:
    """Serve a model for crops of 2x2, which fit in a line."""
    fake = FakeClassifier()
    metadata = fake.model.metadata.model_copy(update={"input_size": 2})
    fake.model = dataclasses.replace(fake.model, metadata=metadata)
    with served(create_app(Settings(max_batch=4, max_body_bytes=8_000_000), fake)) as client:
        yield client


def assert_error(response: httpx.Response, status: int, said: str) -> None:
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json")
    assert response.json().keys() == {"error"}
    assert said in response.json()["error"]
    assert len(response.text) < 500


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_requests_are_refused_in_a_line(small: httpx.Client, name: str) -> None:
    body, status, said = HOSTILE[name]
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    assert_error(small.post("/v2/models/fake/infer", content=body), status, said)


def test_what_is_not_hostile_passes(small: httpx.Client) -> None:
    for body in (pixels([1] * 12), pixels([[[[1, 2, 3]] * 2] * 2]), floats([0] * 12), floats([[[[0.5, 1]] * 2] * 3])):
        answer = small.post("/v2/models/fake/infer", json=body)
        assert answer.status_code == 200, answer.text


def element(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


@pytest.mark.parametrize(
    ("binary", "shape", "size", "said"),
    [
        (b"", [1], 0, "elements in the binary data is not 1"),
        (b"\1\0", [1], 2, "end within the 4-byte length"),
        (b"\xff\xff\xff\xff", [1], 4, "The length of an element is"),
        (element(IMAGE)[:-1], [1], None, "The length of an element is"),
        (element(IMAGE) + b"x", [1], None, "elements in the binary data is not 1"),
        (element(IMAGE) * 2, [1], None, "elements in the binary data is not 1"),
        (element(IMAGE), [2], None, "elements in the binary data is not 2"),
        (element(IMAGE), [1], 5, "binary_data_size"),
        (element(IMAGE), [1], -1, "binary_data_size"),
        (element(IMAGE), [1], 2**70, "binary_data_size"),
        (element(IMAGE), [1], True, "binary_data_size"),
        (element(IMAGE), [1], "10", "binary_data_size"),
    ],
)
def test_hostile_binary_data(small: httpx.Client, binary: bytes, shape: list[int], size: Any, said: str) -> None:
    size = len(binary) if size is None else size
    head = json.dumps({"inputs": [{**ONE, "shape": shape, "parameters": {"binary_data_size": size}}]}).encode()
    headers = {HEADER: str(len(head))}
    assert_error(small.post("/v2/models/fake/infer", content=head + binary, headers=headers), 400, said)


@pytest.mark.parametrize("size", [0, 1, 11, 13, 24])
@pytest.mark.parametrize(("name", "datatype", "itemsize"), [("pixels", "UINT8", 1), ("normalized", "FP32", 4)])
def test_binary_data_of_another_size_than_the_shapes(
    small: httpx.Client, name: str, datatype: str, itemsize: int, size: int
) -> None:
    shape = [1, 2, 2, 3] if name == "pixels" else [1, 3, 2, 2]
    for length in {size * itemsize, size * itemsize + itemsize - 1} - {12 * itemsize}:
        tensor = {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": length}}
        head = json.dumps({"inputs": [tensor]}).encode()
        headers = {HEADER: str(len(head))}
        answer = small.post("/v2/models/fake/infer", content=head + bytes(length), headers=headers)
        assert_error(answer, 400, f"have {length} bytes")


@pytest.mark.parametrize(
    ("length", "said"),
    [("-1", HEADER), ("x", HEADER), ("1e3", HEADER), ("²", HEADER), ("9" * 5000, HEADER), ("99999", "but the body has"),
     ("0", "not an inference request"), ("5", "not an inference request")],
)  # fmt: skip
def test_hostile_header_lengths(small: httpx.Client, length: str, said: str) -> None:
    headers = {HEADER.encode(): length.encode("latin-1")}
    assert_error(small.post("/v2/models/fake/infer", json=GOOD, headers=headers), 400, said)


def test_data_twice_or_bytes_that_were_not_announced(small: httpx.Client) -> None:
    head = json.dumps(request(IMAGE, parameters={"binary_data_size": 3})).encode()
    twice = small.post("/v2/models/fake/infer", content=head + b"abc", headers={HEADER: str(len(head))})
    assert_error(twice, 400, "both data and binary_data_size")
    head = json.dumps(GOOD).encode()
    extra = small.post("/v2/models/fake/infer", content=head + b"abc", headers={HEADER: str(len(head))})
    assert_error(extra, 400, "no binary_data_size")


def test_errors_before_and_beside_the_routes_have_that_shape_too(small: httpx.Client) -> None:
    assert_error(small.post("/v2/models/fake/infer", content=bytes(8_000_001)), 413, "the limit is")
    assert_error(small.get("/v2/nothing"), 404, "Not Found"[:3])
    assert_error(small.get("/v2/models/fake/infer"), 405, "")
    assert_error(small.post("/v2/models/../infer", json=GOOD), 404, "")
    assert_error(small.post("/v2/models/%2e%2e/infer", json=GOOD), 404, "")
    # and what only begins alike does not
    assert small.get("/v2x").json()["code"] == "not_found"


def test_they_share_the_admission() -> None:
    gate = threading.Event()
    app = create_app(Settings(workers=1, queue=0), FakeClassifier(gate=gate))
    with ThreadPoolExecutor(1) as clients, served(app) as client:
        try:
            first = clients.submit(client.post, "/v2/models/fake/infer", json=GOOD)
            while app.state.service.executor.running < 1:
                assert not first.done()
            for path in ("/v2/models/fake/infer", "/"):
                refused = client.post(path, json=GOOD)
                assert_error(refused, 429, "queue is full")
                assert int(refused.headers["retry-after"]) >= 1
            assert client.post("/predict", content=IMAGE).status_code == 429
        finally:
            gate.set()
        assert first.result(10).status_code == 200


class _Remembers(FakeClassifier):
    """Which thread asked it: that which has parsed the request."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[str] = set()

    def score(self, images: Sequence[bytes]) -> Scores:
        self.threads.add(threading.current_thread().name)
        return super().score(images)


def test_parsing_does_not_hold_up_the_loop() -> None:
    fake = _Remembers()
    with served(create_app(Settings(), fake)) as client:
        for path, body in (("/v2/models/fake/infer", GOOD), ("/", {"inputs": GOOD["inputs"][0]["data"][0]})):
            assert client.post(path, json=body).status_code == 200
    assert fake.threads
    assert all(name.startswith("inference") for name in fake.threads)


# Numbers


METADATA = ModelMetadata(arch="resnet18", num_classes=3, input_size=16, resize_size=16)


def test_normalisation_is_undone_exactly() -> None:
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    assert np.array_equal(denormalise(normalise(every, METADATA), METADATA), every)


def test_what_lies_between_pixels_is_rounded() -> None:
    std, mean = np.asarray(METADATA.std, np.float32), np.asarray(METADATA.mean, np.float32)
    between = np.full((1, 16, 16, 3), 100.4, np.float32)
    assert (denormalise(((between / 255 - mean) / std).astype(np.float32), METADATA) == 100).all()
    for outside in (-0.6, 255.6):
        with pytest.raises(InvalidTensor, match="outside the range of normalised pixels"):
            denormalise(((np.full_like(between, outside) / 255 - mean) / std).astype(np.float32), METADATA)


def test_images_together_may_have_the_pixels_of_one() -> None:
    path = REPOSITORY / "checkpoints" / f"{MODEL}.onnx"
    classifier = Classifier.open(path, ClassifierConfig(max_pixels=40 * 30 * 2))
    assert classifier.score([IMAGE] * 2).logits.shape == (2, 10)
    with pytest.raises(TooManyPixels, match="Image 3 of 3: the images of a request may have 2,400 pixels together"):
        classifier.score([IMAGE] * 3)


def test_a_networks_nan_is_found_in_every_row(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = np.zeros((2, 10), np.float32)
    broken[1, 3] = np.nan
    runtime = classifier._runtime
    monkeypatch.setattr(runtime, "logits", lambda crops, *, prefer_latency=True: broken)
    with pytest.raises(InvalidModelOutput):
        classifier.score_crops(np.zeros((2, 28, 28, 3), np.uint8))


def test_openapi_describes_them_without_dangling_references(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    body = document["paths"]["/v2/models/{model}/infer"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/InferenceRequest"}
    tensor = document["components"]["schemas"]["InputTensor"]
    assert tensor["properties"]["shape"]["type"] == "array"
    text = json.dumps(document)
    assert "$defs" not in text

    def named(reference: str) -> dict[str, Any]:
        found = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        return dict(found)

    references = set(re.findall(r'"\$ref": "([^"]+)"', text))
    assert references
    assert all(map(named, references))
    (model,) = document["paths"]["/v2/models/{model}"]["get"]["parameters"]
    assert named(model["$ref"])["name"] == "model"


def test_the_clients_here_are_other_peoples() -> None:
    """Their modules come from their own packages, not from something of ours of the same name."""
    for name in ("tritonclient", "kserve"):
        path = Path(sys.modules[name].__file__ or "")
        assert REPOSITORY not in path.parents or ".venv" in path.parts


def test_curl_can_infer(client: httpx.Client) -> None:
    url = str(client.base_url.join(f"/v2/models/{MODEL}/infer"))
    command = ["curl", "-sS", "-m", "20", "-H", "Content-Type: application/json", "--data-binary", "@-", url]
    done = subprocess.run(
        command,
        input=json.dumps(request(IMAGE)).encode(),
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert json.loads(done.stdout)["outputs"][0]["shape"] == [1, 10]
