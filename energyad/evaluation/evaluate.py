"""How well a detector tells good test images from defective ones, and finds the defects in them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool

from energyad.data.datasets import GOOD, Category, TestItem, mask_faults
from energyad.detector import AnomalyDetector
from energyad.errors import DataError
from energyad.evaluation import metrics
from energyad.evaluation.metrics import PixelTally
from energyad.images.identity import pixel_digest
from energyad.progress import NullProgress, Progress


@dataclass(frozen=True, kw_only=True)
class ScoredTestItem(TestItem):
    """A test image with its label and its score.

    Attributes:
        score: Energy of the image.
        category: The category that the image was classified as, by a model for several.
    """

    score: float
    category: str | None = None


@dataclass(frozen=True)
class TypeRow:
    """Figures of one folder of test images, against all good ones.

    Attributes:
        defect_type: The folder's name.
        images: Number of images.
        above_threshold: Number of images that score above the model's threshold.
        image_auroc: None for good images, as are the next two.
        pixel_auroc: None without masks.
        aupro: Up to a false positive rate of 0.3; None without masks.
    """

    defect_type: str
    images: int
    above_threshold: int
    image_auroc: float | None
    pixel_auroc: float | None
    aupro: float | None


@dataclass(frozen=True)
class Evaluation:
    """Figures of one detector on one category; None where the category cannot give them.

    Attributes:
        category: Name of the category.
        model: Name of the detector.
        image_auroc: Over images, from their scores.
        image_auroc_interval: 95 %, bootstrap over images.
        pixel_auroc: Over all pixels of all test images at the network's input size; masks are resized by nearest
            neighbour. None where a defective image lacks its mask.
        aupro: The same, up to a false positive rate of 0.3.
        f1_max: Over images, at the best threshold, not the model's.
        threshold: The model's.
        resolution: Height and width in pixels that images are resized to.
        milliseconds_per_image: Reading, scoring and counting.
        recognised: Images classified as this category, by a model for several.
        types: One row for each folder of test images.
        items: The test images with their scores.
    """

    category: str
    model: str
    image_auroc: float | None
    image_auroc_interval: tuple[float, float] | None
    pixel_auroc: float | None
    aupro: float | None
    f1_max: float | None
    threshold: float
    resolution: tuple[int, int]
    milliseconds_per_image: float
    recognised: int | None
    types: tuple[TypeRow, ...]
    items: tuple[ScoredTestItem, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON: all but the single images."""
        return {name: value for name, value in asdict(self).items() if name != "items"}

    def row(self, defect_type: str) -> TypeRow:
        """Return the row of one folder of test images. Raises KeyError."""
        return {row.defect_type: row for row in self.types}[defect_type]


def evaluate(
    detector: AnomalyDetector, category: Category, *, progress: Progress | None = None
) -> Evaluation:
    """Score every test image of a category, and compute the figures.

    Raises:
        DataError: There are no test images.
        ImageError: At the first image or mask that cannot be read: figures over part of a test set would not be
            comparable.

    Example:
        >>> evaluate(detector, open_category("screw")).image_auroc
    """
    if not category.test:
        raise DataError(
            f"{category.root / 'test'}: no test images; `energyad score` needs none of their labels"
        )
    for fault in mask_faults(category):
        warnings.warn(fault, stacklevel=2)
    started = time.perf_counter()
    items, tallies = _score_all(detector, category, progress or NullProgress())
    elapsed = time.perf_counter() - started
    scores, defective = [item.score for item in items], [item.is_defective for item in items]
    interval = metrics.image_auroc_interval(defective, scores, generator=np.random.default_rng(0))
    recognised = sum(item.category == category.name for item in items)
    return Evaluation(
        category=category.name,
        model=detector.name,
        image_auroc=metrics.image_auroc(defective, scores),
        image_auroc_interval=interval,
        pixel_auroc=metrics.pixel_auroc(tallies.values()) if tallies else None,
        aupro=metrics.aupro(tallies.values()) if tallies else None,
        f1_max=metrics.best_f1(defective, scores),
        threshold=detector.threshold,
        resolution=detector.input_shape,
        milliseconds_per_image=round(1000 * elapsed / len(items), 2),
        recognised=recognised if detector.manifest.categories else None,
        types=_type_rows(category.defect_types, items, tallies, detector.threshold),
        items=tuple(items),
    )


def _score_all(
    detector: AnomalyDetector, category: Category, progress: Progress
) -> tuple[list[ScoredTestItem], dict[str, PixelTally]]:
    """Score each test image; tally its pixels by defect type, where the category has masks."""
    items: list[ScoredTestItem] = []
    tallies: dict[str, PixelTally] = {}
    progress.stage("scoring", len(category.test))
    images = detector.score_images([item.path for item in category.test])
    fitted, num_fitted = frozenset(detector.manifest.provenance.image_digests), 0
    for item, image in zip(category.test, images, strict=True):
        scored = image.require()
        num_fitted += pixel_digest(scored.pixels) in fitted
        if category.has_masks:
            tally = tallies.setdefault(item.defect_type, PixelTally.empty())
            tally.add(scored.network_heatmap, mask_at(item, detector.input_shape, of=scored.pixels.shape[:2]))
        prediction = scored.prediction
        items.append(ScoredTestItem(**vars(item), score=prediction.score, category=prediction.category))
        progress.advance()
    if num_fitted:
        text = f"{num_fitted} of {len(items)} test images of '{category.name}' were in the fit, so figures are too good"
        warnings.warn(text, stacklevel=3)
    return items, tallies


def mask_at(item: TestItem, shape: tuple[int, int], *, of: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Read an item's mask, empty for good parts, and resize it.

    Args:
        item: The test image.
        shape: Height and width to resize to.
        of: Height and width of the image, which the mask must have.
    """
    mask = item.read_mask(of).astype(np.uint8)
    return cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT).astype(bool)


def _type_rows(
    defect_types: Sequence[str],
    items: Sequence[ScoredTestItem],
    tallies: Mapping[str, PixelTally],
    threshold: float,
) -> tuple[TypeRow, ...]:
    """One row for each defect type, against all good images, and one for the good images where there are any."""
    by_type: dict[str, list[float]] = {}
    for item in items:
        by_type.setdefault(item.defect_type, []).append(item.score)
    good = by_type.get(GOOD, [])
    rows = []
    for defect_type in defect_types:
        scores, pair = by_type[defect_type], (GOOD, defect_type)
        pixels = [tallies[name] for name in pair if name in tallies]
        labels = [False] * len(good) + [True] * len(scores)
        rows.append(
            TypeRow(
                defect_type=defect_type,
                images=len(scores),
                above_threshold=sum(score > threshold for score in scores),
                image_auroc=metrics.image_auroc(labels, [*good, *scores]),
                pixel_auroc=metrics.pixel_auroc(pixels) if pixels else None,
                aupro=metrics.aupro(pixels) if pixels else None,
            )
        )
    if good:
        rows.append(TypeRow(GOOD, len(good), sum(score > threshold for score in good), None, None, None))
    return tuple(rows)
