"""The format of every error over HTTP."""

from http import HTTPStatus

import httpx


def assert_problem(response: httpx.Response, status: HTTPStatus, code: str, said: str = "") -> None:
    """Check the format that every error has."""
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body.keys() == {"type", "title", "status", "code", "detail"}
    assert (response.status_code, body["status"], body["code"]) == (status, status, code)
    assert body["title"] == status.phrase
    assert said in body["detail"]
