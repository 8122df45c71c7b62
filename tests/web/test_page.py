"""The page in a real browser, used as people use it. Takes about a minute in all."""

import base64
import dataclasses
import importlib.util
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, FilePayload, Locator, Page, Route, expect

from resnet_service.api.app import create_app
from resnet_service.inference.fake import FakeClassifier
from resnet_service.inference.results import Explanation
from resnet_service.models.labels import read_label_set
from resnet_service.settings import Settings
from resnet_service.types import MapForm
from tests.support.browser import Visit, chromium, visit
from tests.support.images import CAT, encoded, noise
from tests.support.servers import REPOSITORY, served

pytestmark = pytest.mark.slow

LIMIT = 2**19
IMAGE: FilePayload = {"name": "noise.png", "mimeType": "image/png", "buffer": encoded(noise(60, 40), "PNG")}
OTHER: FilePayload = {"name": "other.jpg", "mimeType": "image/jpeg", "buffer": encoded(noise(40, 60, seed=1), "JPEG")}
TEXT: FilePayload = {"name": "letter.txt", "mimeType": "text/plain", "buffer": b"Dear friends"}
IMAGENET, _ = read_label_set(REPOSITORY / "labels" / "imagenet1k.json")
CHINESE = json.loads((REPOSITORY / "labels" / "imagenet1k.zh.json").read_bytes())["names"]
# Its greatest value is in the middle of the right half.
MAP = [[0.0, 0.5, 1.0, 1.0], [0.0, 0.5, 9.0, 1.0], [-1.0, 0.5, 9.0, 1.0], [0.0, 0.5, 1.0, 1.0]]


class Imagenet(FakeClassifier):
    """A fake that knows ImageNet's classes in both languages, has a map, and of whose metadata the page shows all."""

    def __init__(self) -> None:
        super().__init__(labels=IMAGENET, translations={"zh": tuple(CHINESE)})
        evaluation = {"dataset": "a data set", "sha256": "0" * 64, "pictures": 5000}
        scores = {"top1": 69.76, "top5": 89.08, "calibration_error": 0.03}
        changes = {
            "labels": {"name": "imagenet1k", "sha256": "0" * 64},
            "provenance": {"source": "a publisher", "licence": "a licence"},
            "evaluations": [{**evaluation, **scores}],
        }
        metadata = self.model.metadata
        metadata = metadata.model_validate({**metadata.model_dump(), **changes})
        self.model = dataclasses.replace(self.model, metadata=metadata)

    def explain(self, data: bytes, class_id: int | None = None, form: MapForm = "json") -> Explanation:
        """Return ``MAP`` for the square in the image's middle."""
        return super().explain(data, class_id, form)._replace(values=np.array(MAP, np.float32))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(create_app(Settings(max_body_bytes=LIMIT), Imagenet())) as client:
        yield str(client.base_url)


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    with visit(browser, url) as page:
        yield page


def choose(page: Page, *files: FilePayload) -> None:
    page.set_input_files("#file", files)


def card(page: Page, number: int = 0) -> Locator:
    return page.locator(".card").nth(number)


@contextmanager
def answering(page: Page, path: str, answer: Callable[[Route], None]) -> Iterator[None]:
    """Let ``answer`` stand in for the service at ``path`` for a while."""
    pattern = f"**/{path}*"
    page.route(pattern, answer)
    yield
    page.unroute(pattern, answer)


def problem(status: int, code: str, **headers: str) -> Callable[[Route], None]:
    body = json.dumps({"title": "T", "status": status, "code": code, "detail": f"It is {code}."})
    return lambda route: route.fulfill(
        status=status, body=body, content_type="application/problem+json", headers=headers
    )


# Ways in


