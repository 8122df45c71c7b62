"""What everyday clients send for an image, byte for byte, and what they send by mistake; over a real socket."""

import base64
import gc
import gzip
import json
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import httpx
import pytest

from fuzz.client_bodies import Body, fields, form, forms, mistakes, raw
from resnet_service.api.app import create_app
from resnet_service.api.forms import Form, Part
from resnet_service.inference.fake import FakeClassifier
from resnet_service.settings import Settings
from tests.support.images import encoded, noise
from tests.support.problems import assert_problem
from tests.support.servers import served
from tests.support.waiting import until

IMAGE = encoded(noise(40, 30), "JPEG")
FORMS, RAW, MISTAKES = forms(IMAGE), raw(IMAGE), mistakes(IMAGE)
SEVERAL = forms(IMAGE, "files")
UNNAMED = FORMS["requests, bytes without a name"]
LABELS = ["class 0", "class 1", "class 2"]


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with served(create_app(Settings(max_batch=4), FakeClassifier())) as client:
        yield client


def send(client: httpx.Client, body: Body, path: str = "/predict", **headers: str) -> httpx.Response:
    declared = {"Content-Type": body.media_type} if body.media_type else {}
    return client.post(path, content=body.data, headers=declared | headers)


def labels(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [ranked["label"] for ranked in answer.json()["predictions"]]


@pytest.mark.parametrize("name", FORMS)
def test_a_form_with_the_image_in_its_field_is_answered(client: httpx.Client, name: str) -> None:
    assert labels(send(client, FORMS[name])) == LABELS


@pytest.mark.parametrize("name", RAW)
def test_an_image_is_answered_under_the_types_that_clients_declare_by_default(client: httpx.Client, name: str) -> None:
    assert labels(send(client, RAW[name])) == LABELS


@pytest.mark.parametrize("path", ["/embed", "/explain", "/"])
def test_so_do_the_other_routes(client: httpx.Client, path: str) -> None:
    for body in (UNNAMED, FORMS[".NET, stream"], RAW["files of S3"]):
        assert send(client, body, path).status_code == 200


@pytest.mark.parametrize("name", SEVERAL)
def test_a_batch_takes_the_same_forms(client: httpx.Client, name: str) -> None:
    answer = send(client, SEVERAL[name], "/predict/batch")
    assert answer.status_code == 200, answer.text
    (result,) = answer.json()["results"]
    assert [ranked["label"] for ranked in result["predictions"]] == LABELS


def test_a_batch_takes_a_list_as_axios_sends_it(client: httpx.Client) -> None:
    axios = forms(IMAGE, "files[]")["axios"]
    assert len(send(client, axios, "/predict/batch").json()["results"]) == 1


def test_a_batch_names_its_images_as_the_client_did(client: httpx.Client) -> None:
    def filenames(name: str) -> list[str]:
        return [result["filename"] for result in send(client, SEVERAL[name], "/predict/batch").json()["results"]]

    assert filenames(".NET, stream") == ["cat.jpg"]
    assert filenames(".NET, name beyond ASCII") == ["é.jpg"]
    assert filenames("extended name alone") == ["c t.jpg"]
    assert filenames("requests, bytes without a name") == ["image-0"]


@pytest.mark.parametrize("path", ["/predict", "/embed", "/explain", "/"])
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named(client: httpx.Client, name: str, path: str) -> None:
    body, said = MISTAKES[name]
    answer = send(client, body, path)
    if path == "/" and body.media_type == "application/json":
        said = "not an image with parameters"
    assert answer.status_code in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNSUPPORTED_MEDIA_TYPE), answer.text
    detail = answer.json()["error" if path == "/" else "detail"]
    assert said in detail
    assert len(detail) < 400


def test_the_codes_are_those_of_before(client: httpx.Client) -> None:
    def code(name: str) -> str:
        return str(send(client, MISTAKES[name][0]).json()["code"])

    assert code("base64") == code("form declared as an image") == code("HTML") == "not_an_image"
    assert code("urlencoded form") == code("JSON") == "unsupported_media_type"
    assert code("form, other field") == code("form, name of a file") == code("form, empty") == "no_file"
    assert code("form without a boundary") == code("form with LF") == "malformed_form"


