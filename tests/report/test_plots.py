"""Laws of the report's histogram."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energyad.report.plots import histogram
from energyad.scoring.calibration import calibrate

SCORES = st.lists(st.integers(1, 400).map(lambda hundredths: hundredths / 100), min_size=1, max_size=6)


@pytest.mark.parametrize("rate", [0.01, 0.3])
@settings(max_examples=60, deadline=None)
@given(good=SCORES, scores=SCORES)
def test_every_image_is_in_a_bar_of_its_own_side_of_the_threshold(
    rate: float, good: list[float], scores: list[float]
) -> None:
    calibration = calibrate(good, false_reject_rate=rate)
    bars = re.findall(r'class="bar( over)?".*?<title>(\d+) images', histogram([*scores, *good], calibration))
    above = sum(int(count) for over, count in bars if over)
    assert sum(int(count) for _, count in bars) == len(scores) + len(good)
    assert above == sum(score > calibration.threshold for score in [*scores, *good])
