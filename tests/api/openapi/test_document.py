"""The OpenAPI document is complete and true: each example is sent, each error is provoked, and both are compared."""

import asyncio
import base64
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import jsonschema_rs
import pytest
from fastapi import FastAPI
from PIL import Image

from resnet_service import errors
from resnet_service.api.app import create_app
from resnet_service.api.openapi import document, examples
from resnet_service.api.problem_details import KINDS, is_foreign
from resnet_service.api_keys import Keys
from resnet_service.errors import DecodingTooLarge, InvalidModelOutput, OutputUnavailable
from resnet_service.inference.classifier import Classifier
from resnet_service.inference.decoding_budget import taken_from
from resnet_service.inference.fake import FakeClassifier
from resnet_service.settings import Settings
from resnet_service.system.budget import SharedBudget
from tests.support.images import encoded, noise
from tests.support.servers import REPOSITORY, served
from tests.support.wire import connected, head, read_answer

EXPORTED = REPOSITORY / "checkpoints" / f"{examples.MODEL}.onnx"
IMAGE = encoded(noise(24, 16), "PNG")
# The frame of a JPEG with 12 bits a sample, in place of 8.
DEEP = encoded(noise(16, 16), "JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c")
HUGE = encoded(Image.new("1", (8000, 7000)), "PNG")  # of few bytes
KEY = "a-key-of-a-test-0123456789"
JSON, PROBLEM = "application/json", "application/problem+json"

DOCUMENT = create_app(Settings(), FakeClassifier()).openapi()
WITH_KEYS = create_app(Settings(api_keys=Keys([KEY])), FakeClassifier()).openapi()


class Operation(NamedTuple):
    """One operation of the document."""

    method: str
    path: str
    said: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def sent(self) -> str:
        """Its path for the classifier that needs no network."""
        return self.path.replace("{model}", "fake").replace("{version}", "000000000000")


def operations(of: dict[str, Any]) -> list[Operation]:
    return [
        Operation(method.upper(), path, said)
        for path, methods in of["paths"].items()
        for method, said in methods.items()
    ]


OPERATIONS = operations(DOCUMENT)
every_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=[one.name for one in OPERATIONS])


def resolved(part: dict[str, Any], of: dict[str, Any] = DOCUMENT) -> Any:
    """Return what a reference, if it is one, leads to."""
    found: Any = of
    if "$ref" not in part:
        return part
    for step in part["$ref"].removeprefix("#/").split("/"):
        found = found[step]
    return found


def check_schema(value: Any, schema: dict[str, Any]) -> None:
    whole = {**schema, "components": DOCUMENT["components"]}
    jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(value)


def masked(text: str) -> str:
    return re.sub(r"\d[\d,.]*", "#", text)


def assert_alike(example: Any, answer: Any, where: str = "") -> None:
    """Check that they have the same fields, and say the same but for numbers; of lists, the first elements count."""
    if isinstance(example, dict):
        assert isinstance(answer, dict), where
        assert example.keys() == answer.keys(), where
        for key, value in example.items():
            assert_alike(value, answer[key], f"{where}.{key}")
    elif isinstance(example, list):
        assert isinstance(answer, list), where
        assert bool(example) == bool(answer), where
        for one, other in zip(example[:1], answer[:1], strict=True):
            assert_alike(one, other, f"{where}[0]")
    elif isinstance(example, str):
        assert isinstance(answer, str), where
        assert masked(example) == masked(answer), where
    elif isinstance(example, bool) or example is None:
        assert example is answer, where
    else:
        assert isinstance(answer, int | float), where
        assert not isinstance(answer, bool), where


def commands(description: str) -> list[str]:
    """Return the console blocks of a description as scripts."""
    blocks = re.findall(r"^```console\n(.*?)^```", description, re.MULTILINE | re.DOTALL)
    return [re.sub(r"^\$ ", "", block, flags=re.MULTILINE) for block in blocks]


# Complete


