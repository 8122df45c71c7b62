"""A real browser for tests of the page: Debian's Chromium, driven by Playwright, with a fresh profile each."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

STRICT = os.environ.get("RESNET_SERVICE_TESTS_STRICT") == "1"
# What a step of a test may take, on a machine that does other work besides.
WAIT_MS = 15_000
expect.set_options(timeout=WAIT_MS)
_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser; skip where there is none, but fail where the environment says that all tests must run."""
    path = shutil.which("chromium")
    if path is None:
        reason = "there is no chromium (apt-get install chromium), so the page cannot be tried"
        if STRICT:
            pytest.fail(f"{reason}, and RESNET_SERVICE_TESTS_STRICT is set")
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_FLAGS, timeout=60_000)
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A browser window with the page at ``url``, and its requests, errors and violations of the content policy."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self.context = browser.new_context(
            **{"base_url": url, "locale": "en-US", "viewport": {"width": 1100, "height": 900}, **options}
        )
        self.context.set_default_timeout(WAIT_MS)
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.page: Page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self._heard(message.type, message.text))
        self.url = url
        self.page.goto(url)

    def _heard(self, kind: str, text: str) -> None:
        # The browser itself reports each answer that is an error; that is what some tests provoke.
        if kind in ("error", "warning") and not text.startswith("Failed to load resource"):
            self.errors.append(text)


@contextmanager
def visit(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """Open the page; at the end, check that it had no errors and sent no requests to other origins."""
    visitor = Visit(browser, url, **options)
    try:
        yield visitor.page
    finally:
        visitor.context.close()
    assert visitor.errors == [], visitor.errors
    assert visitor.requests
    origin = re.match(r"https?://[^/]+", url)
    assert origin
    for request in visitor.requests:
        assert request.startswith((f"{origin[0]}/", f"blob:{origin[0]}/", "data:")), f"{request} leaves the origin"
