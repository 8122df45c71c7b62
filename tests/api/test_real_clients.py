"""Real clients, in their everyday use: curl, requests, aiohttp, httpx, Node's fetch and Java's HttpClient."""

import asyncio
import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from resnet_service.api.app import create_app
from resnet_service.inference.fake import FakeClassifier
from resnet_service.settings import Settings
from tests.support.images import encoded, noise
from tests.support.servers import served

IMAGE = encoded(noise(40, 30), "JPEG")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(create_app(Settings(), FakeClassifier())) as client:
        yield f"{client.base_url}/predict"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "cat é.jpg"
    path.write_bytes(IMAGE)
    return path


def run(*command: str | Path) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def curl(url: str, *arguments: str | Path) -> Any:
    return json.loads(run("curl", "--silent", "--show-error", *arguments, url))


def classes(answer: Any) -> int:
    assert "predictions" in answer, answer
    return len(answer["predictions"])


def test_curl(url: str, image: Path) -> None:
    assert classes(curl(url, "-F", f"file=@{image}")) == 3
    assert classes(curl(url, "-F", f"file=@{image}", "-F", "top_k=1")) == 1
    assert classes(curl(url, "-F", f"file=<{image}")) == 3, "the content of a file, without its name"
    assert classes(curl(url, "--data-binary", f"@{image}")) == 3
    assert classes(curl(url, "-T", image, "-X", "POST")) == 3
    assert "-F file=@" in curl(url, "-F", f"file={image.name}")["detail"]
    assert "--data-binary @" in curl(url, "-H", "Content-Type: image/jpeg", "-d", image.name)["detail"]
    assert "boundary" in curl(url, "-H", "Content-Type: multipart/form-data", "--data-binary", f"@{image}")["detail"]
    assert run("curl", "--silent", "--head", url.replace("/predict", "/health/live")).startswith("HTTP/1.1 200")


def test_requests(url: str, image: Path) -> None:
    requests: Any = pytest.importorskip("requests", reason="requests is not installed")
    with image.open("rb") as file:
        assert classes(requests.post(url, files={"file": file}, data={"top_k": 1}, timeout=10).json()) == 1
    assert classes(requests.post(url, files={"file": IMAGE}, timeout=10).json()) == 3
    assert classes(requests.post(url, files={"file": (None, IMAGE)}, timeout=10).json()) == 3
    assert classes(requests.post(url, data=IMAGE, timeout=10).json()) == 3


def test_httpx(url: str, image: Path) -> None:
    with image.open("rb") as file:
        assert classes(httpx.post(url, files={"file": file}, data={"top_k": "1"}).json()) == 1
    assert classes(httpx.post(url, files={"file": (None, IMAGE)}).json()) == 3
    assert classes(httpx.post(url, content=IMAGE).json()) == 3


def test_aiohttp(url: str) -> None:
    aiohttp: Any = pytest.importorskip("aiohttp", reason="aiohttp is not installed")

    async def ask(data: Any) -> Any:
        async with aiohttp.ClientSession() as session, session.post(url, data=data) as answer:
            return await answer.json(content_type=None)

    named = aiohttp.FormData()
    named.add_field("file", io.BytesIO(IMAGE), filename="cat é.jpg", content_type="image/jpeg")
    named.add_field("top_k", "1")
    assert classes(asyncio.run(ask(named))) == 1
    assert classes(asyncio.run(ask({"file": io.BytesIO(IMAGE)}))) == 3
    assert classes(asyncio.run(ask(IMAGE))) == 3


NODE = """
const [url, path] = process.argv.slice(1);
const image = require("fs").readFileSync(path);
const form = (...fields) => {
  const made = new FormData();
  fields.forEach((field) => made.append(...field));
  return made;
};
const blob = new Blob([image], { type: "image/jpeg" });
const named = form(["file", blob, "cat é.jpg"], ["top_k", "1"]);
const bodies = [named, form(["file", blob]), blob, image, form(["file", "cat.jpg"])];
(async () => {
  const answers = [];
  for (const body of bodies) answers.push(await (await fetch(url, { method: "POST", body })).json());
  console.log(JSON.stringify(answers));
})();
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_fetch_of_node(url: str, image: Path) -> None:
    *answers, refused = json.loads(run("node", "-e", NODE, url, image))
    assert [classes(answer) for answer in answers] == [1, 3, 3, 3]
    assert "'cat.jpg'" in refused["detail"]


JAVA = """
import java.io.*;
import java.net.*;
import java.net.http.*;
import java.nio.file.*;

class Send {
    static HttpClient client = HttpClient.newHttpClient();

    static String send(HttpRequest.Builder request, HttpRequest.BodyPublisher body) throws Exception {
        return client.send(request.POST(body).build(), HttpResponse.BodyHandlers.ofString()).body();
    }

    public static void main(String[] arguments) throws Exception {
        URI url = URI.create(arguments[0]);
        byte[] image = Files.readAllBytes(Path.of(arguments[1]));
        ByteArrayOutputStream form = new ByteArrayOutputStream();
        form.write("--B\\r\\nContent-Disposition: form-data; name=\\"file\\"\\r\\n\\r\\n".getBytes());
        form.write(image);
        form.write("\\r\\n--B\\r\\nContent-Disposition: form-data; name=\\"top_k\\"\\r\\n\\r\\n1".getBytes());
        form.write("\\r\\n--B--\\r\\n".getBytes());
        var raw = HttpRequest.BodyPublishers.ofByteArray(image);
        var whole = HttpRequest.BodyPublishers.ofByteArray(form.toByteArray());
        System.out.println(send(HttpRequest.newBuilder(url), raw));
        var declared = HttpRequest.newBuilder(url).header("Content-Type", "multipart/form-data; boundary=B");
        System.out.println(send(declared, whole));
        HttpURLConnection connection = (HttpURLConnection) url.toURL().openConnection();
        connection.setDoOutput(true);
        connection.getOutputStream().write(image);
        System.out.println(new String(connection.getInputStream().readAllBytes()));
        System.out.println(send(HttpRequest.newBuilder(url), whole));
    }
}
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("javac") is None, reason="the JDK is not installed")
def test_clients_of_java(url: str, image: Path, tmp_path: Path) -> None:
    source, plain = tmp_path / "Send.java", tmp_path / "cat.jpg"
    source.write_text(JAVA)
    shutil.copy(image, plain)
    *answers, refused = map(json.loads, run("java", source, url, plain).splitlines())
    assert [classes(answer) for answer in answers] == [3, 1, 3]
    assert "The body is a form" in refused["detail"]
