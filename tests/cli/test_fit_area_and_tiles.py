"""Laws of a model fitted on tiles with an area to judge: every path through it agrees, from any thread."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import energyad
import energyad.cli
from energyad.data.datasets import Category
from energyad.data.demo import render_good
from energyad.detector import AnomalyDetector
from energyad.detector.recalibration import recalibrate
from energyad.graphs.cache import extractor_graph
from energyad.images.reading import read_image, resize
from energyad.model.assembly import assemble_scorer
from energyad.runtimes.eager import EagerRuntime, HeadRuntime
from energyad.runtimes.onnx import OnnxFeatures
from energyad.scoring.prediction import Prediction
from tests.quick import TINY

pytestmark = pytest.mark.slow  # fits several models

LEFT = {"units": "relative", "polygons": [[[0, 0], [0.75, 0], [0.75, 1], [0, 1]]]}
TOP = {"units": "pixels", "width": 400, "height": 100, "polygons": [[[0, 0], [400, 0], [400, 20], [0, 20]]]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, demo_category: Category) -> Path:
    """What `energyad fit --tiles 3x1 --roi … --ignore …` leaves."""
    place = tmp_path_factory.mktemp("area")
    (place / "roi.json").write_text(json.dumps(LEFT))
    (place / "ignore.json").write_text(json.dumps(TOP))
    images = str(demo_category.root / "train" / "good")
    arguments = ["fit", "--images", images, "--name", "long", "--tiles", "3x1", "--quiet"]
    arguments += ["--roi", "roi.json", "--ignore", "ignore.json", "--threads", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr("energyad.settings.FitSettings", lambda: TINY)
        patch.setattr(sys, "argv", ["energyad", *arguments])
        with pytest.raises(SystemExit) as stopped:
            energyad.cli.main()
    assert not stopped.value.code
    return place / "models" / "long"


@pytest.fixture(scope="module")
def detector(folder: Path) -> AnomalyDetector:
    return AnomalyDetector.load(folder, threads=1)


@pytest.fixture(scope="module")
def parts(demo_category: Category) -> list[np.ndarray]:
    """Arrays, four times as wide as high."""
    paths = [item.path for item in demo_category.test[:8]]
    return [np.asarray(Image.fromarray(read_image(path)).resize((320, 80))) for path in paths]


def test_the_model_says_what_it_was_fitted_for(detector: AnomalyDetector) -> None:
    manifest = detector.manifest
    assert (manifest.input.image_size, manifest.input.shape) == ((64, 64), (64, 160))
    assert (manifest.input.tiles.columns, manifest.input.tiles.rows) == (3, 1)
    assert manifest.roi is not None and manifest.roi.coverage == pytest.approx(0.75 * 0.8, abs=0.02)
    assert manifest.roi.inside is not None and manifest.roi.inside[0] == "roi.json"
    card = detector.contents["README.md"].decode()
    assert "160 × 64 px" in card and "3 × 1 tiles of 64 × 64 px" in card
    assert "scored (inside roi.json, not in ignore.json)" in card


def test_outside_the_area_there_is_no_energy_and_no_region(
    detector: AnomalyDetector, parts: list[np.ndarray]
) -> None:
    for prediction in detector.score_batch(parts):
        assert prediction.heatmap.shape == (80, 320)
        assert not prediction.heatmap[:, 243:].any() and not prediction.heatmap[:14].any()
        assert prediction.heatmap[20:, :230].min() > 0
        for region in prediction.regions:
            x, y, width, _ = region.box
            assert x + width <= 243 and y >= 14


def test_the_exported_graph_and_the_module_agree(detector: AnomalyDetector, parts: list[np.ndarray]) -> None:
    eager = EagerRuntime(assemble_scorer(detector.manifest, detector.contents))
    pixels = np.stack([resize(part, detector.manifest.input.shape) for part in parts[:3]])
    ours, theirs = eager.run(pixels), detector.runtime.run(pixels)
    assert theirs.heatmap.shape == (3, 64, 160)
    np.testing.assert_allclose(ours.score, theirs.score, rtol=1e-4)
    # a patch near its prototype: the squared distance is what is left of large squares
    np.testing.assert_allclose(ours.heatmap, theirs.heatmap, rtol=1e-4, atol=3e-5)


def test_before_it_is_exported_the_head_scores_as_the_graph(detector: AnomalyDetector) -> None:
    scorer = assemble_scorer(detector.manifest, detector.contents)
    session = OnnxFeatures(extractor_graph(scorer.extractor).SerializeToString(), threads=1)
    runtime = HeadRuntime(session, scorer.head)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 160, 3), dtype=np.uint8)
    expected, found = detector.runtime.run(pixels), runtime.run(pixels)
    np.testing.assert_allclose(found.score, expected.score, rtol=1e-4)
    np.testing.assert_allclose(found.heatmap, expected.heatmap, rtol=1e-3, atol=1e-5)


def test_recalibrating_keeps_area_and_tiles(detector: AnomalyDetector, tmp_path: Path) -> None:
    good = [render_good(5, "train", index, size=96) for index in range(4)]
    recalibrate(detector, good).save(tmp_path / "model")
    again = AnomalyDetector.load(tmp_path / "model", threads=1)
    assert (again.manifest.roi, again.manifest.input) == (detector.manifest.roi, detector.manifest.input)
    assert again.score(good[0]).score in again.calibration.good_scores
    assert not again.score(good[0]).heatmap[:, 75:].any()


def same(one: Prediction, other: Prediction) -> bool:
    fields = {name: value for name, value in vars(one).items() if name != "heatmap"}
    others = {name: value for name, value in vars(other).items() if name != "heatmap"}
    return fields == others and np.array_equal(one.heatmap, other.heatmap)


def test_eight_threads_get_the_predictions_of_one_and_touch_no_file(
    detector: AnomalyDetector, parts: list[np.ndarray]
) -> None:
    expected = [detector.score(part) for part in parts]
    found: dict[int, list[Prediction]] = {}
    opened: list[str] = []
    listening = True

    def listen(event: str, arguments: tuple[object, ...]) -> None:
        if listening and event in {"open", "os.mkdir", "os.rename", "os.remove"}:
            opened.append(f"{event} {arguments[0]}")

    def work(index: int) -> None:
        order = [(index + step) % 8 for step in range(8)]
        alone = {each: detector.score(parts[each]) for each in order[:3]}
        batch = dict(zip(order, detector.score_batch([parts[each] for each in order]), strict=True))
        streamed = detector.stream(parts[each] for each in order[:3])
        assert all(same(one, alone[each]) for one, each in zip(streamed, order[:3], strict=True))
        found[index] = [{**batch, **alone}[each] for each in range(8)]

    sys.addaudithook(listen)  # cannot be taken away again; the flag silences it
    workers = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    listening = False
    assert sorted(found) == list(range(8)) and opened == []
    for predictions in found.values():
        assert all(same(one, other) for one, other in zip(predictions, expected, strict=True))
