"""Figures of one method on one category's test images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from anomalib.metrics.aupro import _AUPRO
from jaxtyping import Bool, Float
from sklearn.metrics import precision_recall_curve, roc_auc_score

RESAMPLES = 1000
FPR_LIMIT = 0.3


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Image AUROC with its 95 % bootstrap interval over images, best F1 over thresholds, and pixel figures."""

    image_auroc: float
    image_auroc_low: float
    image_auroc_high: float
    pixel_auroc: float | None
    aupro: float | None
    best_f1: float


def judge(
    scores: Float[np.ndarray, " n"],
    defective: Bool[np.ndarray, " n"],
    heatmaps: Float[np.ndarray, "n h w"],
    masks: Bool[np.ndarray, "n h w"] | None,
) -> Quality:
    """All figures. masks: None where the category has not all of them."""
    low, high = bootstrap_interval(scores, defective, np.random.default_rng(0))
    return Quality(
        image_auroc=float(roc_auc_score(defective, scores)),
        image_auroc_low=low,
        image_auroc_high=high,
        pixel_auroc=None if masks is None else float(roc_auc_score(masks.ravel(), heatmaps.ravel())),
        aupro=None if masks is None else aupro(heatmaps, masks),
        best_f1=best_f1(scores, defective),
    )


def bootstrap_interval(
    scores: Float[np.ndarray, " n"], defective: Bool[np.ndarray, " n"], rng: np.random.Generator
) -> tuple[float, float]:
    """The middle 95 % of the AUROC over images drawn with replacement, good and defective apart."""
    good, bad = np.flatnonzero(~defective), np.flatnonzero(defective)
    labels = np.repeat([False, True], [len(good), len(bad)])
    aurocs = [
        roc_auc_score(
            labels, scores[np.concatenate([rng.choice(good, len(good)), rng.choice(bad, len(bad))])]
        )
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(aurocs, [0.025, 0.975])
    return float(low), float(high)


def best_f1(scores: Float[np.ndarray, " n"], defective: Bool[np.ndarray, " n"]) -> float:
    """The highest F1 that any threshold gives; chosen on the test images, so no estimate of use."""
    precision, recall, _ = precision_recall_curve(defective, scores)
    return float((2 * precision * recall / np.maximum(precision + recall, 1e-12)).max())


def aupro(heatmaps: Float[np.ndarray, "n h w"], masks: Bool[np.ndarray, "n h w"]) -> float:
    """anomalib's area under the per-region overlap, false positive rate up to 0.3."""
    metric = _AUPRO(fpr_limit=FPR_LIMIT)
    metric.update(torch.from_numpy(heatmaps), torch.from_numpy(masks).int())
    return float(metric.compute())
