"""Laws of drift: a stable line is left alone, a shifted one is named, and chance is not called a shift."""

from __future__ import annotations

import numpy as np
import pytest

from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.errors import DataError
from energyad.images import reading
from energyad.line import drift
from energyad.line.drift import DriftMonitor, compare, stability_index, stability_limit
from energyad.model.statistics import PartStatistics


def scores_only(values: np.ndarray) -> list[PartStatistics]:
    return [PartStatistics(float(value)) for value in values]


def of_part(detector: AnomalyDetector, pixels: np.ndarray) -> PartStatistics:
    return detector.score_image(pixels).require().statistics


def test_a_fitted_model_keeps_a_reference_of_its_held_out_parts(fitted_detector: AnomalyDetector) -> None:
    reference = fitted_detector.manifest.good_parts
    assert sorted(part.score for part in reference) == list(fitted_detector.manifest.calibration.good_scores)
    assert all(part.brightness is not None and 0 < part.brightness < 255 for part in reference)


def test_a_brightness_ramp_is_stable_at_first_and_named_in_the_end(
    fitted_detector: AnomalyDetector, demo_category: Category
) -> None:
    # Rendered parts all have one light, so the ramp is the only thing that changes.
    good = [reading.read_image(path) for path in demo_category.train_good]
    reference = [of_part(fitted_detector, pixels) for pixels in good]
    monitor = DriftMonitor(reference, model="gasket", window=24)
    for pixels in [*good, *good[:8]]:
        monitor.add(of_part(fitted_detector, pixels))
    assert monitor.check().state == "stable"
    for step in range(48):
        brighter = np.minimum(good[step % 16].astype(np.float32) * (1 + step / 60), 255).astype(np.uint8)
        monitor.add(of_part(fitted_detector, brighter))
    found = monitor.check()
    assert found.state == "shifted"
    shifted = {shift.quantity: shift for shift in found.shifts if shift.shifted}
    assert {"brightness", "score"} <= set(shifted)
    assert shifted["brightness"].now > shifted["brightness"].then
    assert "recalibrate with: energyad calibrate --model gasket" in found.advice


@pytest.mark.slow
def test_a_stable_line_is_seldom_called_shifted() -> None:
    # Scores are heavy-tailed, and references small: 300 lines of 20 held-out and 200 live parts.
    generator = np.random.default_rng(0)
    alarms = [
        compare(scores_only(generator.lognormal(size=20)), scores_only(generator.lognormal(size=200))).state
        == "shifted"
        for _ in range(300)
    ]
    assert sum(alarms) <= 2  # 0.3 are expected at most


@pytest.mark.slow
@pytest.mark.parametrize("reference", [20, 100])
def test_a_shift_by_two_standard_deviations_is_found(reference: int) -> None:
    generator = np.random.default_rng(1)
    then, now = generator.normal(5, 1, reference), generator.normal(7, 1, 100)
    assert compare(scores_only(then), scores_only(now)).state == "shifted"


@pytest.mark.slow
def test_a_sure_but_small_shift_is_none() -> None:
    generator = np.random.default_rng(2)
    then, now = generator.normal(5, 1, 20_000), generator.normal(5.15, 1, 20_000)
    (shift,) = compare(scores_only(then), scores_only(now)).shifts
    assert shift.p_value < 1e-9 and not shift.shifted


def test_the_index_is_zero_for_equal_sets_and_noise_stays_below_its_limit() -> None:
    generator = np.random.default_rng(3)
    same = generator.normal(size=500)
    assert stability_index(same, same) == pytest.approx(0, abs=1e-12)
    limit = stability_limit(30, 60, sure=0.05)
    by_chance = [
        stability_index(generator.normal(size=30), generator.normal(size=60)) > limit for _ in range(500)
    ]
    assert limit > drift.LARGE
    assert np.mean(by_chance) < 0.08


def test_few_parts_say_nothing_and_no_reference_is_an_error() -> None:
    parts = scores_only(np.arange(drift.FEWEST - 1.0))
    assert compare(scores_only(np.arange(30.0)), parts).state == "too few"
    few = scores_only(np.arange(drift.MIN_GOOD - 1.0))
    assert "calibrate it on more" in compare(few, scores_only(np.arange(100.0))).advice
    assert few and compare([*few, few[0]], scores_only(np.arange(100.0) + 50)).state == "shifted"
    with pytest.raises(DataError, match="calibrate"):
        compare([], parts)


def test_the_monitor_looks_at_the_latest_parts_alone() -> None:
    reference = scores_only(np.linspace(1, 2, 50))
    resumed = DriftMonitor.resumed(reference, scores_only(np.linspace(5, 6, 70)), model="m", window=50)
    assert resumed.check().state == "shifted"
    for part in reference:
        resumed.add(part)
    assert resumed.check().state == "stable"


def test_a_quantity_that_is_not_known_of_every_part_is_left_out() -> None:
    known = [PartStatistics(1.0 + i / 50, brightness=100.0 + i) for i in range(40)]
    found = compare(known, [*known[:-1], PartStatistics(1.5)])
    assert [shift.quantity for shift in found.shifts] == ["score"]


def of_category(category: str, values: np.ndarray) -> list[PartStatistics]:
    return [PartStatistics(float(value), category=category) for value in values]


def test_each_category_is_compared_with_its_own_good_parts() -> None:
    rng = np.random.default_rng(0)
    bolts, nuts = rng.normal(1, 0.1, 200), rng.normal(5, 0.1, 200)
    known = of_category("bolt", bolts[:100]) + of_category("nut", nuts[:100])
    bolts_alone = compare(known, of_category("bolt", bolts[100:]))  # today the line sees no nut
    assert bolts_alone.state == "stable"
    assert (bolts_alone.reference, bolts_alone.window) == (100, 100)
    assert [shift.label for shift in bolts_alone.shifts] == ["score of bolt"]
    both = of_category("bolt", bolts[100:]) + of_category("nut", nuts[100:] + 1)
    found = compare(known, both)
    assert {shift.category: shift.shifted for shift in found.shifts} == {"bolt": False, "nut": True}
    assert found.state == "shifted" and "scores of nut" in found.advice and "of bolt" not in found.advice


def test_a_category_with_too_few_parts_is_left_out_and_none_at_all_is_told() -> None:
    rng = np.random.default_rng(0)
    known = of_category("bolt", rng.normal(1, 0.1, 100)) + of_category("nut", rng.normal(5, 0.1, 100))
    many = of_category("bolt", rng.normal(1, 0.1, drift.FEWEST))
    few = of_category("nut", rng.normal(9, 0.1, drift.FEWEST - 1))
    assert [shift.category for shift in compare(known, [*many, *few]).shifts] == ["bolt"]
    assert [shift.category for shift in compare(known[:107], [*few, *few, *many]).shifts] == ["bolt"]
    found = compare(known, few)
    assert found.state == "too few" and f"{len(few)} parts" in found.advice
    assert compare(known, of_category("washer", np.ones(100))).state == "too few"
