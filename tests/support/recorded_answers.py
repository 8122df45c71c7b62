"""What the inference routes answer to requests of every kind, for comparison with answers that were recorded.

    python -m tests.support.recorded_answers

writes them again; look at every difference before you commit it.
"""

import hashlib
import json
import re
from pathlib import Path

import httpx

from resnet_service.api.app import create_app
from resnet_service.inference.fake import FakeClassifier
from resnet_service.settings import Settings
from tests.support.images import encoded, noise
from tests.support.servers import served

RECORDED = Path(__file__).parents[1] / "api" / "recorded_answers.json"
LIMIT = 20_000

_IMAGE = encoded(noise(40, 30), "PNG")
_RAW = {"Content-Type": "image/png"}
_JSON = {"Content-Type": "application/json"}
# Different in every answer.
_VOLATILE = ("date", "server", "x-request-id", "server-timing")
_TIMING = re.compile(r'("timing_ms":\{)[^}]*\}')
_BOUNDARY = "0123456789abcdef"
_FORM = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}


def part(disposition: str, data: bytes = b"text", *fields: str) -> bytes:
    """Return one part of a form, with further header fields."""
    head = "\r\n".join([f"--{_BOUNDARY}", f"Content-Disposition: form-data; {disposition}", *fields])
    return head.encode("latin-1") + b"\r\n\r\n" + data + b"\r\n"


FILE = part('name="file"; filename="a.png"', _IMAGE, "Content-Type: image/png")
TEXT = part('name="other"')
END = f"--{_BOUNDARY}--\r\n".encode()

_FORMS = {
    "form": FILE + END,
    "form, text beside": TEXT + FILE + TEXT + END,
    "form, two files": FILE + FILE + END,
    "form, other field": part('name="other"; filename="a.png"', _IMAGE) + END,
    "form, text for file": part('name="file"') + END,
    "form, text before file": part('name="file"') + FILE + END,
    "form, text after file": FILE + part('name="file"') + END,
    "form, empty file": part('name="file"; filename="a.png"', b"") + END,
    "form, empty name of the file": part('name="file"; filename=""', _IMAGE) + END,
    "form, file without an end": FILE[:-40],
    "form, without its last boundary": FILE,
    "form, without parts": END,
    "form, empty": b"",
    "form, preamble": b"preamble\r\n" + FILE + END,
    "form, epilogue": FILE + END + b"epilogue",
    "form, no name": part('filename="a.png"', _IMAGE) + END,
    "form, no disposition": f"--{_BOUNDARY}\r\nX-Field: a\r\n\r\n".encode() + _IMAGE + b"\r\n" + END,
    "form, eight texts": TEXT * 8 + FILE + END,
    "form, nine texts": TEXT * 9 + FILE + END,
    "form, malformed header": f"--{_BOUNDARY}\r\nno colon\r\n\r\n".encode() + _IMAGE + b"\r\n" + END,
    "form, many headers": part('name="file"; filename="a.png"', _IMAGE, *["X-Field: a"] * 30) + END,
    "form, long header": part('name="file"; filename="a.png"', _IMAGE, "X-Field: " + "a" * 9000) + END,
    "form, names in capitals": FILE.replace(b"Content-Disposition", b"CONTENT-DISPOSITION") + END,
    "form, extended name": part("name=\"file\"; filename*=utf-8''a%20b.png", _IMAGE) + END,
    "form, path as name": part('name="file"; filename="C:\\\\a\\\\b.png"', _IMAGE) + END,
}

_Request = tuple[str, str, bytes, dict[str, str]]

