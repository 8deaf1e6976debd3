"""Laws of `energyad calibrate`: the model in place gets new thresholds, or stays as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.model.folder import open_model, read_manifest

from .outcome import Program, is_one_line_error


@pytest.fixture
def good(demo_category: Category) -> Path:
    return demo_category.root / "test" / "good"


def test_calibrate_replaces_the_thresholds_and_keeps_the_old_ones(
    program: Program, workdir: Path, good: Path, fitted_detector: AnomalyDetector
) -> None:
    outcome = program("calibrate", good, "--target-frr", "0.2", "--review-frr", "0.4")
    assert outcome.status == 0
    manifest = read_manifest(workdir / "models" / fitted_detector.name)
    scores = sorted(fitted_detector.score(path).score for path in good.iterdir())
    assert list(manifest.calibration.good_scores) == scores
    assert (manifest.calibration.threshold, manifest.calibration.review_threshold) == (scores[3], scores[2])
    assert manifest.previous_calibrations[0].threshold == fitted_detector.threshold
    assert "certified by 4 good parts" in outcome.err
    rows = [json.loads(line) for line in program("score", good, "--json").out.splitlines()]
    assert {row["threshold"] for row in rows} == {scores[3]}
    assert {row["verdict"] for row in rows} == {"ok", "review"}


def test_what_the_number_of_good_parts_cannot_certify_is_said(program: Program, good: Path) -> None:
    assert "4 good parts cannot certify 1.00% (that takes 99" in program("calibrate", good).err


def test_a_calibration_that_fails_changes_nothing(
    program: Program, workdir: Path, good: Path, fitted_detector: AnomalyDetector
) -> None:
    folder = workdir / "models" / fitted_detector.name
    before = open_model(folder)
    (workdir / "zero.png").touch()
    assert is_one_line_error(program("calibrate", good, "zero.png"), "zero.png", "--skip-bad")
    rates = ("--target-frr", "0.2", "--review-frr", "0.1")
    assert is_one_line_error(program("calibrate", good, *rates), "must not be below")
    assert is_one_line_error(program("calibrate", good, "--target-frr", "1.2"), "1.2")
    assert open_model(folder) == before