def test_a_chosen_image_is_shown_and_named(page: Page) -> None:
    choose(page, IMAGE)
    expect(card(page).locator("h2")).to_have_text("noise.png")
    expect(card(page).locator("img.preview")).to_be_visible()
    expect(card(page).locator(".class .label")).to_have_text([label.name for label in IMAGENET.classes[:3]])
    expect(card(page).locator(".class .percent")).to_have_text(["100.0%", "0.0%", "0.0%"])
    expect(card(page).locator(".time")).to_contain_text("60 × 40 PNG")
    expect(card(page).locator(".stage-key li")).to_have_count(4)
    expect(page.locator("#said")).to_have_text("noise.png: tench, 100.0%.")


def test_the_preview_does_not_wait_for_the_answer(page: Page) -> None:
    held: list[Route] = []
    with answering(page, "predict", lambda route: held.append(route)):
        choose(page, IMAGE)
        expect(card(page).locator("img.preview")).to_be_visible()
        expect(card(page).locator(".state")).to_have_text("Classifying…")
        held[0].continue_()
        expect(card(page).locator(".class")).to_have_count(3)


def test_more_classes_on_demand(page: Page) -> None:
    choose(page, IMAGE)
    more = page.get_by_role("button", name="Show 7 more")
    more.click()
    expect(card(page).locator(".class")).to_have_count(10)
    page.get_by_role("button", name="Show fewer").click()
    expect(card(page).locator(".class")).to_have_count(3)


def test_several_images_get_a_card_each_in_their_order(page: Page) -> None:
    choose(page, IMAGE, TEXT, OTHER)
    expect(page.locator(".card h2")).to_have_text(["noise.png", "letter.txt", "other.jpg"])
    expect(card(page, 0).locator(".class")).to_have_count(3)
    expect(card(page, 1).get_by_role("alert")).to_contain_text("not an image in a supported format")
    expect(card(page, 2).locator(".class")).to_have_count(3)
    page.get_by_role("button", name="Remove noise.png").click()
    expect(page.locator(".card h2")).to_have_text(["letter.txt", "other.jpg"])
    expect(card(page).locator("h2")).to_be_focused()


def test_more_than_the_page_holds_are_not_taken_unnoticed(page: Page) -> None:
    many: list[FilePayload] = [{**IMAGE, "name": f"{number}.png"} for number in range(30)]
    choose(page, *many)
    expect(page.locator("#notice")).to_have_text("Only the first 24 images were added.")
    expect(page.locator(".card")).to_have_count(24)
    expect(page.locator(".class")).to_have_count(3 * 24)


def send(page: Page, kind: str, file: FilePayload | None = IMAGE) -> None:
    """Drop or paste a file, or something that is none, as the browser tells the page of it."""
    page.evaluate(
        """([kind, name, type, data]) => {
            const transfer = new DataTransfer();
            const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
            if (data) transfer.items.add(new File([bytes], name, { type }));
            else transfer.setData("text/plain", "words");
            const event = kind === "paste"
                ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true })
                : new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true });
            document.querySelector("#form").dispatchEvent(event);
        }""",
        [kind, *([file["name"], file["mimeType"], base64.b64encode(file["buffer"]).decode()] if file else [""] * 3)],
    )


def test_drop(page: Page) -> None:
    send(page, "dragover")
    expect(page.locator("#form.over")).to_be_visible()
    send(page, "drop")
    expect(page.locator("#form.over")).to_have_count(0)
    expect(card(page).locator(".class")).to_have_count(3)


def test_what_is_dropped_and_is_no_file_is_explained(page: Page) -> None:
    send(page, "drop", None)
    expect(page.locator("#notice")).to_contain_text("is not a file")


def test_paste(page: Page) -> None:
    send(page, "paste", None)
    send(page, "paste")
    expect(page.locator(".card h2")).to_have_text(["Pasted image"])
    expect(card(page).locator(".class")).to_have_count(3)


def test_a_phone_may_take_a_photo(browser: Browser, url: str) -> None:
    with visit(browser, url, has_touch=True, is_mobile=True, viewport={"width": 360, "height": 740}) as page:
        expect(page.get_by_text("Take a photo")).to_be_visible()
        assert page.locator("#camera").get_attribute("capture") == "environment"
        page.set_input_files("#camera", IMAGE)
        expect(card(page).locator(".class")).to_have_count(3)


