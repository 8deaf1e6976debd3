"""Laws of part statistics: one image has the same ones in the fit, in scoring, in the service and on the line."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from energyad.data.datasets import Category
from energyad.data.demo import render_good
from energyad.detector import AnomalyDetector
from energyad.detector.recalibration import recalibrate
from energyad.detector.scored_image import ScoredImage
from energyad.fitting import threshold
from energyad.fitting.context import FitContext
from energyad.images.isolated import IsolatedDecoder
from energyad.images.reading import resize, write_png
from energyad.line.database import Database
from energyad.line.drift import DriftMonitor
from energyad.line.journal import read_results
from energyad.line.store import LineStore
from energyad.line.watch import Watcher, score_with
from energyad.model.statistics import PartStatistics
from energyad.service.scoring import ModelSession
from energyad.service.uploads import Upload
from energyad.settings import FitSettings


@pytest.fixture(params=[(128, 128), (300, 170), (90, 251)], ids=str)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """One image file of a given height and width."""
    pixels = resize(render_good(5, "test", 0, size=256), request.param)
    (tmp_path / "images").mkdir()
    return write_png(tmp_path / "images" / "part.png", pixels)


def scored(detector: AnomalyDetector, source: Path | bytes | np.ndarray) -> PartStatistics:
    image = detector.score_image(source)
    assert isinstance(image, ScoredImage) and image.statistics.score == image.prediction.score
    return image.statistics


def test_statistics_of_a_path_bytes_and_pixels_are_equal_to_the_last_digit(
    fitted_detector: AnomalyDetector, path: Path
) -> None:
    expected = scored(fitted_detector, path)
    assert scored(fitted_detector, path.read_bytes()) == expected
    assert scored(fitted_detector, fitted_detector.read(path)) == expected
    (image,) = fitted_detector.score_images([path])
    assert image.require().statistics == expected


def test_statistics_of_fit_and_recalibration_equal_those_of_scoring(
    fitted_detector: AnomalyDetector, quick_settings: FitSettings, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = scored(fitted_detector, path)
    missing: Any = None  # the saved model's graph stands in for backbone and head
    monkeypatch.setattr(threshold, "HeadRuntime", lambda *_, **__: fitted_detector.runtime)
    context = FitContext(settings=quick_settings, session=missing, grid=missing, scales=())
    assert threshold.measure([path], missing, (), context) == [expected]
    assert recalibrate(fitted_detector, [path]).manifest.good_parts == (expected,)


def test_statistics_of_the_watcher_and_the_service_equal_those_of_scoring(
    fitted_detector: AnomalyDetector, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = scored(fitted_detector, path)
    with Database(tmp_path / "energyad.db") as database, IsolatedDecoder() as decoder:
        store = LineStore(database, out=tmp_path / "results.jsonl", folder=path.parent)
        watcher = Watcher(path.parent, store, score_with(lambda: fitted_detector, decoder))
        watcher.run(threading.Event(), once=True, interval=0.01)
    (line,) = read_results(tmp_path / "energyad.db")
    assert line.observation == expected
    monitored: list[PartStatistics] = []
    monkeypatch.setattr(DriftMonitor, "add", lambda _, part: monitored.append(part))
    session = ModelSession(fitted_detector, max_pixels=10**6)
    session.score(Upload(None, path.read_bytes()))
    assert monitored == [expected]


def test_reference_of_a_fitted_model_has_the_pixel_statistics_of_its_images_scored_again(
    fitted_detector: AnomalyDetector, demo_category: Category
) -> None:
    again = {
        (part.brightness, part.contrast, part.sharpness): part.score
        for part in (scored(fitted_detector, path) for path in demo_category.train_good)
    }
    for part in fitted_detector.manifest.good_parts:
        # Held-out images join the memory bank after the threshold is set, so their scores fall.
        assert again[part.brightness, part.contrast, part.sharpness] <= part.score