def test_tags_are_explained_and_in_the_order_of_their_importance() -> None:
    assert DOCUMENT["tags"][0]["name"] == "Classify"
    assert all(tag["description"] for tag in DOCUMENT["tags"])
    named = {tag["name"] for tag in DOCUMENT["tags"]}
    assert {tag for one in OPERATIONS for tag in one.said["tags"]} == named
    assert all(len(one.said["tags"]) == 1 for one in OPERATIONS)


def test_names_of_operations_are_names() -> None:
    names = [one.said["operationId"] for one in OPERATIONS]
    assert len(set(names)) == len(names)
    assert {"predict", "predict_batch", "explain", "embed", "v2_ready", "v2_answer_of_version"} <= set(names)
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in names)


@every_operation
def test_an_operation_is_described_and_has_an_example_of_all_it_takes_and_gives(operation: Operation) -> None:
    said = operation.said
    assert said["summary"]
    assert "curl" in "".join(commands(said["description"]))
    for status, response in said["responses"].items():
        assert response["description"] not in ("", "Successful Response", HTTPStatus(int(status)).phrase)
        for media_type, content in response["content"].items():
            if content["schema"].get("format") == "binary":
                continue
            assert content["examples"], (status, media_type)
            for example in content["examples"].values():
                value = resolved(example)["value"]
                check_schema(value, content["schema"])
    for media_type, content in said.get("requestBody", {"content": {}})["content"].items():
        if media_type == JSON:
            for example in content["examples"].values():
                check_schema(example["value"], content["schema"])


@every_operation
def test_an_operation_documents_what_any_can_give(operation: Operation) -> None:
    statuses = {int(status) for status in operation.said["responses"]}
    assert {200, 400, 408, 431, 500, 503} <= statuses
    if operation.method == "POST":  # there is a body, and inference
        assert {413, 415, 422, 429, 504} <= statuses
    assert (404 in statuses) == ("{model}" in operation.path)
    assert (501 in statuses) == (operation.path in ("/explain", "/embed"))
    assert 401 not in statuses


@pytest.fixture(scope="module")
def locked() -> Iterator[httpx.Client]:
    with served(create_app(Settings(api_keys=Keys([KEY])), FakeClassifier())) as client:
        yield client


@pytest.mark.parametrize("operation", operations(WITH_KEYS), ids=lambda one: one.name)
def test_where_keys_are_needed_it_says_so(operation: Operation, locked: httpx.Client) -> None:
    is_open = operation.said.get("security") == []
    assert is_open == (operation.path.endswith(("/live", "/health/ready", "/metrics")))
    assert is_open == ("401" not in operation.said["responses"])
    if not is_open:
        refused = operation.said["responses"]["401"]
        assert refused["headers"].keys() == {"WWW-Authenticate"}
        answer = locked.request(operation.method, operation.sent)
        media_type = answer.headers["content-type"]
        assert refused["content"].keys() == {media_type}
        assert answer.json() == resolved(refused["content"][media_type]["examples"]["unauthorized"], WITH_KEYS)["value"]
        assert "www-authenticate" in answer.headers


def test_every_error_that_goes_over_http_is_documented() -> None:
    said = {code for one in OPERATIONS for code in codes_of(one)} | {"unauthorized"}
    assert said == {kind.code for kind in KINDS.values()} | {"internal_error", "invalid_request"}


def test_the_examples_of_a_running_service_name_its_model() -> None:
    """So that "Try it out" works, whichever model is served."""
    with served(create_app(Settings(), FakeClassifier())) as client:
        running = client.get("/openapi.json").json()
    parameters = running["components"]["parameters"]
    assert {name: parameter.pop("example") for name, parameter in parameters.items()} == {
        "model": "fake",
        "version": "000000000000",
    }
    for one in operations(running):
        assert examples.MODEL not in one.said["description"]
        if "{version}" in one.path:
            assert "/v2/models/fake/versions/000000000000" in one.said["description"]
    # The rest is as in the kept document.
    assert running["components"]["examples"] == DOCUMENT["components"]["examples"]


