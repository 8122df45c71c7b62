"""API keys: what is kept of them, what they close, and what stays open; CORS, which goes with them."""

import hmac
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest

from resnet_service.api.app import create_app
from resnet_service.api_keys import KeyRing, Keys
from resnet_service.errors import InvalidSettings
from resnet_service.inference.fake import FakeClassifier
from resnet_service.settings import Settings, load_settings
from tests.support.images import encoded, noise
from tests.support.servers import REPOSITORY, cli, served, server_process
from tests.support.wire import connected, head, read_answer

OLD, NEW, THIRD = "the-old-key-0123456789", "the-new-key-0123456789", "a-third-key-0123456789"
IMAGE = encoded(noise(40, 30), "JPEG")
EXPORTED = REPOSITORY / "checkpoints" / "resnet18-fashion-mnist-int8.onnx"
OPEN = [
    "/",
    "/web/app.js",
    "/web/style.css",
    "/docs",
    "/docs/swagger-ui-bundle.js",
    "/openapi.json",
    "/health/live",
    "/health/ready",
    "/v2/health/live",
    "/v2/health/ready",
]
CLOSED = [
    "/labels",
    "/metadata",
    "/docs/",
    "/docs/other.js",
    "/predict",
    "/nothing",
    "/health",
    "/health/live/",
    "/%2F",
    "/metrics",
]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def assert_unauthorized(response: httpx.Response) -> None:
    assert response.status_code == HTTPStatus.UNAUTHORIZED
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert response.json()["code"] == "unauthorized"
    assert "X-API-Key" in response.json()["detail"]


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    settings = Settings(api_keys=Keys([OLD, NEW]), metrics_open=False, cors_origins=("https://shop.example",))
    with served(create_app(settings, FakeClassifier())) as client:
        yield client


def test_what_is_open_is_open_for_reading(client: httpx.Client) -> None:
    """The page is at the very path that Hugging Face's client posts images to."""
    assert client.get("/").status_code == HTTPStatus.OK
    refused = client.post("/", content=IMAGE, headers={"Content-Type": "image/jpeg"})
    assert refused.status_code == HTTPStatus.UNAUTHORIZED
    assert set(refused.json()) == {"error"}  # as that client reads it
    allowed = client.post("/", content=IMAGE, headers={"Content-Type": "image/jpeg", **bearer(NEW)})
    assert allowed.status_code == HTTPStatus.OK


# What is kept


def test_only_the_keys_themselves_are_accepted() -> None:
    keys = Keys.parse(f"{OLD}, {NEW},")
    assert len(keys) == 2
    assert keys.accept(OLD.encode())
    assert keys.accept(NEW.encode())
    for wrong in ("", OLD[:-1], f"{OLD}x", OLD.upper(), f"{OLD},{NEW}", f" {OLD}", f"{OLD}\0"):
        assert not keys.accept(wrong.encode()), wrong


