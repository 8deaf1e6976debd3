"""One verdict from several views, such that the promise on false rejects holds for the part.

Bonferroni's inequality: with V views, each rejected with probability α/V at most, a good part is rejected with
probability α at most, however the views depend on each other. So each view's thresholds are set for a V-th of its
model's rates, the part's verdict is the worst of its views', and the part's p-value is min(1, V min p).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from energyad.detector import AnomalyDetector
from energyad.scoring.calibration import Calibration, calibrate


def share_rates(calibration: Calibration, *, views: int) -> Calibration:
    """Set the thresholds for a share of the rates, from the same held-out good scores.

    Where those are too few for the smaller rate, the threshold is an estimate, a prediction limit: see `calibrate`. Of
    a model for several categories the scores are in units of each category's threshold, and taken together.

    Args:
        calibration: Of one view's model.
        views: Of a part; with one nothing changes.
    """
    if views == 1:
        return calibration
    review_rate = None if calibration.review_rate is None else calibration.review_rate / views
    shared = calibrate(
        calibration.good_scores,
        false_reject_rate=calibration.false_reject_rate / views,
        review_rate=review_rate,
    )
    return replace(shared, created=calibration.created, data_sha256=calibration.data_sha256)


def for_view(detector: AnomalyDetector, *, views: int) -> AnomalyDetector:
    """Return the detector with the thresholds that one of several views has.

    Args:
        detector: Of the view.
        views: Of a part.
    """
    if views == 1:
        return detector
    shared = share_rates(detector.calibration, views=views)
    manifest = detector.manifest.model_copy(update={"calibration": shared})
    return AnomalyDetector(manifest, detector.contents, detector.runtime)


def combine_p_values(p_values: Sequence[float]) -> float:
    """Return the p-value of a part from those of its views: min(1, V min p), valid under any dependence."""
    return min(1.0, len(p_values) * min(p_values))