def test_a_path_with_a_version_has_it_in_its_command() -> None:
    for one in OPERATIONS:
        named = f"/versions/{examples.VERSION}" in one.said["description"]
        assert named == ("{version}" in one.path), one.name


# For generators of clients, which have the saved document alone; `make generators` runs some


def objects(part: Any) -> Iterator[dict[str, Any]]:
    """Yield each object in a part of the document but for the examples."""
    if isinstance(part, dict):
        yield part
    for key, value in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
        if key not in ("example", "examples"):
            yield from objects(value)


@pytest.mark.parametrize("of", [DOCUMENT, WITH_KEYS], ids=["without keys", "with keys"])
def test_the_document_refers_to_nothing_outside(of: dict[str, Any]) -> None:
    assert "externalValue" not in json.dumps(of)
    for reference in re.findall(r'"\$ref": "([^"]+)"', json.dumps(of)):
        assert reference.startswith("#/")
        assert resolved({"$ref": reference}, of)


def test_its_server_is_where_it_comes_from() -> None:
    for url in ("http://localhost:8080", "https://example.org/a/vision"):
        (server,) = DOCUMENT["servers"]
        assert httpx.URL(f"{url}/openapi.json").join(server["url"]) == f"{url}/"


def test_it_says_whether_it_needs_keys() -> None:
    assert DOCUMENT["security"] == []
    assert WITH_KEYS["security"] == [{"bearer": []}, {"header": []}]


def test_arrays_say_what_is_in_them() -> None:
    arrays = [one for one in objects(DOCUMENT) if one.get("type") == "array"]
    assert any(one.get("minItems") == 3 for one in arrays)
    assert all("items" in one for one in arrays), [one for one in arrays if "items" not in one]


def test_each_schema_with_fields_has_one_name_and_one_place() -> None:
    """Of two places, a generator makes two types, or refuses the second of the same name."""
    inline = [one for one in objects(DOCUMENT["paths"]) if one.get("type") == "object" and "title" in one]
    assert inline == []
    for one in OPERATIONS:
        for response in one.said["responses"].values():
            for media_type, content in response["content"].items():
                if media_type in (JSON, PROBLEM) and content["schema"].get("type") != "array":
                    assert content["schema"].keys() == {"$ref"}
        body = one.said.get("requestBody", {"content": {}})["content"].get(JSON)
        assert body is None or body["schema"].keys() == {"$ref"}


@every_operation
def test_errors_of_other_protocols_share_a_schema(operation: Operation) -> None:
    for status, response in operation.said["responses"].items():
        if status != "200" and JSON in response["content"]:
            assert is_foreign(operation.path)
            assert response["content"][JSON]["schema"] == {"$ref": "#/components/schemas/ErrorResponse"}


# Examples


@pytest.fixture(scope="module")
def shipped() -> Iterator[httpx.Client]:
    with served(create_app(Settings(), Classifier.open(EXPORTED))) as client:
        yield client