def test_of_a_key_only_its_digest_is_kept(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(NEW)
    settings = Settings(api_keys=OLD, api_keys_file=tmp_path / "keys")  # as the variable
    assert isinstance(settings.api_keys, Keys)
    ring = KeyRing(settings.api_keys, settings.api_keys_file)
    assert ring.keys.accept(OLD.encode())
    assert ring.keys.accept(NEW.encode())
    kept = [repr(settings), str(settings), repr(ring.keys), str(settings.model_dump()), str(pickle.dumps(ring))]
    for key in (OLD, NEW):
        assert not [text for text in kept if key in text]


def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def spy(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    keys = Keys([OLD, NEW, THIRD])
    for presented in (OLD, THIRD, "none of them"):
        compared.clear()
        keys.accept(presented.encode())
        assert len(compared) == 3
        assert {len(digest) for pair in compared for digest in pair} == {32}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no key"),
        (" , ,", "no key"),
        (f"{OLD},fifteen-letters", "key 2 has 15 characters"),
        ("x" * 513, "key 1 has 513 characters"),
        ("sixteen characters", "key 1 has characters"),
        ("schlüssel-schlüssel", "key 1 has characters"),
    ],
)
def test_weak_and_odd_keys_are_refused_and_not_repeated(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys").write_text(text.replace(",", "\n"))
    with pytest.raises(InvalidSettings, match=said):
        Keys.read(tmp_path / "keys")
    monkeypatch.setenv("RESNET_SERVICE_API_KEYS", text)
    with pytest.raises(InvalidSettings, match=said) as caught:
        load_settings()
    everything = "".join(traceback.format_exception(caught.value))
    for key in filter(str.strip, text.split(",")):
        assert key not in everything


def test_a_file_may_have_comments_and_any_line_ends(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(f"# since May\r\n{OLD}\r\n\r\n  {NEW}  \n# end".encode())
    keys = Keys.read(tmp_path / "keys")
    assert len(keys) == 2
    assert keys.accept(NEW.encode())


@pytest.mark.parametrize(("name", "said"), [("none", "does not exist"), (".", "not a file"), ("large", "65,536 bytes")])
def test_files_that_are_none_are_refused(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "large").write_text(f"{OLD}\n" * 5000)
    with pytest.raises(InvalidSettings, match=said):
        Keys.read(tmp_path / name)


def test_a_file_that_got_worse_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "keys"
    file.write_text(OLD)
    ring = KeyRing(None, file)
    file.write_text("")
    ring.reload()
    assert ring.keys.accept(OLD.encode())
    assert "the old keys stay valid" in caplog.text
    file.write_text(NEW)
    ring.reload()
    assert not ring.keys.accept(OLD.encode())
    assert ring.keys.accept(NEW.encode())


# What they close


@pytest.mark.parametrize("path", OPEN)
def test_probes_and_the_page_need_no_key(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == HTTPStatus.OK


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS", "DELETE"])
@pytest.mark.parametrize("path", CLOSED)
def test_everything_else_needs_one(client: httpx.Client, path: str, method: str) -> None:
    response = client.request(method, path)
    if method == "HEAD":
        assert response.status_code == HTTPStatus.UNAUTHORIZED
    else:
        assert_unauthorized(response)


@pytest.mark.parametrize(
    "headers",
    [
        bearer(OLD),
        bearer(NEW),
        {"authorization": f"bearer   {NEW}"},
        {"X-API-Key": OLD},
        {"X-API-Key": NEW, "Authorization": "Basic dXNlcjpwYXNz"},
        {"X-API-Key": "wrong", **bearer(OLD)},
    ],
)
def test_each_key_opens_in_each_way(client: httpx.Client, headers: dict[str, str]) -> None:
    assert client.post("/predict", content=IMAGE, headers=headers).status_code == HTTPStatus.OK
    assert client.get("/labels", headers=headers).status_code == HTTPStatus.OK
    assert client.get("/nothing", headers=headers).status_code == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize(
    "headers",
    [
        bearer(THIRD),
        {"Authorization": "Bearer"},
        bearer(f"{OLD},{NEW}"),
        {"Authorization": OLD},
        {"Authorization": f"Basic {OLD}"},
        {"X-API-Key": f"Bearer {OLD}"},
        {"X-API-Key": ""},
        {"Cookie": f"X-API-Key={OLD}"},
    ],
)
def test_nothing_else_opens(client: httpx.Client, headers: dict[str, str]) -> None:
    response = client.post("/predict", params={"api_key": OLD, "X-API-Key": OLD}, content=IMAGE, headers=headers)
    assert_unauthorized(response)
    for key in (OLD, NEW, THIRD):
        assert key not in response.text


def test_without_a_key_no_body_is_read(client: httpx.Client) -> None:
    with connected(str(client.base_url)) as connection:
        connection.sendall(head(Content_Length=10**9, Expect="100-continue"))
        answer = read_answer(connection)
    assert answer.startswith(b"HTTP/1.1 401 ")
    # EarlyResponseMiddleware saw it, as its header shows: a client can read the answer while it is still sending.
    assert b"connection: close" in answer.lower()


def test_without_a_key_no_slot_is_taken() -> None:
    gate = threading.Event()
    classifier = FakeClassifier(gate=gate)
    with served(create_app(Settings(workers=1, queue=0, api_keys=Keys([OLD])), classifier)) as client:

        def ask() -> None:
            client.post("/predict", content=IMAGE, headers=bearer(OLD))

        busy = threading.Thread(target=ask)
        try:
            assert_unauthorized(client.post("/predict", content=IMAGE))
            busy.start()
            deadline = time.monotonic() + 10
            while not classifier.started and time.monotonic() < deadline:
                time.sleep(0.01)
            assert client.post("/predict", content=IMAGE, headers=bearer(OLD)).status_code == 429
            assert_unauthorized(client.post("/predict", content=IMAGE))
        finally:
            gate.set()
            busy.join(10)


@pytest.mark.parametrize(("metrics_open", "status"), [(True, HTTPStatus.OK), (False, HTTPStatus.UNAUTHORIZED)])
def test_metrics_are_open_or_not_as_set(metrics_open: bool, status: HTTPStatus) -> None:
    app = create_app(Settings(api_keys=Keys([OLD]), metrics_open=metrics_open), FakeClassifier())
    if "/metrics" not in app.openapi()["paths"]:
        app.add_api_route("/metrics", lambda: "")
    with served(app) as client:
        assert client.get("/metrics").status_code == status


def test_openapi_says_what_is_needed(client: httpx.Client) -> None:
    document = client.get("/openapi.json", headers=bearer(OLD)).json()
    schemes = document["components"]["securitySchemes"]
    assert schemes["bearer"]["scheme"] == "bearer"
    assert schemes["header"]["name"] == "X-API-Key"
    assert document["security"] == [{"bearer": []}, {"header": []}]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            is_open = path in OPEN and method == "get"
            assert operation.get("security", document["security"]) == ([] if is_open else document["security"])
            assert ("401" in operation["responses"]) == (not is_open)


def test_without_keys_nothing_is_asked_for() -> None:
    app = create_app(Settings(), FakeClassifier())
    assert "securitySchemes" not in app.openapi()["components"]
    assert app.openapi()["security"] == []
    with served(app) as client:
        assert client.get("/labels").status_code == HTTPStatus.OK


# The process


def test_keys_rotate_while_it_serves(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(OLD)

    def until_said(said: str, times: int = 1) -> None:
        deadline = time.monotonic() + 20
        while server.log.count(said) < times:
            assert time.monotonic() < deadline, server.log
            time.sleep(0.02)

    def statuses() -> list[int]:
        answers = (httpx.get(f"{server.url}/labels", headers=bearer(key)) for key in (OLD, NEW, THIRD))
        return [answer.status_code for answer in answers]

    arguments = ("--checkpoint", EXPORTED, "--api-keys-file", file, "--log-level", "debug")
    with server_process(*arguments, RESNET_SERVICE_API_KEYS=THIRD) as server:
        assert statuses() == [200, 401, 200]
        file.write_text(f"{OLD}\n{NEW}\n")
        server.process.send_signal(signal.SIGHUP)
        until_said("API keys read again; accepted now: 3")
        assert statuses() == [200, 200, 200]
        file.write_text(f"{NEW}\n")
        server.process.send_signal(signal.SIGHUP)
        until_said("API keys read again; accepted now: 2")
        assert statuses() == [401, 200, 200]
        file.write_text("short")
        server.process.send_signal(signal.SIGHUP)
        until_said("the old keys stay valid")
        assert statuses() == [401, 200, 200]
        httpx.post(f"{server.url}/predict", content=IMAGE, headers=bearer(NEW)).raise_for_status()
    for key in (OLD, NEW, THIRD, "short"):
        assert key not in server.log.replace(str(file), "")


@pytest.mark.parametrize("content", ["# none yet\n", "too-short\n"])
def test_a_bad_file_ends_the_start_in_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(content)
    done = cli("serve", "--checkpoint", EXPORTED, "--port", "0", "--api-keys-file", tmp_path / "keys")
    assert done.returncode == 1
    assert done.stderr.startswith("error: The file of API keys")
    assert done.stderr.count("\n") == 1
    assert "too-short" not in done.stderr


def test_a_weak_key_ends_the_start_in_one_line() -> None:
    done = cli("serve", "--checkpoint", EXPORTED, "--port", "0", RESNET_SERVICE_API_KEYS="hunter2")
    assert done.returncode == 1
    assert "key 1 has 7 characters" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "hunter2" not in done.stderr


def test_keys_are_no_flag() -> None:
    """Everybody on a machine can read everybody's command lines."""
    done = cli("serve", "--api-keys", OLD)
    assert done.returncode == 2
    assert "No such option" in done.stderr


def test_the_variable_is_forgotten_once_it_is_read() -> None:
    """What a crash dump or a child process would show of the environment."""
    script = (
        "import os, typer, resnet_service.cli.app as cli\n"
        "try: cli.serve(checkpoint='/nowhere/model.pth', port=0)\n"
        "except typer.Exit: pass\n"
        "print(sorted(name for name in os.environ if name.startswith('RESNET_SERVICE_')))"
    )
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RESNET_SERVICE_")}
    environment = {**inherited, "RESNET_SERVICE_API_KEYS": OLD, "RESNET_SERVICE_WORKERS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True, env=environment
    )
    assert "no model file" in done.stderr
    assert done.stdout.strip() == "['RESNET_SERVICE_WORKERS']"


# CORS


def preflight(client: httpx.Client, origin: str) -> httpx.Response:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, x-api-key",
    }
    return client.options("/predict", headers=headers)


def test_named_origins_may_ask_without_a_key_and_read_every_answer(client: httpx.Client) -> None:
    allowed = preflight(client, "https://shop.example")
    assert allowed.status_code == HTTPStatus.OK
    assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
    assert {"authorization", "x-api-key"} <= set(allowed.headers["access-control-allow-headers"].lower().split(", "))
    assert "access-control-allow-credentials" not in allowed.headers
    origin = {"Origin": "https://shop.example"}
    for headers in (origin, {**origin, **bearer(OLD)}):
        answer = client.get("/labels", headers=headers)
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
        assert "Origin" in answer.headers["vary"].split(", ")


@pytest.mark.parametrize("origin", ["https://shop.example.evil", "http://shop.example", "null"])
def test_other_origins_may_not(client: httpx.Client, origin: str) -> None:
    assert preflight(client, origin).status_code == HTTPStatus.BAD_REQUEST
    answer = client.get("/labels", headers={"Origin": origin, **bearer(OLD)})
    assert "access-control-allow-origin" not in answer.headers


def test_by_default_no_other_origin_may() -> None:
    with served(create_app(Settings(), FakeClassifier())) as client:
        refused = preflight(client, "https://shop.example")
        assert refused.status_code == HTTPStatus.METHOD_NOT_ALLOWED
        answer = client.get("/labels", headers={"Origin": "https://shop.example"})
        assert not [name for response in (refused, answer) for name in response.headers if name.startswith("access-")]


def test_all_origins_may_where_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNET_SERVICE_CORS_ORIGINS", "*")
    with served(create_app(load_settings(), FakeClassifier())) as client:
        assert preflight(client, "https://anywhere.example").headers["access-control-allow-origin"] == "*"


def test_origins_are_checked() -> None:
    assert load_settings(cors_origins="https://a.example, http://localhost:3000").cors_origins == (
        "https://a.example",
        "http://localhost:3000",
    )
    assert load_settings(cors_origins="").cors_origins == ()
    for wrong in ("https://a.example/", "a.example", "*,https://a.example", "https://*.example", "https://A.example"):
        with pytest.raises(InvalidSettings, match="not an origin such as"):
            load_settings(cors_origins=wrong)
