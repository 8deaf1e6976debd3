"""AUPIMO by anomalib: how much of each defect is found where next to no pixel of the good images is raised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float32

NUM_THRESHOLDS: Final = 20_000
"""anomalib's default, 300,000, takes gigabytes for hundreds of images; see `_ranks`."""
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
    maps = _ranks(heatmaps[counted], ~is_defective[counted])
    try:
        *_, scores, _ = aupimo_scores(
            torch.from_numpy(maps), torch.from_numpy(truth[counted]), num_thresholds=NUM_THRESHOLDS
        )
    except (RuntimeError, ValueError):
        return None
    return float(scores[~scores.isnan()].double().mean())


def _ranks(
    heatmaps: Float32[np.ndarray, "n h w"], is_good: Bool[np.ndarray, " n"]
) -> Float32[np.ndarray, "n h w"]:
    """Replace values by their ranks among the highest pixels of good images; what is lower is 0.

    Curves stay what they are, since only the order counts, and evenly spaced thresholds lie where AUPIMO looks. Where
    the highest pixels of good images are equal, as at the top of a heatmap that ends at the score, one after the other
    is raised: else no threshold would raise as few as 1e-5 of them.
    """
    good = heatmaps[is_good]
    high = (good >= np.quantile(good, LOW_QUANTILE)) & (good > good.min())
    order = np.argsort(good[high], kind="stable")
    ranks = np.zeros(heatmaps.shape, np.float32)
    of_good = np.zeros(good.shape, np.float32)
    places = np.empty(len(order), np.float32)
    places[order] = np.arange(1, len(order) + 1)
    of_good[high] = places
    ranks[is_good] = of_good
    below, upto = (
        np.searchsorted(good[high][order], heatmaps[~is_good], side=side) for side in ("left", "right")
    )
    ranks[~is_good] = (below + upto) / 2 + 0.5  # in the middle of good pixels that equal it
    return ranks
