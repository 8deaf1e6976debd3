from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from energyad.errors import SettingsError
from energyad.scoring.calibration import (
    benjamini_hochberg,
    calibrate,
    calibrate_together,
    min_samples_for,
    prediction_limit,
)


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


@pytest.mark.slow
@pytest.mark.parametrize(("spread", "n", "most"), [(0.15, 3, 0.06), (0.15, 12, 0.06), (0.3, 12, 0.09)])
def test_prediction_limits_keep_their_rate_for_lognormal_scores(spread: float, n: int, most: float) -> None:
    def lognormal(rng: np.random.Generator, size: int) -> np.ndarray:
        return rng.lognormal(1.0, spread, size)

    result = calibrate(np.random.default_rng(0).lognormal(size=n), false_reject_rate=0.05)
    assert result.method == "prediction limit"
    assert realised_rate(lognormal, n, 0.05) <= most


def test_each_of_several_categories_keeps_its_own_threshold() -> None:
    def limit(*scores: float) -> float:
        return calibrate(scores, false_reject_rate=0.05).threshold

    scores = [[1.5, 1.0, 1.2], [40.0]]
    units, rule = calibrate_together(scores, false_reject_rate=0.05, review_rate=0.2)
    assert units == (limit(1.0, 1.2, 1.5), limit(40.0))
    assert rule.threshold == 1 and rule.method == "prediction limit"
    assert rule.good_scores == tuple(sorted(s / u for own, u in zip(scores, units, strict=True) for s in own))
    told = (1 / limit(1.2, 1.5), 1.2 / limit(1, 1.5), 1.5 / limit(1, 1.2), 40 / limit(40))
    assert rule.review_method == "prediction limit"  # four certify a fifth, but not one
    assert rule.review_threshold == pytest.approx(min(1.0, max(told)))
    _, wide = calibrate_together([[1.0, 3.0, 9.0]], false_reject_rate=0.05, review_rate=0.3)
    assert wide.review_threshold == 1  # told by the others alone, the last lies beyond the threshold
    _, no_review = calibrate_together(scores, false_reject_rate=0.05)
    assert no_review.review_threshold is None


def test_what_several_categories_certify_is_said_of_each() -> None:
    few, many = list(np.linspace(1, 2, 12)), list(np.linspace(1, 2, 120))
    _, both = calibrate_together([many, many], false_reject_rate=0.01)
    assert both.method == "conformal" and "certified by 240" in both.guarantee()
    _, both = calibrate_together([few, few], false_reject_rate=0.01, review_rate=0.1)
    assert (both.method, both.review_method) == ("prediction limit", "conformal")
    _, one = calibrate_together([few, many], false_reject_rate=0.01)
    assert one.method == "prediction limit" and "each category" in one.guarantee() and "99" in one.guarantee()


@pytest.mark.parametrize("counts", [(60, 30, 25), (40, 40, 40)])
def test_categories_of_other_scales_and_spreads_keep_their_rates(counts: tuple[int, ...]) -> None:
    rng, trials = np.random.default_rng(0), 60
    kinds = list(zip((0.0, 1.0, 3.0), (0.1, 0.2, 0.4), counts, strict=True))
    rejected, unsure = np.zeros(3), np.zeros(3)
    for _ in range(trials):
        units, rule = calibrate_together(
            [rng.lognormal(mean, spread, count).tolist() for mean, spread, count in kinds],
            false_reject_rate=0.05,
            review_rate=0.15,
        )
        for number, (unit, (mean, spread, _)) in enumerate(zip(units, kinds, strict=True)):
            new = rng.lognormal(mean, spread, 2000) / unit
            rejected[number] += (new > rule.threshold).mean() / trials
            unsure[number] += (new > rule.lowest_threshold).mean() / trials
    assert rejected.max() <= 0.06 and rejected.min() >= 0.02
    assert np.average(unsure, weights=counts) <= 0.155


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