def test_a_sample_is_one_click_away_with_its_author_and_licence(page: Page) -> None:
    expect(page.locator("#samples li")).to_have_count(3)
    expect(page.locator("#samples li").first).to_contain_text("Stéfan van der Walt, CC0")
    page.get_by_role("button", name="A cat").click()
    expect(page.locator(".card h2")).to_have_text(["A cat"])
    expect(card(page).locator("figcaption")).to_have_text("Stéfan van der Walt, CC0")
    expect(card(page).locator(".class")).to_have_count(3)


def test_without_samples_that_fit_the_classes_there_are_none(browser: Browser) -> None:
    with served(create_app(Settings(), FakeClassifier())) as client, visit(browser, str(client.base_url)) as page:
        expect(page.locator("#model")).to_contain_text("not measured")
        expect(page.locator("#samples")).to_be_hidden()
        choose(page, IMAGE)
        expect(card(page).locator(".class")).to_have_count(3)
        expect(card(page).get_by_role("button", name="more")).to_have_count(0)


def test_an_image_that_the_browser_cannot_show_is_answered(page: Page) -> None:
    choose(page, {"name": "scan.tiff", "mimeType": "image/tiff", "buffer": encoded(noise(50, 50), "TIFF")})
    expect(card(page).locator(".image .note").first).to_contain_text("cannot display this image format")
    expect(card(page).locator(".class")).to_have_count(3)


# The map


def test_the_map_lies_over_what_the_network_saw(page: Page) -> None:
    choose(page, IMAGE)
    first = card(page).get_by_role("button", name="tench")
    first.click()
    heat = card(page).locator("canvas")
    expect(heat).to_be_visible()
    expect(first).to_have_attribute("aria-pressed", "true")
    expect(card(page).locator(".legend")).to_contain_text("Evidence for “tench”")
    over, under = heat.bounding_box(), card(page).locator("img.preview").bounding_box()
    assert over
    assert under
    assert over["x"] - under["x"] == pytest.approx(under["width"] / 6, abs=1)
    assert over["width"] == pytest.approx(under["width"] * 4 / 6, abs=1)
    assert over["height"] == pytest.approx(under["height"], abs=1)
    lights = heat.evaluate(
        """(canvas) => {
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            return [[0.625, 0.5], [0.1, 0.625]].map(([x, y]) => {
                const start = 4 * (Math.floor(y * canvas.height) * canvas.width + Math.floor(x * canvas.width));
                return data[start] + data[start + 1] + data[start + 2];
            });
        }"""
    )
    assert lights[0] > 500, "light where the map is greatest"
    assert lights[1] < 100, "dark where it is least"
    card(page).get_by_role("slider").fill("20")
    assert heat.evaluate("(canvas) => canvas.style.opacity") == "0.2"
    first.click()
    expect(heat).to_be_hidden()
    expect(card(page).get_by_role("slider")).to_be_hidden()


