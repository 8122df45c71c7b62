"""`/explain` and `/embed` over a real socket: their forms, limits and failures, and the shipped model behind them."""

import io
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from resnet_service.api.app import create_app
from resnet_service.inference.classifier import Classifier
from resnet_service.inference.fake import FakeClassifier
from resnet_service.models.labels import LabelSet
from resnet_service.models.metadata import ModelMetadata, Outputs
from resnet_service.runtimes.base import Features
from resnet_service.settings import Settings
from resnet_service.types import Precision
from tests.support.images import CAT, encoded, noise
from tests.support.models import as_older_version, metadata
from tests.support.problems import assert_problem
from tests.support.servers import REPOSITORY, served

EXPORTED = REPOSITORY / "checkpoints" / "resnet18-fashion-mnist-int8.onnx"
SHOE = next((REPOSITORY / "tests" / "data" / "fashion-mnist").rglob("*.png")).read_bytes()
IMAGE = encoded(noise(40, 30), "PNG")
CHINESE = ("猫", "狗", "鸟")
BINARY = {"Accept": "application/octet-stream"}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with served(create_app(Settings(), FakeClassifier(translations={"zh": CHINESE}))) as client:
        yield client


@pytest.fixture(scope="module")
def shipped() -> Classifier:
    return Classifier.open(EXPORTED)


@pytest.fixture(scope="module")
def real(shipped: Classifier) -> Iterator[httpx.Client]:
    with served(create_app(Settings(), shipped)) as client:
        yield client


def opened(response: httpx.Response) -> Image.Image:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/png"
    image = Image.open(io.BytesIO(response.content))
    assert image.format == "PNG"
    return image


# Forms


@pytest.mark.parametrize(
    ("query", "accept", "form"),
    [
        ("", None, "overlay"),
        ("", "*/*", "overlay"),
        ("", "image/png", "overlay"),
        ("", "application/json", "json"),
        ("", "image/png;q=0.4, application/json", "json"),
        ("?format=overlay", "application/json", "overlay"),
        ("?format=map", "application/json", "map"),
        ("?format=json", "image/png", "json"),
    ],
)
def test_format_wins_over_accept(client: httpx.Client, query: str, accept: str | None, form: str) -> None:
    answer = client.post(f"/explain{query}", content=IMAGE, headers={"Accept": accept} if accept else {})
    if form == "json":
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["map"] == [[0, 1], [0, 1]]
        assert answer.headers["vary"] == "Accept, Accept-Language"
    else:
        image = opened(answer)
        assert (image.mode, image.size) == (("RGB", (40, 30)) if form == "overlay" else ("L", (8, 8)))
        assert answer.headers["vary"] == "Accept"


def test_it_takes_a_form_too(client: httpx.Client) -> None:
    for path in ("/explain", "/embed"):
        assert client.post(path, files={"file": IMAGE}).status_code == 200
        assert_problem(client.post(path, files={"other": IMAGE}), HTTPStatus.BAD_REQUEST, "no_file")
        assert_problem(client.post(path, content=b"hello"), HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "not_an_image")
        assert client.get(path).status_code == HTTPStatus.METHOD_NOT_ALLOWED