def test_a_batch_names_them_too(client: httpx.Client) -> None:
    disposition = 'Content-Disposition: form-data; name="files"; filename="a"'
    sent = form("b", *(((disposition,), data) for data in (gzip.compress(IMAGE), base64.b64encode(IMAGE), IMAGE)))
    errors = [result.get("error") for result in send(client, sent, "/predict/batch").json()["results"]]
    assert "gzip" in errors[0]["detail"]
    assert "base64" in errors[1]["detail"]
    assert errors[2] is None
    text = form("b", (('Content-Disposition: form-data; name="files"',), b"cat.jpg"))
    refused = send(client, text, "/predict/batch")
    assert_problem(refused, HTTPStatus.BAD_REQUEST, "malformed_form", "did you mean -F files=@")
    refused = send(client, UNNAMED, "/predict/batch")
    assert_problem(refused, HTTPStatus.BAD_REQUEST, "no_file", "no file in the field 'files'; it has 'file'")


def test_the_names_of_fields_are_repeated_within_bounds(client: httpx.Client) -> None:
    names = ["x" * 1000, "a\x1b[31m\xff", *map(str, range(6))]
    parts = (((f'Content-Disposition: form-data; name="{name}"',), b"1") for name in names)
    detail = send(client, form("b", *parts)).json()["detail"]
    assert "'xxx" in detail
    assert "x" * 41 not in detail
    assert "…" in detail
    assert detail.isprintable()
    assert len(detail) < 400


def test_two_images_are_not_one(client: httpx.Client) -> None:
    part = (('Content-Disposition: form-data; name="file"',), IMAGE)
    assert_problem(send(client, form("b", part, part)), HTTPStatus.BAD_REQUEST, "malformed_form", "Too many files")
    several = (('Content-Disposition: form-data; name="files"',), IMAGE)
    for sent in (5, 50):
        refused = send(client, form("b", *[several] * sent), "/predict/batch")
        assert_problem(refused, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_many_pictures", "limit of 4")


def test_an_idle_connection_holds_no_form(client: httpx.Client) -> None:
    """The server keeps the scope of a connection's latest request, and what is in it, until the next request."""
    for values in ({}, {"top_k": "1"}, {"top_k": "many"}):
        send(client, with_fields(FORMS["curl -F"], **values))
        send(client, with_fields(FORMS["curl -F"], **values), "/")
        until(lambda: not any(type(kept) in (Form, Part) for kept in gc.get_objects()))


def with_fields(body: Body, **values: str) -> Body:
    """Return the form with these fields before its own."""
    boundary = body.media_type.partition("boundary=")[2]
    return Body(body.media_type, fields(values, boundary) + body.data)


@pytest.mark.parametrize("name", ["curl -F", "form-data of Node, buffer", "Java's HttpClient, written by hand"])
def test_a_field_of_the_form_is_a_parameter(client: httpx.Client, name: str) -> None:
    assert labels(send(client, with_fields(FORMS[name], top_k="1"))) == ["class 0"]
    assert send(client, with_fields(FORMS[name], lang="zh")).headers["content-language"] == "en"
    assert labels(send(client, with_fields(FORMS[name], harmless="1"))) == LABELS


def test_fields_count_as_if_they_came_last_in_the_query(client: httpx.Client) -> None:
    body = with_fields(FORMS["curl -F"], top_k="1")
    assert labels(send(client, body, "/predict?top_k=2")) == ["class 0"]
    assert labels(send(client, with_fields(FORMS["curl -F"], lang="en"), "/predict?top_k=2")) == LABELS[:2]


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("/predict", {"top_k": "0"}),
        ("/predict", {"top_k": "many"}),
        ("/predict", {"top_k": ""}),
        ("/predict", {"top_k": "9"}),
        ("/predict", {"top_k": "1" * 5000}),
        ("/predict", {"lang": "fr"}),
        ("/predict", {"lang": "fr", "top_k": "0"}),
        ("/predict/batch", {"top_k": "4"}),
        ("/explain", {"class_id": "7"}),
        ("/explain", {"class_id": "x"}),
        ("/explain", {"format": "gif"}),
        ("/embed", {"normalize": "perhaps"}),
    ],
)
def test_a_field_is_validated_as_a_parameter_is(client: httpx.Client, path: str, values: dict[str, str]) -> None:
    form_of = SEVERAL if path == "/predict/batch" else FORMS
    by_field = send(client, with_fields(form_of["curl -F"], **values), path)
    by_query = client.post(
        path, params=values, content=form_of["curl -F"].data, headers={"Content-Type": form_of["curl -F"].media_type}
    )
    assert by_field.status_code == 422
    assert by_field.json() == by_query.json()


