"""From scores of held-out good parts to thresholds, p-values and verdicts."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Literal, TypeAlias

import numpy as np
from pydantic import AfterValidator, Field

from energyad.errors import SettingsError
from energyad.scoring.distributions import student_quantile

Method: TypeAlias = Literal["conformal", "prediction limit"]
Verdict: TypeAlias = Literal["ok", "review", "ng"]
MAX_ENERGY = float(np.finfo(np.float32).max)
"""No score is higher, so a threshold above it would reject nothing."""
Energy: TypeAlias = Annotated[float, Field(ge=0, lt=MAX_ENERGY, allow_inf_nan=False)]
Rate: TypeAlias = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


def _require_ascending(scores: tuple[float, ...]) -> tuple[float, ...]:
    if any(first > second for first, second in pairwise(scores)):
        raise ValueError("scores must be in ascending order")
    return scores


@dataclass(frozen=True)
class Calibration:
    """Thresholds and the held-out good scores they rest on (energies, ascending).

    A part is `ng` above `threshold`, `review` above `review_threshold` (None: no such verdict), else `ok`.
    method: "conformal" (the finite-sample quantile, exact for any distribution) where there are enough good parts
    for the rate, else "prediction limit" (for normally distributed log-scores).
    created: when they were recalibrated, ISO 8601; None for those of the fit. data_sha256: of the good images; None for
    those of the fit.
    """

    threshold: Energy
    false_reject_rate: Rate
    method: Method
    good_scores: Annotated[tuple[Energy, ...], Field(min_length=1), AfterValidator(_require_ascending)]
    review_threshold: Energy | None = None
    review_rate: Rate | None = None
    review_method: Method | None = None
    created: str | None = None
    data_sha256: str | None = None

    def p_value(self, score: float) -> float:
        """(1 + number of good scores ≥ score) / (n + 1).

        For a new good part like the held-out ones, P(p ≤ a) ≤ a for every a (Vovk et al. 2005; Bates et al. 2023).
        After a fit the model knows the held-out parts too; by then its energies have only fallen, so it holds of those.
        Where a threshold is conformal, a score is above it exactly when its p-value is at most the rate; not so in a
        model for several categories, which have thresholds of their own and p-values together.
        """
        n = len(self.good_scores)
        return (1 + n - bisect_left(self.good_scores, score)) / (n + 1)

    def verdict(self, score: float) -> Verdict:
        """What becomes of a part with this score."""
        if score > self.threshold:
            return "ng"
        return "review" if score > self.lowest_threshold else "ok"

    @property
    def lowest_threshold(self) -> float:
        """Scores above it are not `ok`."""
        return self.threshold if self.review_threshold is None else self.review_threshold

    @property
    def smallest_p_value(self) -> float:
        """1 / (n + 1): no part gets a smaller one, and no lower false-reject rate can be certified."""
        return 1 / (len(self.good_scores) + 1)

    def guarantee(self) -> str:
        """One line for people: what the number of good parts allows to say of the false-reject rate."""
        n, rate = len(self.good_scores), self.false_reject_rate
        if self.method == "conformal":
            return f"certified by {n} good parts: on average at most {rate:.2%} of new ones are rejected"
        if n >= min_samples_for(rate):
            return (
                f"{n} good parts, for a threshold of each category; where they are too few to certify"
                f" {rate:.2%} (that takes {min_samples_for(rate)}), it is an estimate, a prediction limit"
            )
        return (
            f"{n} good part{'s' * (n != 1)} cannot certify {rate:.2%} (that takes {min_samples_for(rate)}; they certify"
            f" {self.smallest_p_value:.2%} at best): the threshold is an estimate, a prediction limit"
        )


def calibrate(
    good_scores: Sequence[float], *, false_reject_rate: float, review_rate: float | None = None
) -> Calibration:
    """Choose the threshold that a new good part exceeds with at most the given probability.

    With n ≥ 1/rate − 1 scores it is the ⌈(n + 1)(1 − rate)⌉-th smallest (split conformal prediction, Vovk et al.
    2005). Fewer cannot certify the rate by ranks, so the threshold is a prediction limit of the log-scores,
    and no lower than the highest score seen. Scores are energies, which are positive.
    review_rate: likewise for the lower threshold, above which a person should look. Raises SettingsError.
    """
    scores = np.sort(np.asarray(good_scores, dtype=np.float64))
    if len(scores) == 0 or not np.isfinite(scores).all():
        raise SettingsError("calibration needs at least one finite score of a good part")
    check_rates(false_reject_rate, review_rate)
    threshold, method = _threshold(scores, false_reject_rate)
    in_order = tuple(scores.tolist())
    if review_rate is None:
        return Calibration(threshold, false_reject_rate, method, in_order)
    review = _threshold(scores, review_rate)
    return Calibration(threshold, false_reject_rate, method, in_order, review[0], review_rate, review[1])


def calibrate_together(
    by_category: Sequence[Sequence[float]], *, false_reject_rate: float, review_rate: float | None = None
) -> tuple[tuple[float, ...], Calibration]:
    """A unit for the scores of each category, its own threshold, and the thresholds of all in such units.

    So the one for rejects is 1, and each category keeps the promise that its own parts allow. That for review is of all
    together, each score in the unit that the others of its category give (the jackknife of Barber et al., Annals of
    Statistics 2021): in one that it helped to set, a part would look more usual than a new one will.
    """

    def limit(scores: Sequence[float]) -> float:
        return calibrate(scores, false_reject_rate=false_reject_rate).threshold

    check_rates(false_reject_rate, review_rate)
    rules = [
        calibrate(category_scores, false_reject_rate=false_reject_rate) for category_scores in by_category
    ]
    units = tuple(rule.threshold for rule in rules)
    in_units = sorted(
        score / unit for scores, unit in zip(by_category, units, strict=True) for score in scores
    )
    method: Method = "conformal" if all(rule.method == "conformal" for rule in rules) else "prediction limit"
    together = Calibration(1.0, false_reject_rate, method, tuple(in_units))
    if review_rate is None:
        return units, together
    others = [
        ([*category_scores[:index], *category_scores[index + 1 :]] or category_scores)
        for category_scores in by_category
        for index in range(len(category_scores))
    ]
    scores = [score for category_scores in by_category for score in category_scores]
    ratios = np.sort([score / limit(remaining) for score, remaining in zip(scores, others, strict=True)])
    review, review_method = _threshold(ratios, review_rate)
    if min(map(len, by_category)) < min_samples_for(review_rate):  # a unit of so few says little of new parts
        review_method = "prediction limit"
    return units, replace(
        together,
        review_threshold=min(review, 1.0),
        review_rate=review_rate,
        review_method=review_method,
    )


def check_rates(false_reject_rate: float, review_rate: float | None) -> None:
    """Refuse rates outside 0 to 1, and a review rate below the one for rejects. Raises SettingsError."""
    for name, rate in (("false-reject rate", false_reject_rate), ("review rate", review_rate)):
        if rate is not None and not 0 < rate < 1:
            raise SettingsError(f"{name} {rate!r}: must lie between 0 and 1")
    if review_rate is not None and review_rate < false_reject_rate:
        raise SettingsError(
            f"review rate {review_rate!r}: must not be below the false-reject rate {false_reject_rate!r}"
        )


def min_samples_for(rate: float) -> int:
    """How many held-out good parts certify a false-reject rate: n with 1/(n + 1) ≤ rate."""
    return max(1, math.ceil(1 / rate - 1 - 1e-9))


def _threshold(scores: np.ndarray, rate: float) -> tuple[float, Method]:
    n = len(scores)
    rank = int(np.ceil((n + 1) * (1 - rate) - 1e-9))
    if rank <= n:
        return float(scores[max(rank, 1) - 1]), "conformal"
    return max(prediction_limit(scores, rate), float(scores[-1])), "prediction limit"


PRIOR_SPREAD = 0.15
"""Standard deviation of good parts' log-scores that is assumed before any is seen."""
PRIOR_WEIGHT = 4
"""Observations that assumption counts for: three held-out parts hardly show a spread, thirty do."""