def test_each_listed_class_has_its_map_and_is_asked_for_once(page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/explain" in request.url else None)
    choose(page, IMAGE)
    for name in ("tench", "goldfish", "tench"):
        card(page).get_by_role("button", name=name).click()
        expect(card(page).locator(".legend")).to_contain_text(f"“{name}”")
    expect(card(page).locator("[aria-pressed=true]")).to_have_count(1)
    assert [url.split("class_id=")[1].split("&")[0] for url in asked] == ["0", "1"]


@pytest.mark.parametrize("code", ["output_unavailable", "not_found"])
def test_a_model_without_maps_says_so_and_offers_none(page: Page, code: str) -> None:
    choose(page, IMAGE, OTHER)
    expect(page.locator(".class")).to_have_count(6)
    with answering(page, "explain", problem(501, code)):
        card(page).get_by_role("button", name="tench").click()
        for number in range(2):
            expect(card(page, number)).to_contain_text("This model cannot show which parts of an image support a class")
            expect(card(page, number).locator("button.class")).to_have_count(0)
            expect(card(page, number).locator(".class")).to_have_count(3)
    expect(page.locator(".error:visible")).to_have_count(0)


def test_metadata_may_say_beforehand_that_there_are_no_maps(page: Page) -> None:
    facts = page.request.get("metadata").json()
    for feature_map, offered in ((None, 0), ([512, 7, 7], 3)):
        facts["outputs"] = {"embedding": 512, "feature_map": feature_map}
        with answering(page, "metadata", lambda route: route.fulfill(json=facts)):
            page.reload()
            expect(page.locator("#model")).to_be_visible()
            choose(page, IMAGE)
            expect(card(page).locator(".class")).to_have_count(3)
            expect(card(page).locator("button.class")).to_have_count(offered)


def test_a_map_that_fails_leaves_the_answer(page: Page) -> None:
    choose(page, IMAGE)
    with answering(page, "explain", problem(500, "internal_error")):
        card(page).get_by_role("button", name="tench").click()
        expect(card(page).get_by_role("alert")).to_contain_text("The service failed to answer")
    expect(card(page).locator("button.class[aria-pressed=false]")).to_have_count(3)


# What goes wrong


def test_too_large_is_found_out_before_it_is_sent(page: Page, tmp_path: Path) -> None:
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if "/predict" in request.url else None)
    expect(page.locator("#limits")).to_contain_text("0.5 MB")
    for size, said in ((31 * 2**20, "31 MB; the limit is 0.5 MB"), (LIMIT + 1, "0.500001 MB; the limit is 0.5 MB")):
        (tmp_path / "large.png").write_bytes(bytes(size))
        page.set_input_files("#file", tmp_path / "large.png")
        expect(card(page).get_by_role("alert")).to_have_text(f"This file is {said}.")
    assert sent == []


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (TEXT, "not an image in a supported format"),
        ({**IMAGE, "buffer": IMAGE["buffer"][:500]}, "This image is damaged"),
        ({**IMAGE, "buffer": b""}, "This file is empty"),
        ({**IMAGE, "buffer": encoded(noise(1, 1).resize((8000, 7000)), "PNG")}, "the limit is 50 million"),
    ],
    ids=["text", "damaged", "empty", "pixels"],
)
def test_files_that_cannot_be_answered(page: Page, file: FilePayload, said: str) -> None:
    choose(page, file)
    expect(card(page).get_by_role("alert")).to_contain_text(said)
    expect(card(page).get_by_role("button", name="Try again")).to_be_hidden()


def test_a_busy_service_is_waited_for_visibly(page: Page) -> None:
    waiting = card(page).locator(".state")
    with answering(page, "predict", problem(429, "overloaded", **{"Retry-After": "3"})):
        choose(page, IMAGE)
        expect(waiting).to_have_text("The service is busy. Trying again in 3 s (attempt 2 of 5).")
        expect(waiting).to_have_text("The service is busy. Trying again in 2 s (attempt 2 of 5).")
        expect(page.locator("#said")).to_contain_text("The service is busy")
    expect(card(page).locator(".class")).to_have_count(3)
    expect(waiting).to_be_hidden()


def test_a_service_that_stays_busy_is_not_asked_for_ever(page: Page) -> None:
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if "/predict" in request.url else None)
    with answering(page, "predict", problem(429, "overloaded", **{"Retry-After": "0"})):
        choose(page, IMAGE)
        expect(card(page).get_by_role("alert")).to_contain_text("still busy after 5 attempts")
        assert len(sent) == 5
    card(page).get_by_role("button", name="Try again").click()
    expect(card(page).locator(".class")).to_have_count(3)
    expect(card(page).get_by_role("alert")).to_be_empty()


