"""Laws of regions: geometry on planted heatmaps, and their agreement with the image's own score."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energyad.scoring.calibration import Calibration, calibrate
from energyad.scoring.prediction import predict
from energyad.scoring.regions import MAX_REGIONS, find_regions

GOOD = np.linspace(0.5, 1.0, 39)
RULE = calibrate(GOOD, false_reject_rate=0.025, review_rate=0.25)


def planted(*spots: tuple[int, int, int, int, float], shape: tuple[int, int] = (80, 120)) -> np.ndarray:
    """A quiet heatmap with rectangles x, y, width, height of an energy."""
    heatmap = np.full(shape, 0.1, np.float32)
    for x, y, width, height, energy in spots:
        heatmap[y : y + height, x : x + width] = energy
    return heatmap


def test_a_planted_rectangle_is_found_exactly() -> None:
    heatmap = planted((30, 10, 20, 8, 2.0))
    heatmap[15, 33] = 3.0
    (region,) = find_regions(heatmap, RULE)
    assert region.box == (30, 10, 20, 8)
    assert set(region.polygon) == {(30, 10), (49, 10), (49, 17), (30, 17)}
    assert region.area == 160 and region.area_percent == pytest.approx(100 * 160 / 9600)
    assert (region.peak, region.peak_at) == (3.0, (33, 15))
    assert region.p_value == RULE.p_value(3.0) == 1 / 40


def test_regions_come_highest_peak_first_and_corners_connect_them() -> None:
    heatmap = planted((5, 5, 4, 4, 1.5), (9, 9, 4, 4, 1.6), (60, 40, 6, 6, 4.0))
    regions = find_regions(heatmap, RULE)
    assert [region.peak for region in regions] == pytest.approx([4.0, 1.6])
    assert regions[1].area == 32 and regions[1].box == (5, 5, 8, 8)


def test_an_image_for_review_shows_what_is_above_the_review_threshold() -> None:
    between = (RULE.threshold + RULE.lowest_threshold) / 2
    quiet, review = planted((3, 3, 2, 2, RULE.lowest_threshold)), planted((3, 3, 2, 2, between))
    assert RULE.lowest_threshold < RULE.threshold
    assert find_regions(quiet, RULE) == ()
    assert [region.box for region in find_regions(review, RULE)] == [(3, 3, 2, 2)]
    both = planted((3, 3, 2, 2, between), (20, 20, 2, 2, 5.0))
    assert [region.box for region in find_regions(both, RULE)] == [(20, 20, 2, 2)]


def test_only_the_highest_of_very_many_regions_are_reported() -> None:
    heatmap = planted(shape=(80, 120))
    heatmap[::4, ::4] = 2 + np.arange(20 * 30, dtype=np.float32).reshape(20, 30)
    regions = find_regions(heatmap, RULE)
    assert len(regions) == MAX_REGIONS
    assert regions[-1].peak == 2 + 600 - MAX_REGIONS


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(st.integers(3, 150), st.integers(3, 150)),
    scale=st.floats(0.2, 3.0),
)
def test_the_first_region_is_the_images_score_whatever_the_images_size(
    seed: int, shape: tuple[int, int], scale: float
) -> None:
    energies = np.random.default_rng(seed).gamma(0.5, scale, (9, 9)).astype(np.float32)
    prediction = predict(cv2.resize(energies, (64, 64), interpolation=cv2.INTER_LINEAR), RULE, shape=shape)
    assert prediction.heatmap.shape == shape
    assert prediction.score == float(prediction.heatmap.max())
    assert bool(prediction.regions) == (prediction.verdict != "ok")
    for region in prediction.regions:
        x, y = region.peak_at
        assert float(prediction.heatmap[y, x]) == region.peak
        left, top, width, height = region.box
        assert 0 <= left <= x < left + width <= shape[1] and 0 <= top <= y < top + height <= shape[0]
        assert region.p_value >= prediction.p_value
    if prediction.regions:
        assert (prediction.regions[0].peak, prediction.regions[0].p_value) == (
            prediction.score,
            prediction.p_value,
        )


def test_areas_add_up_to_the_pixels_above_the_threshold_and_polygons_enclose_them() -> None:
    noise = np.random.default_rng(0).standard_normal((200, 300)).astype(np.float32)
    heatmap = np.abs(cv2.GaussianBlur(noise, (0, 0), 8)) * 12
    above = heatmap > RULE.threshold
    regions = find_regions(heatmap, RULE)
    assert 1 < len(regions) < MAX_REGIONS
    assert sum(region.area for region in regions) == int(above.sum())
    drawn = np.zeros(heatmap.shape, np.uint8)
    cv2.fillPoly(drawn, [np.array(region.polygon) for region in regions], 1)
    missed = cv2.erode(above.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool) & (drawn == 0)
    assert not missed.any()


def test_a_calibration_of_one_threshold_knows_no_review() -> None:
    rule = Calibration(1.0, 0.01, "conformal", (0.5,))
    assert [rule.verdict(score) for score in (0.9, 1.0, 1.01)] == ["ok", "ok", "ng"]