@pytest.fixture(scope="module")
def folder(shipped: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what the document's introduction says to fetch."""
    folder = tmp_path_factory.mktemp("reader")
    (fetch,) = commands(DOCUMENT["info"]["description"])
    run(fetch, shipped, folder)
    assert (folder / "sneaker.png").read_bytes() == shipped.get(examples.IMAGE_PATH).content
    return folder


def run(script: str, client: httpx.Client, folder: Path) -> bytes:
    assert shutil.which("curl"), "curl is needed: apt-get install curl"
    script = script.replace("http://localhost:8080", str(client.base_url).rstrip("/")).replace("curl ", "curl -sSf ")
    done = subprocess.run(["bash", "-ec", script], capture_output=True, timeout=60, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def success(operation: Operation, media_type: str = JSON) -> dict[str, Any]:
    content: dict[str, Any] = operation.said["responses"]["200"]["content"][media_type]
    return content


def shown(operation: Operation, media_type: str = JSON) -> Any:
    (example,) = success(operation, media_type)["examples"].values()
    return resolved(example)["value"]


@every_operation
def test_the_curl_lines_of_an_operation_answer_as_documented(
    operation: Operation, shipped: httpx.Client, folder: Path
) -> None:
    for script in commands(operation.said["description"]):
        for command in re.split(r"\n(?=curl)", script):
            said = run(command, shipped, folder)
            if operation.path == "/metrics":
                lines = [line for line in shown(operation, "text/plain").splitlines() if line.startswith("#")]
                assert lines
                assert all(line in said.decode() for line in lines)
            elif "-o " in command:
                kept = (folder / command.rpartition("-o ")[2].strip()).read_bytes()
                assert kept.startswith(b"\x89PNG") if operation.path == "/explain" else len(kept) == 4 * 512
            else:
                answer = json.loads(said)
                check_schema(answer, success(operation)["schema"])
                if "lang=" not in command and "/infer" not in command:
                    assert_alike(shown(operation), answer)


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if one.method == "POST"], ids=lambda one: one.name)
def test_the_bodies_of_an_operation_answer_as_documented(operation: Operation, shipped: httpx.Client) -> None:
    path = operation.path.replace("{model}", examples.MODEL).replace("{version}", examples.VERSION)
    bodies = operation.said["requestBody"]["content"]
    for media_type, content in bodies.items():
        sent = [json.dumps(example["value"]).encode() for example in content.get("examples", {}).values()]
        # The image itself is in no document.
        if "image/*" in bodies and content["schema"].get("format") == "binary":
            sent.append(shipped.get(examples.IMAGE_PATH).content)
        for data in sent:
            headers = {"Content-Type": media_type.replace("*", "png"), "Accept": JSON}
            answer = shipped.post(path, content=data, headers=headers)
            assert answer.status_code == 200, answer.text
            check_schema(answer.json(), success(operation)["schema"])
            assert_alike(shown(operation), answer.json())


@every_operation
def test_answers_are_of_the_media_types_that_are_documented(operation: Operation, shipped: httpx.Client) -> None:
    path = operation.path.replace("{model}", examples.MODEL).replace("{version}", examples.VERSION)
    documented = operation.said["responses"]["200"]["content"]
    given = set()
    image = shipped.get(examples.IMAGE_PATH).content
    for accept in documented:
        request: dict[str, Any] = {}
        if operation.path == "/predict/batch":
            request = {"files": {"files": image}}
        elif operation.path.endswith("/infer"):
            wanted = {"parameters": {"binary_data_output": accept != JSON}, "outputs": None}
            request = {"json": {**examples.INFERENCE_REQUEST, **wanted}}
        elif operation.method == "POST":
            request = {"content": image, "headers": {"Accept": accept}}
        answer = shipped.request(operation.method, path, **request)
        assert answer.status_code == 200, answer.text
        given.add(answer.headers["content-type"].partition(";")[0])
    assert given == documented.keys()


# Errors


def codes_of(operation: Operation) -> dict[str, list[str]]:
    """Return the codes that are documented, each with the media types that it comes in."""
    found: dict[str, list[str]] = {}
    for status, response in operation.said["responses"].items():
        for media_type, content in response["content"].items():
            for code in content["examples"] if status != "200" else ():
                found.setdefault(code, []).append(media_type)
    return found


class Answer(NamedTuple):
    """What came: from httpx or from a bare socket."""

    status: int
    media_type: str
    body: Any


def parsed(response: httpx.Response) -> Answer:
    return Answer(response.status_code, response.headers["content-type"], response.json())


def on_the_wire(client: httpx.Client, sent: bytes) -> Answer:
    """Send ``sent`` as it is, and read one answer."""
    with connected(str(client.base_url)) as connection:
        connection.sendall(sent)
        fields, _, body = read_answer(connection).partition(b"\r\n\r\n")
    media_type = re.search(rb"(?i)content-type: (.+?)\r\n", fields + b"\r\n")
    assert media_type is not None, fields
    return Answer(int(fields.split()[1]), media_type[1].decode(), json.loads(body))