def test_the_realised_false_reject_rate_keeps_the_promise_on_1000_resampled_splits() -> None:
    rng = np.random.default_rng(0)
    pool = np.round(
        np.exp(rng.normal(size=600) + 3 * (rng.random(600) < 0.1)), 2
    )  # skewed, bimodal, with ties
    for n, rate in ((99, 0.01), (99, 0.05), (199, 0.01), (150, 0.02)):
        rejected = []
        for _ in range(1000):
            order = rng.permutation(pool)
            rule = calibrate(order[:n], false_reject_rate=rate)
            rejected.append(float((order[n:] > rule.threshold).mean()))
        error = 3 * float(np.std(rejected)) / np.sqrt(1000)
        assert np.mean(rejected) <= rate + error
        assert np.mean(rejected) >= rate - 1 / (n + 1) - 0.003 - error  # nor is it kept by rejecting nothing


def test_p_values_of_good_parts_are_at_most_uniformly_small() -> None:
    rng = np.random.default_rng(1)
    p_values = []
    for _ in range(2000):
        rule = calibrate(rng.gamma(2, size=49), false_reject_rate=0.05)
        p_values.append(rule.p_value(rng.gamma(2)))
    assert min(p_values) == 1 / 50 and max(p_values) == 1
    for level in (0.02, 0.05, 0.1, 0.5):
        assert float(np.mean(np.array(p_values) <= level)) == pytest.approx(level, abs=0.025)


@settings(deadline=None)
@given(
    scores=st.lists(st.integers(1, 30), min_size=1, max_size=60),
    new=st.integers(0, 31),
    rates=st.tuples(st.floats(0.005, 0.5), st.floats(0.005, 0.5)),
)
def test_verdicts_thresholds_and_p_values_agree(
    scores: list[int], new: int, rates: tuple[float, float]
) -> None:
    rate, review_rate = sorted(rates)
    rule = calibrate([float(score) for score in scores], false_reject_rate=rate, review_rate=review_rate)
    assert rule.lowest_threshold <= rule.threshold
    p_value = rule.p_value(new)
    assert p_value == (1 + sum(score >= new for score in scores)) / (len(scores) + 1)
    assert rule.smallest_p_value <= p_value <= 1
    assert (rule.verdict(new) == "ng") == (new > rule.threshold)
    if rule.method == "conformal":
        assert (rule.verdict(new) == "ng") == (p_value <= rate + 1e-9)
    if rule.review_method == "conformal":
        assert (rule.verdict(new) == "ok") == (p_value > review_rate + 1e-9)


def test_too_few_good_parts_are_told_plainly() -> None:
    few = calibrate(np.linspace(1, 2, 19), false_reject_rate=0.01)
    enough = calibrate(np.linspace(1, 2, min_samples_for(0.01)), false_reject_rate=0.01)
    assert "19 good parts cannot certify 1.00%" in few.guarantee()
    assert "takes 99" in few.guarantee() and "5.00% at best" in few.guarantee()
    assert enough.guarantee().startswith("certified by 99 good parts")
    assert [min_samples_for(rate) for rate in (0.5, 0.05, 0.01, 0.001)] == [1, 19, 99, 999]


def test_of_the_parts_that_a_batch_calls_few_are_good() -> None:
    rng = np.random.default_rng(2)
    shares, found = [], 0
    for _ in range(300):
        rule = calibrate(rng.normal(10, 1, 199), false_reject_rate=0.05)
        defective = rng.random(60) < 0.2
        scores = rng.normal(10, 1, 60) + 5 * defective
        called = np.array(benjamini_hochberg([rule.p_value(score) for score in scores])) <= 0.1
        shares.append(float((called & ~defective).sum() / max(1, called.sum())))
        found += int((called & defective).sum())
    assert np.mean(shares) <= 0.1
    assert found > 0.8 * 300 * 60 * 0.2


def test_benjamini_hochberg_is_the_textbooks_step_up() -> None:
    assert benjamini_hochberg([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.02, 0.04, 0.04, 0.02))
    assert benjamini_hochberg([]) == ()


@pytest.mark.parametrize(("rate", "review"), [(0.0, None), (1.0, None), (0.05, 0.01), (0.01, 1.5)])
def test_rates_that_make_no_sense_are_refused(rate: float, review: float | None) -> None:
    with pytest.raises(SettingsError):
        calibrate([1.0, 2.0], false_reject_rate=rate, review_rate=review)
