"""Laws of aligned views: frames are scored on the reference, results are in the camera's pixels, no part is said."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from energyad.cli import app, console
from energyad.detector import AnomalyDetector
from energyad.detector.scored_image import ScoringOutcome
from energyad.images.alignment import Aligner
from energyad.images.reading import read_image, write_png
from energyad.line.watch import ReadBytes, ScoreFiles
from energyad.scoring.prediction import predict
from energyad.station import views
from energyad.station.aligning import FrameAligner, choose_method, limit_of
from tests.images.test_alignment import moved, part

from .conftest import RULE, Rig

RUN = CliRunner()


class Scored:
    """A detector's outcome of given pixels: energy where they are green."""

    def __init__(self, detector: AnomalyDetector) -> None:
        self.detector, self.seen = detector, []

    def __call__(self, before: Callable) -> ScoreFiles:
        def score(paths: Sequence[Path], read: ReadBytes) -> Iterator[ScoringOutcome]:
            for path in paths:
                pixels = before(path, cv2.imdecode(np.frombuffer(read(path), np.uint8), 1)[:, :, ::-1])
                self.seen.append(pixels)
                heatmap = np.where(pixels[:, :, 1] > pixels[:, :, 0].astype(int) + 80, 3.0, 0.5)
                image = self.detector.score_image(np.ascontiguousarray(pixels)).require()
                prediction = predict(heatmap.astype(np.float32), RULE, shape=pixels.shape[:2])
                yield replace(image, source=path, prediction=prediction)

        return score


@pytest.fixture
def scored(fitted_detector: AnomalyDetector, monkeypatch: pytest.MonkeyPatch) -> Scored:
    scored = Scored(fitted_detector)

    def score_files(model: object, decoder: object, *, max_pixels: int, before: Callable) -> ScoreFiles:
        return scored(before)

    monkeypatch.setattr(views, "score_with", score_files)
    monkeypatch.setattr(views, "open_decoder", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(views, "_warm_up", lambda *_: None)
    return scored


def test_a_turned_part_is_scored_on_the_reference_and_its_regions_are_the_cameras(
    rig: Rig, scored: Scored
) -> None:
    reference = part(300, 300)
    faulty = reference.copy()
    faulty[145:155, 110:120] = (20, 250, 20)
    frame, matrix = moved(faulty, 140, 10, -6)
    write_png(rig.root / "reference.png", reference)
    rig.align = {"reference": rig.root / "reference.png"}
    (rig.root / "front").mkdir()
    write_png(rig.root / "front" / "a.png", frame)
    write_png(rig.root / "front" / "b.png", np.full((300, 300, 3), 200, np.uint8))
    rig.run_once()
    by_name = {part.part: part for part in rig.parts()}
    assert (by_name["a"].verdict, by_name["b"].verdict) == ("ng", "no_part")
    region = max(by_name["a"].views[0].result.regions, key=lambda region: region.area)
    assert tuple(region.peak_at) == pytest.approx(tuple(matrix @ [115, 150, 1]), abs=8)
    x, y, width, height = region.box.x, region.box.y, region.box.width, region.box.height
    assert x <= region.peak_at[0] < x + width and y <= region.peak_at[1] < y + height
    assert (scored.seen[0][145:155, 110:120, 1] > 200).mean() > 0.8


@pytest.mark.slow
def test_the_choice_is_written_and_checked_and_samples_are_aligned_as_the_view_sees_them(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console.reset()  # another test may have asked for quiet
    monkeypatch.chdir(tmp_path)
    reference = part(200, 200)
    write_png(tmp_path / "reference.png", reference)
    (tmp_path / "good").mkdir()
    for number, degrees in enumerate((10, 120, 260)):
        write_png(tmp_path / "good" / f"{number}.png", moved(reference, degrees, 4, -3)[0])
    new = ["station", "new", "--name", "line", "--model", str(model_folder), "--view", "front=incoming"]
    result = RUN.invoke(app, [*new, "--align", "reference.png", "--samples", "good"])
    assert result.exit_code == 0, result.output
    assert 'method = "contours"' in (tmp_path / "station.toml").read_text()
    checked = RUN.invoke(app, ["station", "check", "--samples", "good"])
    assert "3 of 3 parts found" in checked.output and checked.exit_code == 0, checked.output
    write_png(tmp_path / "good" / "empty.png", np.full((200, 200, 3), 200, np.uint8))
    aligned = RUN.invoke(app, ["station", "align", "--samples", "good", "--out", "aligned"])
    assert "3 of 4" in aligned.output and "empty.png: no part" in aligned.output
    for path in sorted((tmp_path / "aligned").iterdir()):
        difference = cv2.absdiff(read_image(path), reference)[50:150, 50:150]
        assert difference.mean() < 8
    assert RUN.invoke(app, ["station", "check", "--samples", "good"]).exit_code == 2


def test_a_limit_is_half_of_the_lowest_correlation_of_good_parts(tmp_path: Path) -> None:
    write_png(tmp_path / "reference.png", part(200, 200))
    best, trials = choose_method(tmp_path / "reference.png", [tmp_path / "reference.png"])
    assert len(trials) == 3 and limit_of(best) == pytest.approx(0.5, abs=0.01)


def test_a_frame_that_was_not_scored_is_forgotten() -> None:
    aligner = FrameAligner(Aligner(part(200, 200)))
    aligner.before(Path("a"), part(200, 200))
    aligner.forget(Path("a"))
    assert not aligner._frames
