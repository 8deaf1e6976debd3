"""The promise on false rejects holds for a part of several views, however they depend on each other."""

from __future__ import annotations

import numpy as np
import pytest

from energyad.detector import AnomalyDetector
from energyad.scoring.calibration import calibrate
from energyad.station.combining import combine_p_values, for_view, share_rates
from energyad.station.results import worst

RATE = 0.05


def good_scores(rng: np.random.Generator, count: int, views: int, dependence: float) -> np.ndarray:
    """Scores of good parts, `count views`: a part that is unusual in one view is in the others, too."""
    shared, apart = rng.normal(size=(count, 1)), rng.normal(size=(count, views))
    sign = np.where(np.arange(views) % 2 == 0, 1.0, np.sign(dependence))
    weight = abs(dependence)
    return np.exp(0.3 * (np.sqrt(weight) * sign * shared + np.sqrt(1 - weight) * apart))


@pytest.mark.parametrize(("views", "dependence"), [(2, 0.0), (2, -0.9), (3, 0.7), (3, 1.0), (6, 0.7)])
@pytest.mark.slow
def test_good_parts_are_rejected_at_most_at_the_rate_over_1000_resampled_splits(
    views: int, dependence: float
) -> None:
    rng = np.random.default_rng(views)
    pool = good_scores(rng, 4000, views, dependence)
    shared, separate = [], []
    for _ in range(1000):
        drawn = pool[rng.permutation(len(pool))[:220]]
        held_out, new = drawn[:200], drawn[200:]
        rules = [calibrate(column.tolist(), false_reject_rate=RATE, review_rate=0.2) for column in held_out.T]
        limits = np.array([share_rates(rule, views=views).threshold for rule in rules])
        shared.append(float((new > limits).any(axis=1).mean()))
        separate.append(float((new > np.array([rule.threshold for rule in rules])).any(axis=1).mean()))
    error = np.std(shared) / np.sqrt(1000)
    assert np.mean(shared) <= RATE + 3 * error
    if dependence < 1:  # without the correction the promise would be broken
        assert np.mean(separate) > RATE + 3 * error


def test_a_part_exceeds_a_shared_threshold_exactly_where_its_p_value_is_at_most_the_rate() -> None:
    rng = np.random.default_rng(0)
    held_out = good_scores(rng, 200, 3, 0.5)
    rules = [calibrate(column.tolist(), false_reject_rate=RATE) for column in held_out.T]
    limits = [share_rates(rule, views=3).threshold for rule in rules]
    for scores in good_scores(rng, 2000, 3, 0.5) * 1.3:
        p_value = combine_p_values([rule.p_value(score) for rule, score in zip(rules, scores, strict=True)])
        exceeds = any(score > limit for score, limit in zip(scores, limits, strict=True))
        assert exceeds == (p_value <= RATE)


def test_one_view_keeps_the_thresholds_of_its_model() -> None:
    rule = calibrate(np.linspace(1, 2, 300).tolist(), false_reject_rate=0.01, review_rate=0.05)
    assert share_rates(rule, views=1) is rule


@pytest.mark.parametrize("count", [5, 30, 400])
def test_thresholds_rise_with_the_number_of_views_and_review_stays_below_reject(count: int) -> None:
    scores = good_scores(np.random.default_rng(1), count, 1, 0.0)[:, 0].tolist()
    rule = calibrate(scores, false_reject_rate=0.01, review_rate=0.05)
    before = rule
    for views in (2, 4, 8):
        shared = share_rates(rule, views=views)
        assert shared.threshold >= before.threshold
        assert shared.review_threshold is not None and shared.review_threshold <= shared.threshold
        assert shared.good_scores == rule.good_scores
        before = shared


def test_a_detector_of_one_of_several_views_has_the_shared_thresholds(
    fitted_detector: AnomalyDetector,
) -> None:
    shared = for_view(fitted_detector, views=3)
    assert shared.threshold == shared.calibration.threshold >= fitted_detector.threshold
    assert shared.calibration == share_rates(fitted_detector.calibration, views=3)
    assert for_view(fitted_detector, views=1) is fitted_detector


def test_the_worst_verdict_counts() -> None:
    assert worst(["ok", "ng", "review"]) == "ng"
    assert worst(["ok", "review"]) == "review"
    assert worst(["review", "dark", "ok"]) == "dark"
    assert worst(["ng", "dark"]) == "ng"
    assert worst(["ok"]) == "ok"