def test_a_service_that_is_gone_and_comes_back(page: Page) -> None:
    with answering(page, "predict", lambda route: route.abort("connectionrefused")):
        choose(page, IMAGE)
        expect(card(page).get_by_role("alert")).to_have_text("The service does not answer. Is it still running?")
    card(page).get_by_role("button", name="Try again").click()
    expect(card(page).locator(".class")).to_have_count(3)


def test_offline_says_so_and_goes_on_when_connected_again(page: Page) -> None:
    expect(page.locator("#model")).to_be_visible()
    page.context.set_offline(True)
    choose(page, IMAGE)
    expect(card(page).get_by_role("alert")).to_contain_text("You are offline.")
    page.context.set_offline(False)
    expect(card(page).locator(".class")).to_have_count(3)


def test_what_the_page_has_no_words_for_is_passed_on(page: Page) -> None:
    with answering(page, "predict", problem(418, "teapot")):
        choose(page, IMAGE)
        expect(card(page).get_by_role("alert")).to_have_text("The service rejected the request: It is teapot.")
    with answering(page, "predict", lambda route: route.fulfill(status=502, body="<h1>Bad Gateway</h1>")):
        choose(page, IMAGE)
        expect(card(page).get_by_role("alert")).to_have_text("The service rejected the request: HTTP 502")


def test_text_from_outside_is_text(page: Page) -> None:
    name = "<img src=x onerror=alert(1)>.png"
    choose(page, {**IMAGE, "name": name})
    expect(card(page).locator("h2")).to_have_text(name)
    expect(card(page).locator("h2 *")).to_have_count(0)


def test_a_key_is_asked_for_kept_for_the_tab_and_sent(page: Page) -> None:
    seen: list[str | None] = []

    def guard(route: Route) -> None:
        given = route.request.headers.get("authorization")
        seen.append(given)
        if given == "Bearer good":
            route.continue_()
        else:
            problem(401, "unauthorized")(route)

    for path in ("metadata", "labels", "predict", "explain"):
        page.route(f"**/{path}*", guard)
    choose(page, IMAGE)
    field = page.get_by_label("This service requires an API key.")
    expect(field).to_be_focused()
    expect(card(page).get_by_role("alert")).to_have_text("This service requires an API key. Enter it above.")
    field.fill("bad")
    page.keyboard.press("Enter")
    again = page.get_by_label("The API key was not accepted.")
    expect(again).to_be_visible()
    again.fill(" good ")
    page.get_by_role("button", name="Use key").click()
    expect(card(page).locator(".class")).to_have_count(3)
    expect(page.locator("#key")).to_be_hidden()
    assert seen[0] is None
    assert "Bearer bad" in seen
    # For this path, since other services may be behind other prefixes of the same host.
    assert page.evaluate("[localStorage.length, Object.entries(sessionStorage)]") == [0, [["api-key /", "good"]]]
    page.reload()
    choose(page, IMAGE)
    expect(card(page).locator(".class")).to_have_count(3)
    expect(page.locator("#key")).to_be_hidden()


# The model


def test_the_model_is_named_with_accuracy_and_age(page: Page) -> None:
    model = page.locator("#model")
    expect(model).to_contain_text("fake, resnet18 in FP32")
    expect(model).to_contain_text("69.76% top-1, 89.08% top-5, measured on 5,000 images")
    expect(model).to_contain_text("a publisher, a licence")
    expect(model).to_contain_text("1,000")
    expect(model.locator("div", has_text="Serving since").locator("dd")).to_have_text(
        page.evaluate(
            """async () => {
                const { serving_since } = await (await fetch("metadata")).json();
                const options = { dateStyle: "medium", timeStyle: "short" };
                return new Intl.DateTimeFormat("en", options).format(new Date(serving_since));
            }"""
        )
    )


def test_the_page_says_which_classes_the_model_knows_in_both_languages(page: Page) -> None:
    said = page.locator("#classes")
    first = ", ".join(label.name for label in IMAGENET.classes[:5])
    expect(said).to_have_text(f"The model knows 1,000 classes: {first} and 995 more")
    page.get_by_role("button", name="中文").click()
    expect(said).to_have_text(f"此模型可识别 1,000 个类别：{'、'.join(CHINESE[:5])}，另有 995 个")


