"""What a client prefers."""

import pytest

from resnet_service.api.content_negotiation import preferred_media_type

PNG, JSON = "image/png", "application/json"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", PNG),
        ("*/*", PNG),
        ("application/json", JSON),
        ("Application/JSON", JSON),
        ("application/json, text/plain, */*", PNG),
        ("application/json, */*;q=0.8", JSON),
        ("image/png;q=0.5, application/json;q=0.9", JSON),
        ("image/*, application/json;q=0.9", PNG),
        ("application/*;q=0.5, image/png;q=0.4", JSON),
        ("image/png;q=0, */*", JSON),
        ("text/html", PNG),
        ("application/json;q=much", PNG),
        ("application/json;charset=utf-8", JSON),
        (",;,;q=,=", PNG),
    ],
)
def test_who_prefers_what(accept: str, expected: str) -> None:
    assert preferred_media_type(accept, (PNG, JSON)) == expected