def test_fields_choose_what_explain_and_embed_answer(client: httpx.Client) -> None:
    answer = send(client, with_fields(FORMS["curl -F"], format="json", class_id="2"), "/explain")
    assert answer.json()["class_id"] == 2
    assert send(client, with_fields(FORMS["curl -F"], normalize="true"), "/embed").json()["normalized"] is True
    several = send(client, with_fields(SEVERAL["curl -F"], top_k="1"), "/predict/batch")
    assert len(several.json()["results"][0]["predictions"]) == 1


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "GZIP", "identity, gzip", "zstd"])
@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/explain", "/embed", "/", "/v2/models/fake/infer"])
def test_a_compressed_body_is_refused_by_name(client: httpx.Client, path: str, encoding: str) -> None:
    body = Body("image/jpeg", gzip.compress(IMAGE))
    answer = send(client, body, path, **{"Content-Encoding": encoding})
    assert answer.status_code == HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    assert f"Content-Encoding {encoding} is not accepted" in answer.text


def test_identity_is_no_compression(client: httpx.Client) -> None:
    for encoding in ("identity", "Identity", ""):
        assert send(client, RAW["files of S3"], **{"Content-Encoding": encoding}).status_code == 200


def test_no_body_is_inflated(client: httpx.Client) -> None:
    """A megabyte that would become a gigabyte is refused by its field, before it is read."""
    bomb = gzip.compress(bytes(2**20)) * 100
    answer = send(client, Body("image/jpeg", bomb), **{"Content-Encoding": "gzip"})
    assert_problem(answer, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "gzip")


@pytest.mark.parametrize(
    "inputs",
    [
        base64.b64encode(IMAGE).decode(),
        base64.encodebytes(IMAGE).decode(),
        base64.encodebytes(IMAGE).decode().replace("\n", "\r\n"),
        "data:image/jpeg;base64," + base64.b64encode(IMAGE).decode(),
        "data:;base64," + base64.b64encode(IMAGE).decode(),
        "DATA:image/jpeg;charset=utf-8;BASE64,\n" + base64.encodebytes(IMAGE).decode(),
    ],
    ids=["plain", "lines", "CRLF", "data URL", "untyped data URL", "data URL in lines"],
)
def test_the_hubs_route_takes_base64_in_every_usual_form(client: httpx.Client, inputs: str) -> None:
    answer = client.post("/", json={"inputs": inputs, "parameters": {"top_k": 1}})
    assert answer.status_code == 200, answer.text
    assert [element["label"] for element in answer.json()] == ["class 0"]


@pytest.mark.parametrize("inputs", ["data:image/jpeg,%FF%D8", "data:image/jpeg;base64", "no base64!", "/9j/4", "é" * 8])
def test_it_refuses_what_is_no_base64(client: httpx.Client, inputs: str) -> None:
    answer = client.post("/", content=json.dumps({"inputs": inputs}), headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert "base64, or a data URL" in answer.text


def test_the_hubs_route_takes_its_parameters_as_fields(client: httpx.Client) -> None:
    answer = send(client, with_fields(FORMS["curl -F"], top_k="2", function_to_apply="none"), "/")
    assert [element["label"] for element in answer.json()] == ["class 0", "class 1"]
    plain: list[dict[str, Any]] = send(client, with_fields(FORMS["curl -F"], top_k="2"), "/").json()
    assert answer.json()[0]["score"] != plain[0]["score"]
    for values in ({"top_k": "many"}, {"function_to_apply": "exec"}):
        refused = send(client, with_fields(FORMS["curl -F"], **values), "/")
        assert refused.status_code == 400
        assert next(iter(values)) in refused.json()["error"]