@pytest.mark.parametrize("class_id", ["-1", "3", str(2**70), "many", "1.5", ""])
@pytest.mark.parametrize("form", ["overlay", "map", "json"])
def test_bad_class_id(client: httpx.Client, class_id: str, form: str) -> None:
    answer = client.post(f"/explain?class_id={class_id}&format={form}", content=IMAGE)
    assert_problem(answer, HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_class_id", "class_id")


def test_bad_parameters(client: httpx.Client) -> None:
    for query in ("/explain?format=svg", "/explain?format=", "/embed?normalize=perhaps"):
        answer = client.post(query, content=IMAGE)
        assert_problem(answer, HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request")


def test_the_label_is_in_the_language_that_is_asked_for(client: httpx.Client) -> None:
    for query, field, language in (("&lang=zh", "en", "zh"), ("", "zh-CN", "zh"), ("&lang=en", "zh", "en")):
        headers = {"Accept-Language": field}
        answer = client.post(f"/explain?format=json&class_id=1{query}", content=IMAGE, headers=headers)
        assert answer.json()["label"] == (CHINESE[1] if language == "zh" else "class 1")
        assert answer.headers["content-language"] == language
    refused = client.post("/explain?lang=fr", content=IMAGE)
    assert_problem(refused, HTTPStatus.UNPROCESSABLE_ENTITY, "unsupported_language")


def test_a_batch_is_in_the_language_that_is_asked_for(client: httpx.Client) -> None:
    for query, field, names in (("?lang=zh", "en", CHINESE), ("", "zh", CHINESE), ("?lang=en", "zh", None)):
        answer = client.post(
            f"/predict/batch{query}", files=[("files", ("a.png", IMAGE))] * 2, headers={"Accept-Language": field}
        )
        for result in answer.json()["results"]:
            assert [one["label"] for one in result["predictions"]] == list(names or ("class 0", "class 1", "class 2"))
        assert answer.headers["content-language"] == ("zh" if names else "en")
        assert answer.headers["vary"] == "Accept-Language"


# The shipped model


def test_the_map_is_the_classifiers(real: httpx.Client, shipped: Classifier) -> None:
    for class_id in (None, 3):
        query = "" if class_id is None else f"&class_id={class_id}"
        body = real.post(f"/explain?format=json{query}", content=SHOE).json()
        expected = shipped.explain(SHOE, class_id)
        assert body.keys() == {"class_id", "label", "score", "map", "region", "image", "model", "timing_ms"}
        assert (body["class_id"], body["label"]) == (
            expected.class_id,
            shipped.model.labels.classes[expected.class_id].name,
        )
        assert body["score"] == pytest.approx(expected.score, rel=1e-3)
        np.testing.assert_allclose(body["map"], expected.values, rtol=1e-3, atol=1e-3)
        assert body["model"]["version"] == shipped.model.version
        assert body["timing_ms"]["inference"] > 0
    best = real.post("/predict?top_k=1", content=SHOE).json()["predictions"][0]
    body = real.post("/explain?format=json", content=SHOE).json()
    assert (body["class_id"], body["label"]) == (best["class_id"], best["label"])


def turned(width: int, height: int) -> bytes:
    """Return a JPEG that is to be displayed ``width`` x ``height``, and lies on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(noise(height, width), "JPEG", exif=exif)


@pytest.mark.parametrize(
    ("image", "size", "region"),
    [
        (encoded(noise(300, 200), "PNG"), (300, 200), (50, 0, 200, 200)),
        (encoded(noise(200, 300), "PNG"), (200, 300), (0, 50, 200, 200)),
        (encoded(noise(64, 64), "PNG"), (64, 64), (0, 0, 64, 64)),
        # Decoded at a reduced scale. Resized it is 85 x 64 pixels, of which 10 are left of what the network sees.
        (encoded(noise(1600, 1200), "JPEG"), (1600, 1200), (10 * 1600 / 85, 0, 64 * 1600 / 85, 1200)),
        (turned(300, 200), (300, 200), (50, 0, 200, 200)),
    ],
    ids=["wide", "high", "square", "large", "turned"],
)
def test_the_region_is_in_the_pixels_of_the_image_as_displayed(
    real: httpx.Client, image: bytes, size: tuple[int, int], region: tuple[float, float, float, float]
) -> None:
    """The shipped model sees the largest square in the middle."""
    body = real.post("/explain?format=json", content=image).json()
    assert (body["image"]["width"], body["image"]["height"]) == size
    found = [body["region"][name] for name in ("left", "top", "width", "height")]
    assert found == [pytest.approx(edge, abs=0.01) for edge in region]


def test_the_overlay_lies_where_the_region_says(real: httpx.Client) -> None:
    image = noise(300, 200)
    data = encoded(image, "PNG")
    drawn = opened(real.post("/explain", content=data))
    ctx = real.post("/explain?format=json", content=data).json()["region"]
    changed = (np.asarray(drawn) != np.asarray(image)).any(axis=2)
    columns = np.flatnonzero(changed.any(axis=0))
    assert columns[0] == pytest.approx(ctx["left"], abs=1)
    assert columns[-1] + 1 == pytest.approx(ctx["left"] + ctx["width"], abs=1)
    assert opened(real.post("/explain?format=map", content=data)).size == (64, 64)


def test_vectors_as_json_and_as_bytes(real: httpx.Client, shipped: Classifier) -> None:
    expected = shipped.embed(SHOE).vector
    body = real.post("/embed", content=SHOE)
    assert body.headers["vary"] == "Accept"
    said = body.json()
    assert said.keys() == {"embedding", "dimensions", "normalized", "image", "model", "timing_ms"}
    assert (said["dimensions"], said["normalized"]) == (512, False)
    np.testing.assert_allclose(said["embedding"], expected, rtol=1e-3, atol=1e-3)
    binary = real.post("/embed", content=SHOE, headers=BINARY)
    assert binary.headers["content-type"] == "application/octet-stream"
    assert binary.headers["vary"] == "Accept"
    assert len(binary.content) == 4 * 512
    np.testing.assert_allclose(np.frombuffer(binary.content, "<f4"), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("headers", [{}, BINARY], ids=["json", "bytes"])
def test_vectors_of_length_one(real: httpx.Client, headers: dict[str, str]) -> None:
    vectors = []
    for normalize in ("true", "false"):
        answer = real.post(f"/embed?normalize={normalize}", content=SHOE, headers=headers)
        if headers:
            vectors.append(np.frombuffer(answer.content, "<f4").astype(float))
        else:
            assert answer.json()["normalized"] is (normalize == "true")
            vectors.append(np.array(answer.json()["embedding"]))
    unit, plain = vectors
    assert np.linalg.norm(unit) == pytest.approx(1, abs=1e-6)
    assert np.linalg.norm(plain) > 1.5
    assert unit @ plain == pytest.approx(np.linalg.norm(plain), rel=1e-3)


# What a model does not give


def test_a_file_of_before_says_that_it_can_be_exported_again(tmp_path: Path) -> None:
    older = Classifier.open(as_older_version(EXPORTED, tmp_path / "older.onnx"))
    with served(create_app(Settings(), older)) as client:
        assert client.post("/predict", content=SHOE).status_code == 200
        for path in ("/explain", "/explain?format=json", "/embed"):
            answer = client.post(path, content=SHOE)
            assert_problem(answer, HTTPStatus.NOT_IMPLEMENTED, "output_unavailable", "export it again")
        assert client.get("/metadata").json()["outputs"] == {"embedding": None, "feature_map": None}
        assert client.get("/health/ready").status_code == 200


class Made:
    """A network whose answers are made up."""

    name = "made"
    prefetch = 0
    precision: Precision = "fp32"
    sha256 = "0" * 64
    logits_only = ""

    def __init__(self, features: Features, weights: np.ndarray | None, arch: str = "resnet18") -> None:
        self.metadata: ModelMetadata = metadata(arch=arch, num_classes=3)
        shape = None if features.feature_map is None else features.feature_map.shape
        self.outputs = Outputs(embedding=len(features.embedding), feature_map=shape)
        self.class_weights = weights
        self.made = features

    def logits(self, crops: np.ndarray, *, prefer_latency: bool = True) -> np.ndarray:
        return np.repeat(self.made.logits[np.newaxis], len(crops), axis=0)

    def features(self, pixels: np.ndarray, *, prefer_latency: bool = True) -> Features:
        return self.made


LOGITS = np.array([0, 1, 2], np.float32)


def sound() -> Features:
    return Features(LOGITS, np.ones(4, np.float32), np.ones((4, 2, 2), np.float32))


def test_networks_that_end_otherwise_are_501_where_they_must() -> None:
    made = Made(Features(LOGITS, np.ones(4, np.float32), None), None, arch="vgg11")
    with served(create_app(Settings(), Classifier(made, LabelSet.numbered(3)))) as client:
        answer = client.post("/explain", content=IMAGE)
        assert_problem(
            answer,
            HTTPStatus.NOT_IMPLEMENTED,
            "output_unavailable",
            "vgg11 does not, so its answers cannot be explained",
        )
        assert client.post("/embed", content=IMAGE).json()["embedding"] == [1, 1, 1, 1]
        assert client.get("/metadata").json()["outputs"] == {"embedding": 4, "feature_map": None}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("part", ["embedding", "feature_map"])
def test_what_is_no_number_is_never_answered(part: str, bad: float) -> None:
    made = Made(sound(), np.ones((3, 4), np.float32))
    with served(create_app(Settings(), Classifier(made, LabelSet.numbered(3)))) as client:
        path = "/embed" if part == "embedding" else "/explain"
        for query in ("", "?normalize=true", "?format=json", "?format=map"):
            assert client.post(path + query, content=IMAGE).status_code == 200
        spoilt: Any = getattr(sound(), part)
        spoilt.flat[-1] = bad
        made.made = sound()._replace(**{part: spoilt})
        for query in ("", "?normalize=true", "?format=json", "?format=map"):
            answer = client.post(path + query, content=IMAGE)
            assert_problem(answer, HTTPStatus.INTERNAL_SERVER_ERROR, "unsound_output")
            assert "finite" not in answer.text  # of what is our own fault, the log tells
        # Readiness does not come back while it is so, although its scores are sound.
        assert client.get("/health/ready").status_code == HTTPStatus.SERVICE_UNAVAILABLE


def test_a_photograph_is_explained(real: httpx.Client) -> None:
    assert max(opened(real.post("/explain", content=CAT.read_bytes())).size) <= 1024
