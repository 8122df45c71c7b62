"""The bodies that everyday clients send for an image, as raw bytes, and those that they send by mistake."""

import base64
import gzip
import json
import urllib.parse
from typing import NamedTuple


class Body(NamedTuple):
    """A request's body and its Content-Type; without one if that is empty."""

    media_type: str
    data: bytes


def form(boundary: str, *parts: tuple[tuple[str, ...], bytes], declared: str = "", end: str = "\r\n") -> Body:
    """Return a form of these parts, each with its header fields."""
    pieces = [
        b"".join([f"--{boundary}\r\n".encode(), *(f"{field}\r\n".encode() for field in fields), b"\r\n", data, b"\r\n"])
        for fields, data in parts
    ]
    media_type = declared or f"multipart/form-data; boundary={boundary}"
    return Body(media_type, b"".join(pieces) + f"--{boundary}--{end}".encode())


def fields(values: dict[str, str], boundary: str = "fields") -> bytes:
    """Return parts with these values, without the last boundary."""
    return b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in values.items()
    )


_NAMED = 'Content-Disposition: form-data; name="{field}"; filename="cat.jpg"'
_UNNAMED = 'Content-Disposition: form-data; name="{field}"'
_JPEG, _OCTETS = "Content-Type: image/jpeg", "Content-Type: application/octet-stream"
_HEX = "5bd3ae5ba39b4c23a4c40ccbff9e2d33"
_DASHED = "--------------------------905191404154484336597275"
_GUID = "3f6cf34c-1d2a-4e0b-9d2c-7f3f8c0f5a11"


def forms(image: bytes, field: str = "file") -> dict[str, Body]:
    """Return forms that have the image in ``field``, by the client that writes them so."""

    def one(boundary: str, *head: str, declared: str = "", end: str = "\r\n") -> Body:
        return form(boundary, (tuple(line.format(field=field) for line in head), image), declared=declared, end=end)

    return {
        "curl -F": one("------------------------d74496d66958873e", _NAMED, _JPEG),
        "requests, file": one(_HEX, _NAMED),
        "requests, bytes without a name": one(_HEX, _UNNAMED),
        "aiohttp": one(_HEX, _JPEG, _NAMED),
        "aiohttp, bytes": one(_HEX, _OCTETS, _UNNAMED),
        "httpx": one(_HEX, _NAMED, _JPEG),
        "form-data of Node, stream": one(_DASHED, _NAMED, _JPEG),
        "form-data of Node, buffer": one(_DASHED, _UNNAMED, _OCTETS),
        "axios": one("axios-1.7.9-boundary-Zq3fKo0v6tYp", _NAMED, _JPEG),
        "undici": one("----formdata-undici-036281924137", _NAMED.replace("cat.jpg", "blob"), _OCTETS, end=""),
        "Chromium": one("----WebKitFormBoundary7MA4YWxkTrZu0gW", _NAMED, _JPEG),
        "Firefox": one("----geckoformboundary7a1f9c0d2e", _NAMED, _JPEG),
        "Apache HttpClient": one("xU7mP-3bQ_k", _NAMED, _JPEG, "Content-Transfer-Encoding: binary"),
        "Java's HttpClient, written by hand": one("Boundary", _NAMED),
        "OkHttp": one(_GUID, _NAMED, _JPEG, f"Content-Length: {len(image)}"),
        "Spring": one(_HEX, _NAMED, _JPEG, declared=f"multipart/form-data;boundary={_HEX};charset=UTF-8"),
        ".NET, stream": one(
            _GUID,
            _JPEG,
            "Content-Disposition: form-data; name={field}; filename=cat.jpg; filename*=utf-8''cat.jpg",
            declared=f'multipart/form-data; boundary="{_GUID}"',
        ),
        ".NET, name beyond ASCII": one(
            _GUID,
            'Content-Disposition: form-data; name={field}; filename="=?utf-8?B?w6kuanBn?="; '
            "filename*=utf-8''%C3%A9.jpg",
            declared=f'multipart/form-data; boundary="{_GUID}"',
        ),
        ".NET, bytes without a name": one(
            _GUID,
            "Content-Disposition: form-data; name={field}",
            declared=f'multipart/form-data; boundary="{_GUID}"',
        ),
        "extended name alone": one(
            _HEX, "Content-Disposition: form-data; name=\"{field}\"; filename*=UTF-8''c%20t.jpg"
        ),
        "Go": one(_HEX * 2, _NAMED, _OCTETS),
        "Guzzle": one(_HEX, _NAMED, f"Content-Length: {len(image)}", _JPEG),
        "Dart": one("dart-http-boundary-Qk2_tG7", _JPEG.lower(), _NAMED.replace("Content-D", "content-d")),
        "Rails, empty field before": form(
            _HEX, ((_UNNAMED.format(field=field),), b""), ((_NAMED.format(field=field), _JPEG), image)
        ),
        "text for a type": one(_HEX, _UNNAMED, "Content-Type: text/plain; charset=utf-8"),
    }


