"""Laws of the page, in a real browser: a person drops images and sees what the service says, and nothing is fetched
from anywhere else.
"""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.service.app import create_app
from energyad.service.settings import ServiceSettings

from .serving import on_a_port

KEY = "0123456789abcdef"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium here: apt-get install chromium, or put one on the PATH"
    ),
]
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
]
DROP = """([text, names]) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const carried = new DataTransfer();
  for (const name of names) carried.items.add(new File([bytes], name, { type: "image/png" }));
  document.dispatchEvent(new DragEvent("drop", { dataTransfer: carried, cancelable: true }));
}"""


@pytest.fixture(scope="module")
def address(fitted_detector: AnomalyDetector) -> Iterator[str]:
    """A service with a key, on a port."""
    app = create_app([fitted_detector], ServiceSettings(api_key=KEY))
    with on_a_port(app) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page, with the key typed in; fails for any request to another host."""
    page = browser.new_page(viewport={"width": 1000, "height": 1200})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.locator("#key").fill(KEY)
    page.keyboard.press("Enter")
    page.locator("#model option").first.wait_for(state="attached")
    yield page
    others = {
        url for url in asked if urlsplit(url).scheme not in {"data", "blob"} and not url.startswith(address)
    }
    page.close()
    assert others == set()


def test_dropped_images_show_their_verdict_score_p_value_and_regions(
    page: Page, demo_category: Category, defective: Path, fitted_detector: AnomalyDetector, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(defective.read_bytes()[:300])
    good = next(item.path for item in demo_category.test if not item.is_defective)
    page.set_input_files("#files", [str(good), str(defective), str(tmp_path / "broken.png")])
    page.locator(".verdict.refused").wait_for()  # the last of them
    refused, bad, well = (page.locator("article").nth(number) for number in range(3))
    assert "truncated" in refused.inner_text()
    for card, path in ((bad, defective), (well, good)):
        prediction = fitted_detector.score(path)
        shown = card.inner_text()
        assert card.locator(".verdict").inner_text().lower() == prediction.verdict
        figures = card.locator("dd").all_inner_texts()
        assert float(figures[0]) == pytest.approx(prediction.score, rel=1e-3)
        assert float(figures[2]) == pytest.approx(prediction.p_value, rel=1e-3)
        assert path.name in shown
        assert card.locator("polygon.line").count() == len(prediction.regions)
        assert card.locator("tbody tr").count() == len(prediction.regions)
        width = prediction.heatmap.shape[1]
        assert card.locator(".picture").evaluate("image => image.naturalWidth") == width
    assert page.locator("#tally").inner_text().endswith("1 refused")
    if folder := os.environ.get("ENERGYAD_SCREENSHOTS"):
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            page.screenshot(path=Path(folder) / f"page-{scheme}.png")


def test_the_slider_sets_the_heatmaps_and_the_box_hides_the_regions(page: Page, defective: Path) -> None:
    page.set_input_files("#files", [str(defective)])
    page.locator(".verdict.ng").wait_for()
    heat, regions = page.locator(".heat"), page.locator(".stage svg")
    for percent in ("0", "80"):
        page.locator("#opacity").fill(percent)
        assert float(heat.evaluate("image => image.style.opacity")) == int(percent) / 100
    assert regions.is_visible()
    page.locator("#regions").uncheck()
    assert not regions.is_visible()


def test_images_can_be_dropped_anywhere_and_a_name_is_only_text(page: Page, defective: Path) -> None:

    text = base64.b64encode(defective.read_bytes()).decode()
    page.evaluate(DROP, [text, ["<img src=x onerror=alert(1)>.png", "b.png"]])
    page.locator(".verdict.ng").nth(1).wait_for()
    assert page.locator(".name").all_inner_texts() == ["b.png", "<img src=x onerror=alert(1)>.png"]
    page.locator("#clear").click()
    assert page.locator("article").count() == 0


def test_without_the_key_the_page_asks_for_it(browser: Browser, address: str) -> None:
    page = browser.new_page()
    page.goto(address)
    page.locator("#problem").wait_for()
    assert "API key" in page.locator("#problem").inner_text() and page.locator("#key").is_visible()
    page.close()
