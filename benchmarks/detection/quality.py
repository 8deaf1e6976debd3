"""Figures of one method on one category's test images, by energyad's own metrics for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float32

from benchmarks.detection.aupimo import mean_aupimo
from energyad.data.datasets import Category
from energyad.errors import DataError
from energyad.evaluation import metrics
from energyad.evaluation.evaluate import mask_at
from energyad.evaluation.metrics import PixelTally
from energyad.images import reading

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Image AUROC with its 95 % bootstrap interval, best F1 over thresholds; pixel figures, None without masks.

    aupro: up to a false positive rate of 0.3; aupro_5: of 0.05, as MVTec AD 2 counts. pixel_ap: average precision.
    aupimo: see `mean_aupimo`.
    """

    image_auroc: float
    image_auroc_low: float
    image_auroc_high: float
    pixel_auroc: float | None
    aupro: float | None
    best_f1: float
    pixel_ap: float | None
    aupro_5: float | None
    aupimo: float | None


def measure_quality(
    category: Category,
    scores: Float32[np.ndarray, " n"],
    heatmaps: Float32[np.ndarray, "n h w"],
    *,
    with_aupimo: bool = True,
) -> Quality:
    """All figures; AUPIMO takes seconds, the others less.

    Pixels are compared at the size of the heatmaps, masks brought there by nearest neighbour.
    """
    defective, listed = [item.is_defective for item in category.test], [float(score) for score in scores]
    interval = metrics.image_auroc_interval(defective, listed, generator=np.random.default_rng(0))
    masks = read_masks(category, heatmaps.shape[1:]) if category.has_masks else None
    tally = None if masks is None else tally_pixels(heatmaps, masks)
    return Quality(
        image_auroc=_present(metrics.image_auroc(defective, listed), category),
        image_auroc_low=_present(interval, category)[0],
        image_auroc_high=_present(interval, category)[1],
        pixel_auroc=None if tally is None else metrics.pixel_auroc([tally]),
        aupro=None if tally is None else metrics.aupro([tally]),
        best_f1=_present(metrics.best_f1(defective, listed), category),
        pixel_ap=None if tally is None else metrics.pixel_average_precision([tally]),
        aupro_5=None if tally is None else metrics.aupro([tally], fpr_limit=0.05),
        aupimo=None if masks is None or not with_aupimo else mean_aupimo(heatmaps, masks, defective),
    )


def tally_pixels(
    heatmaps: Float32[np.ndarray, "n h w"], masks: Iterable[Bool[np.ndarray, "h w"]]
) -> PixelTally:
    """Count all pixels."""
    tally = PixelTally.empty()
    for heatmap, mask in zip(heatmaps, masks, strict=True):
        tally.add(heatmap, mask)
    return tally


def read_masks(category: Category, shape: tuple[int, ...]) -> Sequence[Bool[np.ndarray, "h w"]]:
    """The test images' masks in that height and width, empty for good ones."""
    height, width = shape
    shapes = [
        (height, width) if item.mask is None else reading.read_image(item.path).shape[:2]
        for item in category.test
    ]
    return [mask_at(item, (height, width), of=own) for item, own in zip(category.test, shapes, strict=True)]


def _present(figure: T | None, category: Category) -> T:
    if figure is None:
        raise DataError(f"{category.root}: test/good and a folder of defects are needed to compare methods")
    return figure