def body_of(operation: Operation, image: bytes = IMAGE, *, count: int = 1) -> dict[str, Any]:
    """Return a request for an operation that infers, as arguments of httpx."""
    if operation.path == "/predict/batch":
        return {"files": [("files", ("a.png", image))] * count}
    if operation.path.endswith("/infer"):
        data = [base64.b64encode(image).decode()] * count
        return {"json": {"inputs": [{"name": "image", "shape": [count], "datatype": "BYTES", "data": data}]}}
    return {"content": image}


class Broken(FakeClassifier):
    """A classifier that has neither maps nor vectors."""

    def explain(self, data: bytes, class_id: int | None = None, form: Any = "json") -> Any:
        raise OutputUnavailable(
            "Class activation maps need a network that ends in global average pooling and one linear layer. vgg11 does "
            "not, so its answers cannot be explained."
        )

    def embed(self, data: bytes, normalise: bool = False) -> Any:
        self.explain(data)


@contextmanager
def service(classifier: FakeClassifier | None = None, **settings: Any) -> Iterator[tuple[FastAPI, httpx.Client]]:
    app = create_app(Settings(**{"workers": 1, **settings}), classifier or FakeClassifier())
    with served(app) as client:
        yield app, client


def asked(
    client: httpx.Client, make: Callable[[Operation], dict[str, Any]], query: str = ""
) -> Callable[[Operation], Answer]:
    """Return what asks an operation with the request that ``make`` makes for it."""
    return lambda one: parsed(client.request(one.method, one.sent + query, **make(one)))


def sent(client: httpx.Client, make: Callable[[Operation], bytes]) -> Callable[[Operation], Answer]:
    """Return what sends an operation the bytes that ``make`` makes for it."""
    return lambda one: on_the_wire(client, make(one))


Ask = Callable[[Operation], Answer]


@contextmanager
def usual() -> Iterator[dict[str, Ask]]:
    """A healthy service, and requests with an error."""
    with service(max_batch=2) as (_, client):

        def no_file(one: Operation) -> dict[str, Any]:
            return {"files": {"other": b"x"}} if one.path == "/predict/batch" else body_of(one, b"")

        def other_type(one: Operation) -> dict[str, Any]:
            coding = {"Content-Encoding": "gzip"} if one.path.endswith("/infer") else {"Content-Type": "text/plain"}
            return {"content": b"hello", "headers": coding}

        def json_of(one: Operation, name: str) -> dict[str, Any]:
            return {"json": {"inputs": [{"name": name, "shape": [1], "datatype": "BYTES", "data": ["x"]}]}}

        def no_top_k(one: Operation) -> Answer:
            if one.path == "/":
                body = {"inputs": base64.b64encode(IMAGE).decode(), "parameters": {"top_k": 0}}
                return parsed(client.post("/", json=body))
            return asked(client, body_of, "?top_k=11")(one)

        def other_model(one: Operation) -> Answer:
            return parsed(client.request(one.method, one.sent.replace("/fake", "/other"), **body_of(one)))

        def too_much(one: Operation) -> bytes:
            return head(one.method, one.sent, Content_Length=40 * 2**20)

        multipart = {"content": b"hello", "headers": {"Content-Type": "multipart/form-data"}}
        wrong = "?normalize=perhaps&format=svg"
        yield {
            "no_file": asked(client, no_file),
            "malformed_form": asked(client, lambda one: multipart),
            "unsupported_media_type": asked(client, other_type),
            "not_an_image": asked(client, lambda one: body_of(one, b"%PDF-1.7")),
            "broken_image": asked(client, lambda one: body_of(one, IMAGE[:60])),
            "unsupported_image": asked(client, lambda one: body_of(one, DEEP)),
            "too_many_pixels": asked(client, lambda one: body_of(one, HUGE)),
            "too_many_pictures": asked(client, lambda one: body_of(one, count=3)),
            "malformed_json": asked(client, lambda one: {"content": b"{", "headers": {"Content-Type": JSON}}),
            "invalid_tensor": asked(client, lambda one: json_of(one, "unknown")),
            "unknown_model": other_model,
            "invalid_top_k": no_top_k,
            "invalid_class_id": asked(client, body_of, "?class_id=10"),
            "unsupported_language": asked(client, lambda one: body_of(one) if one.method == "POST" else {}, "?lang=fr"),
            "invalid_request": asked(client, body_of, wrong),
            "body_too_large": sent(client, too_much),
            "malformed_request": sent(client, lambda one: head(one.method, one.sent)[:-2] + b"no field\r\n\r\n"),
            "head_too_large": sent(client, lambda one: head(one.method, one.sent, X=20_000 * "x")),
        }


