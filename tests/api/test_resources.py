"""Whose fault a failure is: the machine's, the image's or the network's."""

import errno

import pytest

from resnet_service.api.app import create_app
from resnet_service.inference.fake import FakeClassifier
from resnet_service.settings import Settings
from tests.support.images import encoded, noise
from tests.support.servers import served

IMAGE = encoded(noise(40, 30), "JPEG")
BROKEN = encoded(noise(40, 30), "PNG")[:500]


@pytest.mark.parametrize(
    "failure",
    [
        MemoryError(),
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("can't start new thread"),
        RuntimeError("std::bad_alloc"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("path", ["/predict", "/embed"])
def test_what_the_machine_lacks_is_503_with_a_log_line_and_a_metric(
    failure: Exception, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with served(create_app(Settings(), FakeClassifier(failure=failure))) as client:
        answer = client.post(path, content=IMAGE)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        assert 'failures_total{reason="out_of_resources"} 1.0' in client.get("/metrics").text
        assert client.get("/health/ready").status_code == 200, "the network is not at fault"
    assert any("out of resources" in message and str(failure) in message for message in caplog.messages)


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_a_broken_image_is_422_with_the_type_of_the_decoders_error_in_log_and_metric(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "resnet_service")
    field = "files" if path.endswith("batch") else "file"
    with served(create_app(Settings(), FakeClassifier())) as client:
        assert "broken_image" in client.post(path, files={field: BROKEN}).text
        assert 'decoder_failures_total{type="OSError"} 1.0' in client.get("/metrics").text
    assert sum(message.startswith("The decoder failed: OSError: ") for message in caplog.messages) == 1
