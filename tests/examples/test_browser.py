"""Laws of the example in a browser: its scores are the detector's, and it fetches nothing from elsewhere."""

from __future__ import annotations

import functools
import json
import os
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, sync_playwright

from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector, export
from energyad.images.reading import read_image, resize, write_png
from tests import ROOT
from tests.service.test_page import CHROMIUM, QUIET

RUNTIME = os.environ.get("ENERGYAD_ORT_WEB")  # set by `make examples`, which fetches it
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(RUNTIME is None or CHROMIUM is None, reason="make examples runs this"),
]


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, fitted_detector: AnomalyDetector) -> Iterator[Page]:
    """The example's page, beside the runtime and an exported model."""
    folder = tmp_path_factory.mktemp("browser") / "site"
    shutil.copytree(ROOT / "examples" / "browser", folder)
    shutil.copytree(ROOT / str(RUNTIME), folder / "ort")
    export.export_model(fitted_detector, "onnx", folder / "part.onnx")
    handler = functools.partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        address = f"http://127.0.0.1:{server.server_port}"
        page.goto(f"{address}/index.html")
        yield page
        browser.close()
        server.shutdown()
    assert all(url.startswith((address, "blob:", "data:")) for url in asked)


@pytest.mark.parametrize(("before", "now"), [(10, 4), (7, 7), (5, 12), (640, 128), (3, 1)])
def test_images_are_resized_as_the_detector_does(page: Page, before: int, now: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (before, 9, 3), np.uint8)
    rgba = np.dstack([image, np.full((before, 9), 255, np.uint8)]).tobytes()
    found = page.evaluate(
        """async ([data, height, now]) => {
          const { resize } = await import("./score.js");
          return [...resize({ data, height, width: 9 }, now, 9)];
        }""",
        [list(rgba), before, now],
    )
    wanted = resize(image, (now, 9)).reshape(-1).astype(int)
    assert np.abs(np.array(found) - wanted).max() <= 1  # a half is rounded either way


def test_a_person_chooses_a_model_and_images_and_sees_the_detectors_verdicts(
    page: Page, fitted_detector: AnomalyDetector, demo_category: Category, tmp_path: Path
) -> None:
    large = write_png(tmp_path / "large.png", resize(read_image(demo_category.test[0].path), (300, 420)))
    paths = [*(item.path for item in demo_category.test[::3]), large]
    written = export.export_model(fitted_detector, "onnx", tmp_path / "part.onnx")
    page.set_input_files("#model", [written.graph, written.metadata])
    page.wait_for_function("document.querySelector('#status').textContent.includes('threshold')")
    for number, path in enumerate(paths, start=1):
        page.set_input_files("#images", path)
        page.wait_for_function(f"document.querySelectorAll('figure').length === {number}")
        verdict, *_ = page.inner_text("figcaption").split()
        assert verdict == ("ng" if fitted_detector.score(path).verdict == "ng" else "ok")


def test_scores_and_heatmaps_are_the_detectors(
    page: Page, fitted_detector: AnomalyDetector, demo_category: Category
) -> None:
    for item in demo_category.test[::4]:
        pixels = resize(read_image(item.path), fitted_detector.input_shape)
        rgba = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
        found = page.evaluate(
            """async ([data, height, width]) => {
              const { load, score } = await import("./score.js");
              const facts = await (await fetch("part.onnx.json")).json();
              const graph = new Uint8Array(await (await fetch("part.onnx")).arrayBuffer());
              globalThis.golden ??= await load(ort, graph, facts);
              const { score: value, heatmap } = await score(golden, { data, height, width });
              return [value, [...heatmap]];
            }""",
            [rgba.reshape(-1).tolist(), *pixels.shape[:2]],
        )
        wanted = fitted_detector.runtime.run(pixels[None])
        np.testing.assert_allclose(found[0], wanted.score[0], rtol=1e-4)
        np.testing.assert_allclose(found[1], wanted.heatmap[0].reshape(-1), rtol=1e-3, atol=1e-4)


def test_files_that_are_no_model_are_named(page: Page, tmp_path: Path) -> None:
    graph, facts = tmp_path / "bad.onnx", tmp_path / "bad.onnx.json"
    graph.write_bytes(b"none")
    facts.write_text(json.dumps({}))
    page.set_input_files("#model", graph)
    page.wait_for_function("document.querySelector('#status').textContent.startsWith('Choose both')")
    page.set_input_files("#model", [graph, facts])
    page.wait_for_function("document.querySelector('#status').textContent.startsWith('bad.onnx cannot')")