def test_classes_without_chinese_names_are_named_in_english(browser: Browser) -> None:
    app = create_app(Settings(), FakeClassifier())
    with served(app) as client, visit(browser, str(client.base_url), locale="zh-CN") as page:
        expect(page.locator("#classes")).to_have_text("此模型可识别 3 classes: class 0, class 1, class 2")


def test_another_model_is_noticed_by_its_answers(browser: Browser) -> None:
    app = create_app(Settings(), Imagenet())
    with served(app) as client, visit(browser, str(client.base_url)) as page:
        expect(page.locator("#model")).to_contain_text("000000000000")
        other = Imagenet()
        other.model = dataclasses.replace(other.model, name="newer", version="111111111111")
        app.state.service.serve(other)
        choose(page, IMAGE)
        expect(page.locator("#model")).to_contain_text("newer")
        expect(page.locator("#model")).to_contain_text("111111111111")


# Languages


def test_chinese_browsers_get_chinese(browser: Browser, url: str) -> None:
    with visit(browser, url, locale="zh-CN") as page:
        expect(page.locator("h1")).to_have_text("图片里有什么？")
        assert page.locator("html").get_attribute("lang") == "zh-Hans"
        choose(page, IMAGE)
        expect(card(page).locator(".class .label")).to_have_text(CHINESE[:3])
        choose(page, TEXT)
        expect(card(page).get_by_role("alert")).to_contain_text("不支持此文件格式")
        assert page.title() == "图片里有什么？"


def test_the_language_changes_by_button_and_is_remembered(page: Page) -> None:
    choose(page, IMAGE)
    card(page).get_by_role("button", name="tench").click()
    expect(card(page).locator("canvas")).to_be_visible()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if "/predict" in request.url else None)
    page.get_by_role("button", name="中文").click()
    expect(card(page).locator(".class .label")).to_have_text(CHINESE[:3])
    expect(card(page).locator(".legend")).to_contain_text("丁鱥")
    expect(card(page).locator("canvas")).to_be_visible()
    assert sent == [], "the network has nothing to add"
    page.reload()
    expect(page.locator("h1")).to_have_text("图片里有什么？")
    page.get_by_role("button", name="English").click()
    expect(page.locator("h1")).to_have_text("What is in this image?")
    assert page.locator("html").get_attribute("lang") == "en"


def test_both_languages_say_the_same_things(page: Page) -> None:
    """Every text is there in both, with the same values in it."""
    source = (REPOSITORY / "src" / "resnet_service" / "web" / "translations.js").read_text()
    table = source[source.index("const WORDS = ") + len("const WORDS = ") : source.index(";\nconst REMEMBERED")]
    words = page.evaluate(f"({table})")
    values = {
        language: {key: sorted(part.split("}")[0] for part in text.split("{")[1:]) for key, text in texts.items()}
        for language, texts in words.items()
    }
    assert values["en"] == values["zh"]


# For everyone


def test_by_keyboard_alone(page: Page) -> None:
    # Chromium is told to hand over its dialogs when the first listener comes, and nobody waits until it has heard that.
    page.on("filechooser", lambda _: None)
    expect(page.locator(".sample")).to_have_count(3)

    def tab_to(target: str) -> None:
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate(f"document.activeElement.matches({json.dumps(target)})"):
                return
        raise AssertionError(f"the tab key does not reach {target}")

    tab_to("#language")
    tab_to("#file")
    outline = page.locator("label[for=file]").evaluate("(label) => getComputedStyle(label).outlineStyle")
    assert outline == "solid", "focus is seen, though the field itself is not"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files(IMAGE)
    expect(card(page).locator(".class")).to_have_count(3)
    tab_to(".class")
    page.keyboard.press("Enter")
    expect(card(page).locator("canvas")).to_be_visible()
    tab_to(".card .seen > .quiet")
    page.keyboard.press("Enter")
    expect(card(page).locator(".class")).to_have_count(10)
    page.keyboard.press("Shift+Tab")
    expect(card(page).locator(".class").nth(9)).to_be_focused()


