"""Which language an answer is in: `lang`, else `Accept-Language`, else the label set's own."""

from collections.abc import Iterator

import httpx
import pytest

from resnet_service.api.app import create_app
from resnet_service.api.localization import preferred_languages
from resnet_service.inference.fake import FakeClassifier
from resnet_service.settings import Settings
from tests.support.images import encoded, noise
from tests.support.servers import served

IMAGE = encoded(noise(40, 30), "JPEG")
CHINESE = ("猫", "狗", "鸟")


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with served(create_app(Settings(), FakeClassifier(translations={"zh": CHINESE}))) as client:
        yield client


@pytest.mark.parametrize(
    ("field", "wanted"),
    [
        ("", []),
        ("zh", ["zh"]),
        ("zh-CN,zh;q=0.9,en;q=0.8", ["zh", "en"]),
        ("en-US,en;q=0.9,zh-CN;q=0.8,zh;q=0.7", ["en", "zh"]),
        ("en;q=0.1, zh;q=0.2", ["zh", "en"]),
        ("en;q=0.5,zh;q=0.5", ["en", "zh"]),
        ("zh ; q=0.5", ["zh"]),
        ("ZH-hant-tw", ["zh"]),
        ("fr,de;q=0.5", []),
        ("fr, *;q=0.1", ["en"]),
        ("fr, zh;q=0.3, *;q=0.5", ["en", "zh"]),
        ("en;q=0, *", []),
        ("zh;q=0", []),
        ("zh;q=0.0, en;q=0.001", ["en"]),
        ("zh;q=2, en", ["en"]),
        ("zh;q=-1, en", ["en"]),
        ("zh;q=nan, en", ["en"]),
        ("zh;q=0.12345, en", ["en"]),
        ("zhuang, english", []),
        (",,zh,,", ["zh"]),
        ("zh\x00", []),
        (",".join(["fr"] * 100) + ",zh", []),
    ],
)
def test_accept_language_is_read_as_the_standard_has_it(field: str, wanted: list[str]) -> None:
    assert list(preferred_languages(field)) == wanted


@pytest.mark.parametrize(
    ("query", "field", "language"),
    [
        ("", None, "en"),
        ("", "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("", "en,zh;q=0.5", "en"),
        ("", "fr", "en"),
        ("?lang=zh", None, "zh"),
        ("?lang=zh", "en", "zh"),
        ("?lang=en", "zh", "en"),
    ],
)
def test_names_are_in_the_language_that_is_asked_for(
    client: httpx.Client, query: str, field: str | None, language: str
) -> None:
    headers = {} if field is None else {"Accept-Language": field}
    predicted = client.post(f"/predict{query}", content=IMAGE, headers=headers)
    listed = client.get(f"/labels{query}", headers=headers)
    names = list(CHINESE) if language == "zh" else ["class 0", "class 1", "class 2"]
    assert [ctx["label"] for ctx in predicted.json()["predictions"]] == names
    assert [label["name"] for label in listed.json()["classes"]] == names
    for answer in (predicted, listed):
        assert answer.headers["content-language"] == language
        assert answer.headers["vary"] == "Accept-Language"


def test_a_long_field_is_not_read_to_its_end(client: httpx.Client) -> None:
    answer = client.get("/labels", headers={"Accept-Language": "x" * 2000 + ",zh"})
    assert answer.headers["content-language"] == "en"


def test_a_field_in_several_lines_is_one(client: httpx.Client) -> None:
    lines = [("Accept-Language", "en;q=0.5"), ("Accept-Language", "zh")]
    assert client.get("/labels", headers=lines).headers["content-language"] == "zh"


@pytest.mark.parametrize("lang", ["fr", "", "zh-CN", "x" * 5000])
def test_a_language_that_is_not_there_is_refused(client: httpx.Client, lang: str) -> None:
    for answer in (client.get("/labels", params={"lang": lang}), client.post(f"/predict?lang={lang}", content=IMAGE)):
        body = answer.json()
        assert (answer.status_code, body["code"]) == (422, "unsupported_language")
        assert "languages are en, zh" in body["detail"]
        assert len(body["detail"]) < 150


def test_a_model_without_names_in_it_answers_in_english() -> None:
    with served(create_app(Settings(), FakeClassifier())) as client:
        answer = client.post("/predict?lang=zh", content=IMAGE)
        summary = client.get("/metadata").json()["class_summary"]
    assert answer.headers["content-language"] == "en"
    assert answer.json()["predictions"][0]["label"] == "class 0"
    assert summary == {"en": "3 classes: class 0, class 1, class 2"}


def test_metadata_says_which_there_are(client: httpx.Client) -> None:
    body = client.get("/metadata").json()
    assert body["languages"] == ["en", "zh"]
    assert body["class_summary"] == {"en": "3 classes: class 0, class 1, class 2", "zh": "3 个类别：猫、狗、鸟"}
