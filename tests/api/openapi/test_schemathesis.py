"""Schemathesis reads our OpenAPI and tries to prove it wrong; images and forms are real ones, whole and damaged."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import CHECKS

from fuzz.damage import damaged
from resnet_service.api.app import create_app
from resnet_service.inference.fake import FakeClassifier
from resnet_service.settings import Settings
from tests.support.images import encoded, noise
from tests.support.servers import served

IMAGES = [encoded(noise(24, 16), name) for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")]
EXAMPLES = 100

images = st.one_of(
    st.sampled_from(IMAGES),
    st.builds(damaged, st.sampled_from(IMAGES), st.integers(0, 2**32)),
    st.binary(max_size=200),
)
schemathesis.openapi.media_type("image/*", images)
schemathesis.openapi.media_type("application/octet-stream", images)


def operations() -> dict[str, Any]:
    schema = schemathesis.openapi.from_dict(create_app(Settings(), FakeClassifier()).openapi())
    results: list[Any] = list(schema.get_all_operations())
    return {operation.label: operation for operation in (result.ok() for result in results)}


OPERATIONS = operations()

# Of an operation without parameters and body, there is no wrong request.
ASKED = [
    (label, mode)
    for label, operation in OPERATIONS.items()
    for mode in schemathesis.GenerationMode
    if mode is schemathesis.GenerationMode.POSITIVE or operation.body or operation.query
]

# Whether bytes are an image is beyond what a schema can say: valid by the schema, they may still be refused.
EXCLUDED: list[Any] = CHECKS.get_by_names(["positive_data_acceptance"])
# In a form, one value and a list of one are the same bytes.
EXCLUDED_OF_LISTS: list[Any] = CHECKS.get_by_names(["positive_data_acceptance", "negative_data_rejection"])
LIST_LABEL, LIST_TYPE = "POST /predict/batch", "multipart/form-data"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(create_app(Settings(max_pixels=100_000), FakeClassifier())) as client:
        yield str(client.base_url)
        assert client.get("/health/ready").status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize(("label", "mode"), ASKED)
def test_what_openapi_says_is_what_is_answered(url: str, label: str, mode: schemathesis.GenerationMode) -> None:
    """100 requests for each operation that are as it says, and 100 that are not; half a minute for all."""

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=OPERATIONS[label].as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case[Any]) -> None:
        is_list = (label, case.media_type) == (LIST_LABEL, LIST_TYPE)
        case.call_and_validate(base_url=url, excluded_checks=EXCLUDED_OF_LISTS if is_list else EXCLUDED, timeout=10)

    ask()


def test_every_operation_is_asked() -> None:
    assert "POST /predict" in OPERATIONS
    media_types = {body.media_type for body in OPERATIONS["POST /predict"].body}
    assert media_types == {"multipart/form-data", "image/*", "application/octet-stream"}
