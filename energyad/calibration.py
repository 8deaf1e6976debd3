"""From scores of held-out good parts to the threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.stats

from energyad.errors import SettingsError

Method = Literal["conformal", "prediction limit"]


@dataclass(frozen=True)
class Calibration:
    """A threshold and what it rests on. A part is anomalous where its score is above the threshold.

    method: "conformal" (the finite-sample quantile, exact for any distribution) where there are enough good parts
    for the rate, else "prediction limit" (for normally distributed log-scores).
    """

    threshold: float
    false_reject_rate: float
    method: Method
    good_scores: tuple[float, ...]


def calibrate(good_scores: Sequence[float], *, false_reject_rate: float) -> Calibration:
    """Choose the threshold that a new good part exceeds with at most the given probability.

    With n ≥ 1/rate − 1 scores it is the ⌈(n + 1)(1 − rate)⌉-th smallest (split conformal prediction, Vovk et al.
    2005). Fewer cannot certify the rate by ranks, so the threshold is a prediction limit of the log-scores,
    and no lower than the highest score seen. Scores are energies, which are positive.
    """
    scores = np.sort(np.asarray(good_scores, dtype=np.float64))
    if len(scores) == 0 or not np.isfinite(scores).all():
        raise SettingsError("calibration needs at least one finite score of a good part")
    n = len(scores)
    rank = int(np.ceil((n + 1) * (1 - false_reject_rate) - 1e-9))
    if rank <= n:
        return Calibration(float(scores[rank - 1]), false_reject_rate, "conformal", tuple(scores.tolist()))
    limit = max(prediction_limit(scores, false_reject_rate), float(scores[-1]))
    return Calibration(limit, false_reject_rate, "prediction limit", tuple(scores.tolist()))


USUAL_SPREAD = 0.15
"""Standard deviation of good parts' log-scores that is assumed before any is seen."""
USUAL_WEIGHT = 4
"""Observations that assumption counts for: three held-out parts hardly show a spread, thirty do."""


def prediction_limit(scores: np.ndarray, rate: float) -> float:
    """One-sided limit for the next observation of log-normal scores, 1 − rate of its posterior predictive.

    The variance has a conjugate (scaled inverse χ²) prior, the mean a flat one (Gelman et al., Bayesian Data Analysis,
    sec. 3.3): Student's limit, with USUAL_WEIGHT more degrees of freedom. With few parts whose scores spread more than
    usual the realised rate is somewhat above the stated one.
    """
    logs = np.log(np.maximum(scores, np.finfo(np.float64).tiny))
    n = len(logs)
    degrees = USUAL_WEIGHT + n - 1
    squares = USUAL_WEIGHT * USUAL_SPREAD**2 + ((logs - logs.mean()) ** 2).sum()
    spread = np.sqrt(squares / degrees)
    return float(np.exp(logs.mean() + scipy.stats.t.ppf(1 - rate, degrees) * spread * np.sqrt(1 + 1 / n)))
