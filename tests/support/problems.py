"""What every error over HTTP has in common."""

from http import HTTPStatus

import httpx


def assert_problem(response: httpx.Response, status: HTTPStatus, code: str, said: str = "") -> None:
    """Check the one shape that every error has."""
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body.keys() == {"type", "title", "status", "code", "detail"}
    assert (response.status_code, body["status"], body["code"]) == (status, status, code)
    assert body["title"] == status.phrase
    assert said in body["detail"]
