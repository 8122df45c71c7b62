"""Each test has a time limit: one that hangs fails by name, and the others still run."""

import pytest


def limit(request: pytest.FixtureRequest) -> float:
    """Return the seconds that pytest-timeout gives to a test's body."""
    marker = request.node.get_closest_marker("timeout")
    return float(marker.args[0] if marker else request.config.getini("timeout"))


def test_an_ordinary_test_has_a_limit(request: pytest.FixtureRequest) -> None:
    assert limit(request) > 0


@pytest.mark.slow
def test_a_slow_test_has_a_longer_one(request: pytest.FixtureRequest) -> None:
    assert limit(request) > float(request.config.getini("timeout"))
