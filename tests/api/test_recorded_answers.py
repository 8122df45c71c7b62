"""Answers that were recorded before inference routes had a handler of their own stay the same to the byte."""

import json

import pytest

from tests.support.recorded_answers import RECORDED, REQUESTS, answers


@pytest.fixture(scope="module")
def current() -> dict[str, dict[str, object]]:
    return answers()


def test_every_request_is_recorded() -> None:
    assert json.loads(RECORDED.read_text()).keys() == REQUESTS.keys()


@pytest.mark.parametrize("name", REQUESTS)
def test_the_answer_is_the_recorded_one(name: str, current: dict[str, dict[str, object]]) -> None:
    assert current[name] == json.loads(RECORDED.read_text())[name]
