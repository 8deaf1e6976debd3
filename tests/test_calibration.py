from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from energyad.calibration import calibrate, prediction_limit
from energyad.errors import SettingsError


def realised_rate(draw: object, n: int, rate: float, trials: int = 2000) -> float:
    """Share of new good parts above the threshold, over many calibrations."""
    rng = np.random.default_rng(0)
    rejected = 0
    for _ in range(trials):
        threshold = calibrate(draw(rng, n), false_reject_rate=rate).threshold  # type: ignore[operator]
        rejected += int(draw(rng, 1)[0] > threshold)  # type: ignore[operator]
    return rejected / trials


def test_conformal_thresholds_keep_their_rate_for_any_distribution() -> None:
    def bimodal(rng: np.random.Generator, n: int) -> np.ndarray:
        return np.where(rng.random(n) < 0.8, rng.gamma(2, size=n), 20 + rng.random(n))

    assert realised_rate(bimodal, 99, 0.05) == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize(("spread", "n", "most"), [(0.15, 3, 0.06), (0.15, 12, 0.06), (0.3, 12, 0.09)])
def test_prediction_limits_keep_their_rate_for_lognormal_scores(spread: float, n: int, most: float) -> None:
    def lognormal(rng: np.random.Generator, size: int) -> np.ndarray:
        return rng.lognormal(1.0, spread, size)

    result = calibrate(np.random.default_rng(0).lognormal(size=n), false_reject_rate=0.05)
    assert result.method == "prediction limit"
    assert realised_rate(lognormal, n, 0.05) <= most


def test_many_parts_outweigh_the_assumed_spread() -> None:
    scores = np.random.default_rng(0).lognormal(0.0, 0.6, 90)
    student = np.exp(scipy.stats.t.ppf(0.99, 89) * np.log(scores).std(ddof=1) + np.log(scores).mean())
    assert prediction_limit(scores, 0.01) == pytest.approx(student, rel=0.05)


def test_a_few_parts_do_not_put_the_threshold_out_of_reach() -> None:
    assert prediction_limit(np.array([0.36, 0.40, 0.38]), 0.01) < 2 * 0.38


def test_ranks_are_used_as_soon_as_they_can_certify_the_rate() -> None:
    scores = np.linspace(1, 2, 99)
    assert calibrate(scores, false_reject_rate=0.01).method == "conformal"
    assert calibrate(scores, false_reject_rate=0.01).threshold == scores.max()
    assert calibrate(scores[:98], false_reject_rate=0.01).method == "prediction limit"


def test_no_calibration_part_of_a_small_set_is_above_its_threshold() -> None:
    scores = [1.0, 1.01, 1.02, 9.0]
    assert calibrate(scores, false_reject_rate=0.2).threshold >= 9.0


def test_a_lower_rate_never_lowers_the_threshold() -> None:
    scores = np.random.default_rng(0).lognormal(size=200)
    thresholds = [
        calibrate(scores, false_reject_rate=rate).threshold for rate in (0.2, 0.1, 0.02, 0.01, 0.001)
    ]
    assert thresholds == sorted(thresholds)


def test_one_part_gives_a_threshold_above_itself() -> None:
    assert calibrate([2.0], false_reject_rate=0.01).threshold > 2.0


def test_limits_follow_the_unit_of_the_scores() -> None:
    scores = np.array([1.0, 1.2, 0.9, 1.1])
    assert prediction_limit(100 * scores, 0.01) == pytest.approx(100 * prediction_limit(scores, 0.01))


@pytest.mark.parametrize("scores", [[], [float("nan")], [float("inf"), 1.0]])
def test_nothing_to_calibrate_on_is_refused(scores: list[float]) -> None:
    with pytest.raises(SettingsError):
        calibrate(scores, false_reject_rate=0.01)
