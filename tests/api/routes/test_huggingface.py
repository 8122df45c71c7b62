"""Hugging Face's client, unchanged, with our URL as its model."""

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from resnet_service.api.app import create_app
from resnet_service.inference.classifier import Classifier
from resnet_service.settings import Settings
from tests.support.images import CAT, encoded, noise
from tests.support.servers import REPOSITORY, served

IMAGE = encoded(noise(40, 30), "JPEG")


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.open(REPOSITORY / "checkpoints" / "resnet18-fashion-mnist-int8.onnx")


@pytest.fixture(scope="module")
def client(classifier: Classifier) -> Iterator[httpx.Client]:
    with served(create_app(Settings(max_body_bytes=2_000_000), classifier)) as client:
        yield client


@pytest.fixture(scope="module")
def hub(client: httpx.Client) -> InferenceClient:
    return InferenceClient(model=str(client.base_url).rstrip("/"))


@pytest.mark.parametrize("image", [CAT, str(CAT), CAT.read_bytes()], ids=["path", "name", "bytes"])
@pytest.mark.parametrize("top_k", [None, 1, 3, 99])
def test_it_names_what_is_in_an_image(
    hub: InferenceClient, classifier: Classifier, image: Any, top_k: int | None
) -> None:
    elements = hub.image_classification(image, top_k=top_k)
    expected = classifier.classify(CAT.read_bytes(), min(top_k or 5, 10)).predictions
    assert [element.label for element in elements] == [ranked.label for ranked in expected]
    assert [element.score for element in elements] == pytest.approx([ranked.score for ranked in expected])


def test_it_chooses_what_makes_scores(hub: InferenceClient, classifier: Classifier) -> None:
    logits = classifier.score([IMAGE]).logits[0].max()
    assert hub.image_classification(IMAGE, function_to_apply="none")[0].score == pytest.approx(logits)
    sigmoid = hub.image_classification(IMAGE, function_to_apply="sigmoid")
    assert all(0 <= element.score <= 1 for element in sigmoid)
    assert hub.image_classification(IMAGE, function_to_apply="softmax") == hub.image_classification(IMAGE)


async def _ask_async(url: str) -> str:
    async with AsyncInferenceClient(model=url) as hub:
        return str((await hub.image_classification(IMAGE, top_k=1))[0].label)


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # httpx2's, of how its client calls it
def test_the_asynchronous_one_too(client: httpx.Client, hub: InferenceClient) -> None:
    assert asyncio.run(_ask_async(str(client.base_url))) == hub.image_classification(IMAGE)[0].label


@pytest.mark.parametrize(
    ("image", "top_k", "status", "said"),
    [
        (b"text", None, 415, "not an image"),
        (b"text", 3, 415, "not an image"),
        (IMAGE, 0, 422, "top_k is 0"),
        (IMAGE, -1, 422, "top_k is -1"),
        (IMAGE[:300], 1, 422, "damaged"),
        (bytes(2_000_001), None, 413, "the limit is"),
        (bytes(1_600_000), 1, 413, "the limit is"),
    ],
)
def test_it_is_told_what_is_wrong(
    hub: InferenceClient, image: bytes, top_k: int | None, status: int, said: str
) -> None:
    with pytest.raises(HfHubHTTPError, match=said) as caught:
        hub.image_classification(image, top_k=top_k)
    assert caught.value.response.status_code == status


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"inputs":"!"}',
        b'{"inputs":1}',
        '{"inputs":"é"}'.encode(),
        b'{"inputs":""}',
        b'{"inputs":"AA==","parameters":[]}',
        b'{"inputs":"AA==","parameters":{"top_k":"3"}}',
        b'{"inputs":"AA==","parameters":{"top_k":1e99}}',
        b'{"inputs":"AA==","parameters":{"function_to_apply":"exec"}}',
    ],
)
def test_hostile_json_is_refused_in_a_line(client: httpx.Client, body: bytes) -> None:
    response = client.post("/", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert response.json().keys() == {"error"}
    assert len(response.text) < 300


def test_a_huge_top_k_is_all_there_are(client: httpx.Client) -> None:
    body = json.dumps({"inputs": base64.b64encode(IMAGE).decode(), "parameters": {"top_k": 10**30}})
    answer = client.post("/", content=body, headers={"Content-Type": "application/json; charset=utf-8"})
    assert len(answer.json()) == 10


def test_the_page_is_still_there(client: httpx.Client) -> None:
    assert client.get("/").headers["content-type"].startswith("text/html")
