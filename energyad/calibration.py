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
    for the rate, else "prediction limit" (exact for normally distributed log-scores).
    """

    threshold: float
    false_reject_rate: float
    method: Method
    good_scores: tuple[float, ...]


def calibrate(good_scores: Sequence[float], *, false_reject_rate: float) -> Calibration:
    """Choose the threshold that a new good part exceeds with at most the given probability.

    With n ≥ 1/rate − 1 scores it is the ⌈(n + 1)(1 − rate)⌉-th smallest (split conformal prediction, Vovk et al.
    2005). Fewer cannot certify the rate by ranks, so the threshold is Student's prediction limit of the log-scores,
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


FEW_SPREAD = 0.25
"""Standard deviation of log-scores assumed where fewer than three good parts are there to measure it."""


def prediction_limit(scores: np.ndarray, rate: float) -> float:
    """One-sided Student prediction limit for the next observation of log-normal scores."""
    logs = np.log(np.maximum(scores, np.finfo(np.float64).tiny))
    n = len(logs)
    measured = n >= 3
    spread = logs.std(ddof=1) if measured else FEW_SPREAD
    quantile = scipy.stats.t.ppf(1 - rate, n - 1) if measured else scipy.stats.norm.ppf(1 - rate)
    return float(np.exp(logs.mean() + quantile * spread * np.sqrt(1 + 1 / n)))