def test_what_moves_does_not_where_that_is_not_wanted(browser: Browser, url: str) -> None:
    with visit(browser, url, reduced_motion="reduce") as page:
        choose(page, IMAGE)
        expect(card(page).locator(".class")).to_have_count(3)
        assert page.evaluate("document.getAnimations().length") == 0
        duration = "(bar) => getComputedStyle(bar, '::after').transitionDuration"
        assert card(page).locator(".bar").first.evaluate(duration) == "0s"


@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
@pytest.mark.parametrize("width", [360, 768])
def test_it_fits_without_scrolling_sideways(browser: Browser, url: str, width: int, locale: str) -> None:
    with visit(browser, url, locale=locale, viewport={"width": width, "height": 740}) as page:
        choose(page, IMAGE, {**TEXT, "name": "a_name_without_any_space_" * 6 + ".txt"})
        expect(card(page).locator(".class")).to_have_count(3)
        card(page).locator(".class").first.click()
        expect(card(page).locator("canvas")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def axe() -> str:
    found = importlib.util.find_spec("axe_playwright_python")
    assert found is not None
    assert found.origin is not None
    return (Path(found.origin).parent / "axe.min.js").read_text()


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1100])
def test_axe_finds_no_violation(browser: Browser, url: str, colours: str, width: int) -> None:
    # The policy forbids foreign scripts, the checker's too; it is set aside for the checker's sake, here alone.
    options = {"color_scheme": colours, "viewport": {"width": width, "height": 900}, "bypass_csp": True}
    with visit(browser, url, **options, reduced_motion="reduce") as page:
        page.evaluate(axe())

        def violations() -> list[str]:
            results = page.evaluate("axe.run()")
            return [f"{rule['id']}: {node['html']}" for rule in results["violations"] for node in rule["nodes"]]

        expect(page.locator(".sample")).to_have_count(3)
        assert violations() == []
        choose(page, IMAGE, TEXT)
        card(page).get_by_role("button", name="tench").click()
        expect(card(page).locator("canvas")).to_be_visible()
        expect(card(page, 1).get_by_role("alert")).not_to_be_empty()
        page.evaluate("document.dispatchEvent(new Event('unauthorized'))")
        expect(page.locator("#key")).to_be_visible()
        assert violations() == []


def test_dark_is_dark(browser: Browser, url: str) -> None:
    with visit(browser, url, color_scheme="dark") as page:
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert max(int(channel) for channel in background.strip("rgb()").split(",")) < 40


def test_the_policy_keeps_foreign_scripts_out(browser: Browser, url: str) -> None:
    visitor = Visit(browser, url)
    try:
        blocked = visitor.page.evaluate(
            """() => new Promise((resolve) => {
                const blocked = [];
                document.addEventListener("securitypolicyviolation", (event) => blocked.push(event.effectiveDirective));
                for (const [tag, key] of [["script", "src"], ["img", "src"], ["iframe", "src"]]) {
                    const element = document.createElement(tag);
                    try {
                        element[key] = "http://127.0.0.1:1/x";
                    } catch {
                        blocked.push("trusted types");
                    }
                    document.body.append(element);
                }
                fetch("http://127.0.0.1:1/x").catch(() => {});
                setTimeout(() => resolve(blocked), 500);
            })"""
        )
    finally:
        visitor.context.close()
    assert {"trusted types", "img-src", "frame-src", "connect-src"} <= set(blocked)
    assert "Content Security Policy" in "".join(visitor.errors)


def test_the_cat_is_an_image_like_any_other(page: Page) -> None:
    """A photograph from the repository, through the real decoder."""
    page.set_input_files("#file", CAT)
    expect(card(page).locator(".time")).to_contain_text("451 × 300 JPEG")
