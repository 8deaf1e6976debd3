"""Quantiles and the two-sample test agree with SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from energyad.scoring.distributions import chi_squared_quantile, kolmogorov_smirnov, student_quantile


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 30, 99, 1000])
def test_student_quantile_is_scipys(degrees: int) -> None:
    for tail in (0.4, 0.05, 0.01, 1e-5):
        assert student_quantile(tail, degrees) == pytest.approx(scipy.stats.t.isf(tail, degrees), rel=1e-9)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 8, 9])
def test_chi_squared_quantile_is_scipys(degrees: int) -> None:
    for tail in (0.9, 0.05, 1e-3, 1e-8):
        expected = scipy.stats.chi2.isf(tail, degrees)
        assert chi_squared_quantile(tail, degrees) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (8, 20), (60, 200), (300, 200)])
@pytest.mark.parametrize("shift", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("decimals", [1, 9])  # with ties, and without
def test_kolmogorov_smirnov_is_scipys(n: int, m: int, shift: float, decimals: int) -> None:
    generator = np.random.default_rng(n + m)
    a, b = generator.normal(size=n).round(decimals), generator.normal(shift, size=m).round(decimals)
    expected = scipy.stats.ks_2samp(a, b, method="exact")
    distance, p_value = kolmogorov_smirnov(a, b)
    assert distance == pytest.approx(expected.statistic)
    assert p_value == pytest.approx(expected.pvalue, rel=1e-9)


def test_samples_that_are_equal_are_no_distance_apart() -> None:
    assert kolmogorov_smirnov(np.arange(5.0), np.arange(5.0)) == (0.0, 1.0)