REQUESTS: dict[str, _Request] = {
    **{name: ("POST", "/predict", body, _FORM) for name, body in _FORMS.items()},
    "form, no boundary": ("POST", "/predict", FILE + END, {"Content-Type": "multipart/form-data"}),
    "form, long boundary": (
        "POST",
        "/predict",
        FILE + END,
        {"Content-Type": f"multipart/form-data; boundary={'a' * 300}"},
    ),
    "form, charset": ("POST", "/predict", FILE + END, {"Content-Type": f"{_FORM['Content-Type']}; charset=latin-1"}),
    "form, quoted boundary": (
        "POST",
        "/predict",
        FILE + END,
        {"Content-Type": f'Multipart/Form-Data; boundary="{_BOUNDARY}"'},
    ),
    **{
        f"predict{query}": ("POST", f"/predict{query}", _IMAGE, _RAW)
        for query in (
            "",
            "?top_k=1",
            "?top_k=0",
            "?top_k=9",
            "?top_k=",
            "?top_k=many",
            "?top_k=1&top_k=2",
            "?lang=zh",
            "?lang=fr",
            "?lang=fr&top_k=0",
            "?lang=",
            "?unknown=1",
        )
    },
    "predict, language": ("POST", "/predict", _IMAGE, {**_RAW, "Accept-Language": "zh, en;q=0.5"}),
    "predict, no type": ("POST", "/predict", _IMAGE, {}),
    "predict, text": ("POST", "/predict", _IMAGE, {"Content-Type": "text/plain"}),
    "predict, empty": ("POST", "/predict", b"", _RAW),
    "predict, no image": ("POST", "/predict", b"%PDF-1.7", _RAW),
    "predict, too large": ("POST", "/predict", b"a" * (LIMIT + 1), _RAW),
    "predict, put": ("PUT", "/predict", _IMAGE, _RAW),
    "predict, get": ("GET", "/predict", b"", {}),
    "predict, slash": ("POST", "/predict/", _IMAGE, _RAW),
    "batch": ("POST", "/predict/batch", (FILE + FILE).replace(b'"file"', b'"files"') + END, _FORM),
    "batch, three": ("POST", "/predict/batch", (FILE * 3).replace(b'"file"', b'"files"') + END, _FORM),
    "batch, text": ("POST", "/predict/batch", part('name="files"') + END, _FORM),
    "batch, none": ("POST", "/predict/batch", FILE + END, _FORM),
    "batch, broken": (
        "POST",
        "/predict/batch?top_k=2",
        FILE.replace(b'"file"', b'"files"') + part('name="files"; filename="\xe9.txt"', b"hello") + END,
        _FORM,
    ),
    "batch, raw": ("POST", "/predict/batch", _IMAGE, _RAW),
    "batch, top_k": ("POST", "/predict/batch?top_k=0", FILE + END, _FORM),
    "embed": ("POST", "/embed", _IMAGE, _RAW),
    "embed, form": ("POST", "/embed?normalize=true", FILE + END, _FORM),
    "embed, binary": ("POST", "/embed", _IMAGE, {**_RAW, "Accept": "application/octet-stream"}),
    "embed, normalize": ("POST", "/embed?normalize=perhaps", _IMAGE, _RAW),
    "explain": ("POST", "/explain", _IMAGE, _RAW),
    "explain, json": ("POST", "/explain?format=json&class_id=1&lang=en", _IMAGE, _RAW),
    "explain, accept": ("POST", "/explain", _IMAGE, {**_RAW, "Accept": "application/json"}),
    "explain, format": ("POST", "/explain?format=gif&class_id=a", _IMAGE, _RAW),
    "explain, class": ("POST", "/explain?class_id=7", _IMAGE, _RAW),
    "hub": ("POST", "/", _IMAGE, _RAW),
    "hub, json": ("POST", "/", b'{"inputs": "aGVsbG8="}', _JSON),
    "hub, malformed": ("POST", "/", b'{"inputs": 1}', _JSON),
    "v2, other model": ("POST", "/v2/models/other/infer", b"{}", _JSON),
    "v2, other version": ("POST", "/v2/models/fake/versions/1/infer", b"{}", _JSON),
    "v2, malformed": ("POST", "/v2/models/fake/infer", b"{", _JSON),
    "v2, compressed": ("POST", "/v2/models/fake/infer", b"{}", {**_JSON, "Content-Encoding": "gzip"}),
}


def answers() -> dict[str, dict[str, object]]:
    """Send every request to a server, and return what it answers, without what differs each time."""
    settings = Settings(max_body_bytes=LIMIT, max_batch=2)
    with served(create_app(settings, FakeClassifier())) as client:
        return {name: _answer(client, *request) for name, request in REQUESTS.items()}


def _answer(client: httpx.Client, method: str, path: str, body: bytes, headers: dict[str, str]) -> dict[str, object]:
    response = client.request(method, path, content=body, headers={"Accept": "*/*", **headers})
    fields = {name: value for name, value in response.headers.items() if name not in _VOLATILE}
    if "timing_ms" in response.text:
        del fields["content-length"]
    media_type = response.headers.get("content-type", "")
    text = _TIMING.sub(r"\1}", response.text) if "json" in media_type else hashlib.sha256(response.content).hexdigest()
    return {"status": response.status_code, "headers": sorted(map(list, fields.items())), "body": text}


if __name__ == "__main__":
    RECORDED.write_text(json.dumps(answers(), indent=1, ensure_ascii=False) + "\n")
