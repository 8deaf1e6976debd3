"""AUPIMO by anomalib: how much of each defect is found where next to no pixel of the good images is raised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float32

NUM_THRESHOLDS: Final = 20_000
"""anomalib's default, 300,000, takes gigabytes for hundreds of images; see `_where_it_counts`."""
LOW_QUANTILE: Final = 0.99
"""Of the pixels of good images. What lies below is raised in far more of them than AUPIMO looks at."""


def mean_aupimo(
    heatmaps: Float32[np.ndarray, "n h w"],
    masks: Sequence[Bool[np.ndarray, "h w"]],
    defective: Sequence[bool],
) -> float | None:
    """Return the mean of the defective images' AUPIMO (Bertoldo et al., BMVC 2024).

    An image's AUPIMO is the mean share of its defective pixels that are raised, over thresholds that raise a share of
    1e-5 to 1e-4 of the pixels of good images, on a logarithmic axis.

    Args:
        heatmaps: Of all test images.
        masks: Of the same images, empty for good ones.
        defective: Which images are. One whose mask is empty at this size counts nowhere.

    Returns:
        None where anomalib finds too few thresholds within those bounds, as of a handful of good images.
    """
    from anomalib.metrics.pimo.functional import aupimo_scores

    truth, is_defective = np.stack(masks), np.array(defective)
    counted = ~is_defective | truth.any(axis=(1, 2))
    maps = _where_it_counts(heatmaps[counted], heatmaps[~is_defective])
    try:
        *_, scores, _ = aupimo_scores(
            torch.from_numpy(maps), torch.from_numpy(truth[counted]), num_thresholds=NUM_THRESHOLDS
        )
    except (RuntimeError, ValueError):
        return None
    return float(scores[~scores.isnan()].double().mean())


def _where_it_counts(
    heatmaps: Float32[np.ndarray, "n h w"], good: Float32[np.ndarray, "m h w"]
) -> Float32[np.ndarray, "n h w"]:
    """Bring what is low to one level and what no good pixel reaches to another: thresholds lie evenly in between.

    Thresholds beyond these levels raise more pixels of good images than AUPIMO looks at, or none.
    """
    low, high = np.quantile(good, [LOW_QUANTILE, 1.0]).astype(np.float32)
    above = np.nextafter(high, np.float32(np.inf))
    return np.where(heatmaps > high, above, np.maximum(heatmaps, low)).astype(np.float32)
