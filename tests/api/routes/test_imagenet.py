"""Photographs with known answers, over HTTP, with what `pull` brought."""

import httpx

from tests.support.images import imagenet_photographs
from tests.support.servers import ServerProcess


def test_at_least_17_of_20_are_right(imagenet_server: ServerProcess) -> None:
    photographs = imagenet_photographs()
    assert len(photographs) == 20
    first, among_five = 0, 0
    for path, class_id in photographs:
        answer = httpx.post(f"{imagenet_server.url}/predict?top_k=5", files={"file": path.read_bytes()}).json()
        ranked = [prediction["class_id"] for prediction in answer["predictions"]]
        first += ranked[0] == class_id
        among_five += class_id in ranked
    assert first >= 17
    assert among_five >= 19


def test_metadata_names_architecture_and_source(imagenet_server: ServerProcess) -> None:
    metadata = httpx.get(f"{imagenet_server.url}/metadata").json()["metadata"]
    assert metadata["provenance"]["source"]
    assert metadata["provenance"]["source"] in imagenet_server.log
    assert metadata["labels"]["name"] == "imagenet1k"
    labels = httpx.get(f"{imagenet_server.url}/labels").json()
    assert labels["classes"][281] == {"index": 281, "id": "n02123045", "name": "tabby"}