@contextmanager
def busy() -> Iterator[dict[str, Ask]]:
    """A service whose only slot is taken."""
    gate = threading.Event()
    with service(FakeClassifier(gate=gate), queue=0) as (app, client), ThreadPoolExecutor(1) as others:
        first = others.submit(client.post, "/predict", content=IMAGE)
        try:
            wait_for(lambda: app.state.service.executor.running == 1)
            yield {"overloaded": asked(client, body_of)}
        finally:
            gate.set()
            first.result(20)


@contextmanager
def full() -> Iterator[dict[str, Ask]]:
    """A service whose memory budget is used up, and one all of whose connections are busy."""
    gate = threading.Event()
    with (
        service() as (app, client),
        service(FakeClassifier(gate=gate), max_connections=1) as (working, other),
        connected(str(other.base_url)) as only,
    ):
        only.sendall(head(Content_Length=len(IMAGE)) + IMAGE)
        wait_for(lambda: bool(working.state.service.executor.running))
        app.state.body_budget.acquire(app.state.body_budget.limit)
        yield {
            "too_many_bytes": asked(client, body_of),
            "too_many_connections (busy)": sent(other, lambda one: head(one.method, one.sent)),
        }
        gate.set()


@contextmanager
def slow() -> Iterator[dict[str, Ask]]:
    """A service with slow clients, and one that is slow itself."""
    gate = threading.Event()

    def stuck(one: Operation) -> bytes:
        form = {"Content_Type": "multipart/form-data; boundary=x"} if one.path == "/predict/batch" else {}
        return head(one.method, one.sent, Content_Length=5, **form) + b"--x"

    with (
        service(header_seconds=1, body_seconds=1) as (_, client),
        service(FakeClassifier(gate=gate), queue=100, deadline=0.1) as (_, other),
    ):
        yield {
            "request_too_slow": sent(client, lambda one: head(one.method, one.sent)[:-2]),
            "request_too_slow (body)": sent(client, stuck),
            "deadline_exceeded": asked(other, body_of),
        }
        gate.set()


def decoding_too_large() -> DecodingTooLarge:
    with pytest.raises(DecodingTooLarge) as caught, taken_from(SharedBudget(2**20)) as take:
        take(2**21)
    return caught.value


@contextmanager
def broken() -> Iterator[dict[str, Ask]]:
    """A service that is not started, one whose network fails, and one that is shutting down."""
    unsound = FakeClassifier(failure=InvalidModelOutput("NaN"))
    with (
        service(unsound) as (_, client),
        service(FakeClassifier(failure=MemoryError())) as (_, short),
        service(FakeClassifier(failure=decoding_too_large())) as (_, small),
        service() as (app, other),
        service() as (ending, last),
        service(Broken()) as (_, limited),
    ):
        ending.state.service.health.draining = True
        unstarted = httpx.ASGITransport(create_app(Settings(), FakeClassifier()))
        app.state.body_budget.limit = None  # so that every request with a body fails unexpectedly

        def not_ready(one: Operation) -> Answer:
            async def ask() -> Answer:
                async with httpx.AsyncClient(transport=unstarted, base_url="http://test") as starting:
                    return parsed(await starting.request(one.method, one.sent, **body_of(one)))

            return asyncio.run(ask())

        yield {
            "unsound_output": asked(client, body_of),
            "out_of_resources": asked(short, body_of),
            "decoding_too_large": asked(small, body_of),
            "internal_error": sent(other, lambda one: head(one.method, one.sent, Content_Length=1) + b"x"),
            "output_unavailable": asked(limited, body_of),
            "not_ready": not_ready,
            "not_ready (draining)": asked(last, lambda one: {}),
        }


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not come to pass in time")


