"""A score that is not finite is an error of its image, never a verdict."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from energyad.cli import app
from energyad.detector import AnomalyDetector
from energyad.errors import ImageError
from energyad.images.reading import write_png
from energyad.runtimes.interface import RawScores
from energyad.service.scoring import ModelSession
from energyad.service.uploads import Upload


class Overflowing:
    """A runtime whose energies of dark images are not finite."""

    name = "onnxruntime"

    def __init__(self, runtime: object, value: float) -> None:
        self.plan = runtime.plan  # type: ignore[attr-defined]
        self._runtime, self._value = runtime, value

    def run(self, pixels: np.ndarray) -> RawScores:
        raw = self._runtime.run(pixels)  # type: ignore[attr-defined]
        score, heatmap = raw.score.copy(), raw.heatmap.copy()
        for index in np.flatnonzero(pixels.mean(axis=(1, 2, 3)) < 5):
            score[index] = heatmap[index, 0, 0] = self._value
        return raw._replace(score=score, heatmap=heatmap)


@pytest.fixture(params=[np.nan, np.inf])
def detector(
    request: pytest.FixtureRequest, fitted_detector: AnomalyDetector, monkeypatch: pytest.MonkeyPatch
) -> AnomalyDetector:
    monkeypatch.setattr(fitted_detector, "runtime", Overflowing(fitted_detector.runtime, request.param))
    return fitted_detector


DARK, GREY = np.zeros((40, 40, 3), np.uint8), np.full((40, 40, 3), 99, np.uint8)


def test_a_score_that_is_not_finite_is_an_error_of_its_image(detector: AnomalyDetector) -> None:
    grey, dark, other = (image.result() for image in detector.score_images([GREY, DARK, GREY]))
    assert dark.verdict is None and dark.score is None and "no finite score" in (dark.error or "")
    assert grey.error is other.error is None and grey.score == other.score
    for score in (detector.score, lambda image: detector.score_pixels([image])):
        with pytest.raises(ImageError, match="no finite score"):
            score(DARK)


def test_the_service_answers_no_verdict(detector: AnomalyDetector, tmp_path: Path) -> None:
    data = write_png(tmp_path / "dark.png", DARK).read_bytes()
    result = ModelSession(detector, max_pixels=10**6).score(Upload("dark.png", data)).result()
    assert result.verdict is None and "no finite score" in (result.error or "")


def test_the_command_line_ends_with_an_error(
    detector: AnomalyDetector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AnomalyDetector, "load", lambda *_, **__: detector)
    monkeypatch.setattr("energyad.model.folder.find_model", lambda _: tmp_path)
    write_png(tmp_path / "dark.png", DARK)
    done = CliRunner().invoke(app, ["score", str(tmp_path / "dark.png"), "--json", "--no-csv"])
    row = json.loads(done.stdout.splitlines()[0])
    assert done.exit_code == 2 and row["verdict"] is None and "no finite score" in row["error"]