def prediction_limit(scores: np.ndarray, rate: float) -> float:
    """One-sided limit for the next observation of log-normal scores, 1 − rate of its posterior predictive.

    The variance has a conjugate (scaled inverse χ²) prior, the mean a flat one (Gelman et al., Bayesian Data Analysis,
    sec. 3.3): Student's limit, with PRIOR_WEIGHT more degrees of freedom. With few parts whose scores spread more than
    usual the realised rate is somewhat above the stated one.
    """
    logs = np.log(np.maximum(scores, np.finfo(np.float64).tiny))
    n = len(logs)
    degrees = PRIOR_WEIGHT + n - 1
    squares = PRIOR_WEIGHT * PRIOR_SPREAD**2 + ((logs - logs.mean()) ** 2).sum()
    spread = np.sqrt(squares / degrees)
    return float(np.exp(logs.mean() + student_quantile(rate, degrees) * spread * np.sqrt(1 + 1 / n)))


def benjamini_hochberg(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p-values (q-values) of a batch: calling all parts with q ≤ rate defective keeps the expected share of
    good parts among those called at or below rate (Benjamini and Hochberg 1995; valid for conformal p-values that
    share their good parts, Bates et al. 2023).

    With n held-out good parts no p-value is below 1/(n + 1), so in a batch of m at least m / (rate (n + 1)) parts must
    stand out before any is called.
    """
    if len(p_values) == 0:
        return ()
    count, order = len(p_values), np.argsort(p_values)
    shares = np.asarray(p_values, dtype=np.float64)[order] * count / np.arange(1, count + 1)
    adjusted = np.empty(count)
    adjusted[order] = np.minimum(np.minimum.accumulate(shares[::-1])[::-1], 1)
    return tuple(adjusted.tolist())
