"""Quantiles and the two-sample test that calibration and drift need, without SciPy: it would be a fifth of an install.

Degrees of freedom are whole numbers here, so the distribution functions are finite sums (Abramowitz and Stegun,
Handbook of Mathematical Functions, 26.4.4, 26.4.5, 26.7.3 and 26.7.4). The tests compare them with SciPy's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float


def student_quantile(tail: float, degrees: int) -> float:
    """Return the value that Student's t exceeds with a probability.

    Args:
        tail: The probability, above 0 and at most one half.
        degrees: Degrees of freedom, a whole number from 1.
    """
    return _bisect_upwards(lambda value: _student_tail(value, degrees) > tail)


def chi_squared_quantile(tail: float, degrees: int) -> float:
    """Return the value that χ² exceeds with a probability.

    Args:
        tail: The probability, between 0 and 1.
        degrees: Degrees of freedom, a whole number from 1.
    """
    return _bisect_upwards(lambda value: _chi_squared_tail(value, degrees) > tail)


def kolmogorov_smirnov(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " m"]) -> tuple[float, float]:
    """Compare two samples: the largest distance of their distribution functions, and how rarely chance gives as much.

    The p-value is exact where no value is met twice, and too large rather than too small otherwise (Hodges, The
    significance probability of the Smirnov two-sample test, 1957). It takes n + m steps over the smaller sample.

    Returns:
        The distance, 0 to 1, and its two-sided p-value.
    """
    n, m = len(a), len(b)
    values = np.concatenate([a, b])
    below_a = np.searchsorted(np.sort(a), values, side="right")
    below_b = np.searchsorted(np.sort(b), values, side="right")
    steps = int(np.abs(below_a * m - below_b * n).max())  # whole numbers: n m times the distance
    return steps / (n * m), _probability_of_distance(min(n, m), max(n, m), steps)


def _probability_of_distance(n: int, m: int, steps: int) -> float:
    """Probability that a random order of n and m values is anywhere `steps` / (n m) apart, or more.

    Entry i after s values: of them i are of the first sample; the probability that it was so far apart by then.
    """
    i = np.arange(n + 1)
    reached = np.full(n + 1, float(steps <= 0))
    for s in range(1, n + m + 1):
        from_first = np.concatenate([[0.0], reached[:-1]])
        j = s - i
        reached = (i * from_first + np.maximum(j, 0) * reached) / s
        reached[np.abs(i * m - j * n) >= steps] = 1.0
    return float(reached[n])


def _student_tail(value: float, degrees: int) -> float:
    """Probability that t exceeds a value: 26.7.3 for odd degrees, 26.7.4 for even ones.

    In extended precision where the machine has it: a small tail is what is left of nearly one half.
    """
    tangent, odd = np.longdouble(value) / np.sqrt(np.longdouble(degrees)), degrees % 2
    cosine = 1 / np.hypot(1, tangent)
    sine = tangent * cosine
    k = np.arange(1, degrees // 2, dtype=np.longdouble)
    ratios = (2 * k / (2 * k + 1)) if odd else ((2 * k - 1) / (2 * k))
    terms = np.cumprod(np.concatenate([[cosine if odd else 1], ratios * cosine**2]))
    if not odd:
        return float((1 - sine * terms.sum()) / 2)
    quarter_turn = 2 * np.arctan(np.longdouble(1))
    inside = np.arctan(tangent) + (sine * terms.sum() if degrees > 1 else 0)
    return float((1 - inside / quarter_turn) / 2)


def _chi_squared_tail(value: float, degrees: int) -> float:
    """Probability that χ² exceeds a value: 26.4.4 for odd degrees, 26.4.5 for even ones."""
    half, odd = value / 2, degrees % 2
    offset = 0.5 if odd else 0.0
    terms = (half ** (j + offset) / math.gamma(j + offset + 1) for j in range(degrees // 2))
    return (math.erfc(math.sqrt(half)) if odd else 0.0) + math.exp(-half) * sum(terms)


def _bisect_upwards(is_below: Callable[[float], bool]) -> float:
    """Where a condition that holds at 0 ends, to the last digit."""
    low, high = 0.0, 1.0
    while is_below(high):
        low, high = high, 2 * high
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return high