def raw(image: bytes) -> dict[str, Body]:
    """Return the image itself, under the types that clients declare for it by default."""
    return {
        "curl --data-binary, wget, axios, HttpURLConnection": Body("application/x-www-form-urlencoded", image),
        "files of S3": Body("binary/octet-stream", image),
        "Java's HttpClient, .NET's ByteArrayContent, undici": Body("", image),
        "OkHttp, raw": Body("image/jpg", image),
        "resnet_service.client": Body("application/octet-stream", image),
    }


def mistakes(image: bytes) -> dict[str, tuple[Body, str]]:
    """Return bodies that are no image though they were meant to send one, and what an answer must say of each."""
    jpeg, encoded = "image/jpeg", base64.b64encode(image)
    sound = form(_HEX, ((_NAMED.format(field="file"), _JPEG), image))
    page = b"\n<!DOCTYPE HTML>\n<html><head><title>404 \xe2\x80\x93 not found</title></head></html>"
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{_HEX * 2}\nsize 12345\n".encode()
    return {
        "form declared as an image": (Body(jpeg, sound.data), "The body is a form"),
        "form without a type": (Body("", sound.data), "The body is a form"),
        "form declared as urlencoded": (Body("application/x-www-form-urlencoded", sound.data), "The body is a form"),
        "form without a boundary": (Body("multipart/form-data", sound.data), "no boundary"),
        "form with another boundary": (Body("multipart/form-data; boundary=X", sound.data), "boundary that its"),
        "form with LF": (Body(sound.media_type, sound.data.replace(b"\r\n", b"\n")), "end with LF"),
        "form without an end": (Body(sound.media_type, sound.data[: -len(_HEX) - 8]), "last boundary is missing"),
        "image declared as a form": (Body("multipart/form-data; boundary=X", image), "boundary that its"),
        "base64": (Body(jpeg, encoded), "base64"),
        "base64 in lines": (Body("", base64.encodebytes(image)), "base64"),
        "base64, curl -d": (Body("application/x-www-form-urlencoded", encoded), "base64"),
        "data URL": (Body(jpeg, b"data:image/jpeg;base64," + encoded), "data URL"),
        "JSON": (Body("application/json", json.dumps({"image": encoded.decode()}).encode()), "application/json"),
        "JSON declared as an image": (Body(jpeg, json.dumps({"image": encoded.decode()}).encode()), "JSON"),
        "JSON, curl -d": (Body("application/x-www-form-urlencoded", b'{"top_k": 1}'), "JSON"),
        "HTML": (Body(jpeg, page), "HTML page"),
        "gzip": (Body(jpeg, gzip.compress(image, mtime=0)), "gzip"),
        "Git LFS pointer": (Body(jpeg, pointer), "Git LFS pointer"),
        "urlencoded form": (
            Body("application/x-www-form-urlencoded", urllib.parse.urlencode({"file": image}).encode()),
            "this is text",
        ),
        "name of a file": (Body(jpeg, b"photos/cat.jpg\n"), "'photos/cat.jpg'"),
        "bytes read as UTF-8": (Body(jpeg, image.decode(errors="replace").encode()), "took for text"),
        "bytes read as Latin-1": (Body("text/plain;charset=UTF-8", image.decode("latin-1").encode()), "text/plain"),
        "bytes read as Latin-1, undeclared": (Body("", image.decode("latin-1").encode()), "took for text"),
        "PNG, curl -d": (
            Body("application/x-www-form-urlencoded", b"\x89PNG\x1a\0\0\0\x0dIHDR" + image),
            "line breaks were changed",
        ),
        "form, name of a file": (form(_HEX, ((_UNNAMED.format(field="file"),), b"cat.jpg")), "did you mean -F file=@"),
        "form, base64": (form(_HEX, ((_UNNAMED.format(field="file"),), encoded)), "base64"),
        "form, data URL": (form(_HEX, ((_UNNAMED.format(field="file"),), b"data:image/png;base64,iVBORw")), "data URL"),
        "form, empty": (form(_HEX, ((_NAMED.format(field="file"),), b"")), "The field 'file' is empty"),
        "form, other field": (
            form(_HEX, ((_NAMED.format(field="image"),), image), ((_UNNAMED.format(field="top_k"),), b"3")),
            "it has 'image', 'top_k'",
        ),
    }
