import asyncio

import pytest
from starlette.types import Message

from resnet_service.api.app import create_app
from resnet_service.inference.fake import FakeClassifier
from resnet_service.settings import Settings

CHUNK = 2**16


@pytest.mark.parametrize(("size", "left"), [(2**20, 0), (2**20 + 3 * CHUNK, 3)])
def test_a_body_that_another_route_takes_is_read_to_its_end(size: int, left: int) -> None:
    """Closing the connection before would reset it, and a proxy that still sends would answer 502."""
    app = create_app(Settings(max_body_bytes=1024, max_batch_bytes=2**20), FakeClassifier())
    chunks = [bytes(CHUNK)] * (size // CHUNK)
    sent: list[Message] = []

    async def receive() -> Message:
        body = chunks.pop()
        return {"type": "http.request", "body": body, "more_body": bool(chunks)}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"content-length", str(size).encode()), (b"content-type", b"image/png")]
    scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": headers}
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 413
    assert (b"connection", b"close") in sent[0]["headers"]
    assert len(chunks) == left
