"""Laws of recalibration: new thresholds, the same scores, and nothing forgotten."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from energyad import AnomalyDetector
from energyad.data.datasets import Category
from energyad.data.demo import render_good
from energyad.detector.recalibration import recalibrate
from energyad.errors import DataError, ImageError, SettingsError


@pytest.fixture(scope="module")
def new_parts() -> list[np.ndarray]:
    return [render_good(3, "train", index, size=128) for index in range(9)]


@pytest.fixture(scope="module")
def recalibrated(fitted_detector: AnomalyDetector, new_parts: list[np.ndarray]) -> AnomalyDetector:
    return recalibrate(fitted_detector, new_parts, false_reject_rate=0.1, review_rate=0.2)


def test_thresholds_are_the_new_parts_own_scores(
    fitted_detector: AnomalyDetector, recalibrated: AnomalyDetector, new_parts: list[np.ndarray]
) -> None:
    scores = sorted(prediction.score for prediction in fitted_detector.score_batch(new_parts))
    calibration = recalibrated.manifest.calibration
    assert list(calibration.good_scores) == scores
    assert (calibration.threshold, calibration.review_threshold) == (scores[8], scores[7])
    assert calibration.method == calibration.review_method == "conformal"


def test_scores_do_not_change_and_p_values_do(
    fitted_detector: AnomalyDetector, recalibrated: AnomalyDetector, demo_category: Category
) -> None:
    path = demo_category.test[0].path
    old, new = fitted_detector.score(path), recalibrated.score(path)
    assert old.score == new.score
    assert new.p_value == recalibrated.calibration.p_value(new.score)
    assert len(recalibrated.calibration.good_scores) != len(fitted_detector.calibration.good_scores)


def test_old_calibrations_stay_in_the_history_with_date_count_and_data(
    fitted_detector: AnomalyDetector,
    recalibrated: AnomalyDetector,
    new_parts: list[np.ndarray],
    tmp_path: Path,
) -> None:
    again = recalibrate(recalibrated, new_parts[:5])
    again.save(tmp_path / "model")
    manifest = AnomalyDetector.load(tmp_path / "model", threads=1).manifest
    first, second = manifest.previous_calibrations
    assert first.good_scores == fitted_detector.calibration.good_scores
    assert second == recalibrated.manifest.calibration
    assert first.created == fitted_detector.manifest.created and first.data_sha256
    assert second.data_sha256 != manifest.calibration.data_sha256 is not None
    assert len(manifest.good_parts) == len(manifest.calibration.good_scores) == 5
    assert manifest.calibration.false_reject_rate == 0.1


def test_a_rate_above_the_models_review_rate_leaves_no_review(
    recalibrated: AnomalyDetector, new_parts: list[np.ndarray]
) -> None:
    coarse = recalibrate(recalibrated, new_parts[:3], false_reject_rate=0.4)
    assert coarse.calibration.review_threshold is None
    with pytest.raises(SettingsError, match="below the false-reject rate"):
        recalibrate(recalibrated, new_parts[:3], false_reject_rate=0.4, review_rate=0.3)


def test_a_bad_image_stops_it_unless_told_to_skip_it(
    fitted_detector: AnomalyDetector, new_parts: list[np.ndarray], tmp_path: Path
) -> None:
    bad = tmp_path / "zero.png"
    bad.touch()
    with pytest.raises(ImageError, match=r"zero\.png.*--skip-bad"):
        recalibrate(fitted_detector, [bad, *new_parts[:2]])
    with pytest.warns(UserWarning, match=r"left out: .*zero\.png"):
        kept = recalibrate(fitted_detector, [bad, *new_parts[:2]], skip_bad=True)
    assert len(kept.calibration.good_scores) == 2
    with pytest.warns(UserWarning), pytest.raises(DataError, match="none of 1"):
        recalibrate(fitted_detector, [bad], skip_bad=True)