SITUATIONS = {
    usual: {
        *("no_file", "malformed_form", "unsupported_media_type", "not_an_image", "broken_image", "unsupported_image"),
        *("too_many_pixels", "too_many_pictures", "malformed_json", "invalid_tensor", "unknown_model", "invalid_top_k"),
        *("invalid_class_id", "unsupported_language", "invalid_request", "body_too_large", "malformed_request"),
        "head_too_large",
    },
    busy: {"overloaded"},
    full: {"too_many_bytes", "too_many_connections"},
    slow: {"request_too_slow", "deadline_exceeded"},
    broken: {
        "unsound_output",
        "out_of_resources",
        "decoding_too_large",
        "internal_error",
        "output_unavailable",
        "not_ready",
    },
}


def test_each_error_that_is_documented_is_provoked_below() -> None:
    provoked = set().union(*SITUATIONS.values())
    assert provoked == {code for one in OPERATIONS for code in codes_of(one)}


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.__name__)
def test_each_error_is_what_is_documented(situation: Callable[[], Any]) -> None:
    """Of each operation that documents it, and in the words of its example at least once."""
    with situation() as provocations:
        assert {name.partition(" ")[0] for name in provocations} == SITUATIONS[situation]
        pairs = [
            (name, one)
            for name in provocations
            for one in OPERATIONS
            if name.partition(" ")[0] in codes_of(one)
            and ("(body)" not in name or one.method == "POST")
            # Probes are still answered then, up to a number of further connections.
            and ("(busy)" not in name or not one.path.startswith(("/health/", "/v2/health/", "/metrics")))
            and ("(draining)" not in name or one.path.endswith("/ready"))
        ]
        with ThreadPoolExecutor(32) as clients:
            answers = list(clients.map(lambda pair: provocations[pair[0]](pair[1]), pairs))
    said: dict[str, set[str]] = {}
    for (name, one), answer in zip(pairs, answers, strict=True):
        code = name.partition(" ")[0]
        where = f"{one.name}: {name}: {answer}"
        assert answer.media_type in codes_of(one)[code], where
        content = one.said["responses"][str(answer.status)]["content"]
        assert code in content[answer.media_type]["examples"], where
        example = resolved(content[answer.media_type]["examples"][code])["value"]
        check_schema(answer.body, content[answer.media_type]["schema"])
        assert example.keys() == answer.body.keys(), where
        if answer.media_type == PROBLEM:
            assert {**example, "detail": ""} == {**answer.body, "detail": ""}, where
            said.setdefault(code, set()).add(masked(answer.body["detail"]))
        else:
            assert is_foreign(one.path), where
            said.setdefault(code, set()).add(masked(answer.body["error"]))
    for code, details in said.items():
        value = next(
            example["value"] for example in DOCUMENT["components"]["examples"].values() if example["summary"] == code
        )
        text = value.get("detail", value.get("error")).replace(examples.MODEL, "fake")
        assert masked(text) in details, (code, details)


def test_kinds_of_errors_are_described_in_the_words_of_the_tree() -> None:
    described = OPERATIONS[0].said["responses"]
    assert any(f"`{errors.HeadTooLarge.code}`" in response["description"] for response in described.values())
    for one in OPERATIONS:
        for status, response in one.said["responses"].items():
            codes = {code for content in response["content"].values() for code in content.get("examples", ())}
            if status != "200":
                assert codes == set(re.findall(r"^- `(\w+)`: \S", response["description"], re.MULTILINE))


def test_429_says_when_to_come_again() -> None:
    for one in OPERATIONS:
        if "429" in one.said["responses"]:
            assert one.said["responses"]["429"]["headers"].keys() == {"Retry-After"}
    assert document.TAGS
