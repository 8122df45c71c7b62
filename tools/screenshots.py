"""Take the documentation's screenshots of the page, from a running service.

    resnet-service serve --checkpoint checkpoints/efficientnet-lite0-imagenet1k.onnx
    python tools/screenshots.py http://localhost:8080

It uses Debian's chromium. The screenshots show real answers of that service.
"""

import io
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright

FOLDER = Path("docs/page")
IMAGES = (Path("examples/images/cat.jpg"),)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
SHOTS: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1024, "height": 800}, "locale": "en-US"},
    "dark-chinese": {"viewport": {"width": 1024, "height": 800}, "locale": "zh-CN", "color_scheme": "dark"},
    "phone": {
        **{"viewport": {"width": 360, "height": 780}, "locale": "en-US", "device_scale_factor": 2},
        **{"is_mobile": True, "has_touch": True},
    },
}


def shoot(browser: Browser, url: str, options: dict[str, Any]) -> Image.Image:
    """Return a screenshot of the page after choosing an image and, if there are maps, its first class."""
    with browser.new_context(**options) as context:
        page = context.new_page()
        page.goto(url)
        expect(page.locator("#model")).to_be_visible()
        page.set_input_files("#file", IMAGES)
        expect(page.locator(".card .class")).to_have_count(3)
        page.locator(".card button.class").first.click()
        expect(page.locator(".card canvas:visible, .card div.class").first).to_be_visible()
        page.evaluate("document.activeElement.blur()")
        page.locator(".card").scroll_into_view_if_needed()
        page.mouse.move(0, 0)
        page.wait_for_timeout(500)  # until animations have ended
        return Image.open(io.BytesIO(page.screenshot(full_page=not options.get("is_mobile", False))))


def main(url: str) -> None:
    """Write all screenshots."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for name, options in SHOTS.items():
            target = FOLDER / f"{name}.webp"
            shoot(browser, url, options).convert("RGB").save(target, quality=80, method=6)
            print(f"{target}: {target.stat().st_size / 1000:.0f} kB")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
