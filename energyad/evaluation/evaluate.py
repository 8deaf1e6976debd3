"""How well a detector tells good test images from defective ones, and finds the defects in them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from energyad.data.datasets import GOOD, Category, TestItem, mask_faults
from energyad.detector import AnomalyDetector
from energyad.errors import DataError
from energyad.evaluation import metrics
from energyad.evaluation.metrics import PixelTally
from energyad.images import reading
from energyad.images.prefetch import prefetch_map
from energyad.progress import NullProgress, Progress

Scored: TypeAlias = tuple[float, str | None, np.ndarray, tuple[int, int]]
"""Score, what the image was taken for, heatmap, the image's own height and width."""


@dataclass(frozen=True)
class ScoredItem:
    """A test image and its score, an energy. category: that it was taken for, by a model for several."""

    path: Path
    defect_type: str
    mask: Path | None
    score: float
    category: str | None = None
    mask_inverted: bool = False


@dataclass(frozen=True)
class TypeRow:
    """One folder of test images, its defects told from all good ones. `above_threshold` counts images."""

    defect_type: str
    images: int
    above_threshold: int
    image_auroc: float | None
    pixel_auroc: float | None
    aupro: float | None


@dataclass(frozen=True)
class Evaluation:
    """Figures of one detector on one category; None where the category cannot give them.

    image_auroc, f1_max: over images, from their scores (f1_max: at the best threshold, not the model's).
    image_auroc_interval: 95 %, bootstrap over images. pixel_auroc, aupro (false positive rate up to 0.3): over all
    pixels of all test images at the graph's input, `resolution` pixels its longer side; masks come there by nearest
    neighbour, and both are None where a defective image lacks its mask. milliseconds_per_image: reading, scoring
    and tallying. recognised: images taken for this category, by a model for several.
    """

    category: str
    model: str
    image_auroc: float | None
    image_auroc_interval: tuple[float, float] | None
    pixel_auroc: float | None
    aupro: float | None
    f1_max: float | None
    threshold: float
    resolution: int
    milliseconds_per_image: float
    recognised: int | None
    types: tuple[TypeRow, ...]
    items: tuple[ScoredItem, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON: all but the single images."""
        return {name: value for name, value in asdict(self).items() if name != "items"}

    def row(self, defect_type: str) -> TypeRow:
        """The row of one folder of test images. Raises KeyError."""
        return {row.defect_type: row for row in self.types}[defect_type]


def evaluate(
    detector: AnomalyDetector, category: Category, *, progress: Progress | None = None
) -> Evaluation:
    """Score every test image of a category.

    Raises DataError where there is none, ImageError at the first image or mask that cannot be read: figures over
    part of a test set would not be comparable.
    """
    if not category.test:
        raise DataError(
            f"{category.root / 'test'}: no test images; `energyad score` needs none of their labels"
        )
    for fault in mask_faults(category):
        warnings.warn(fault, stacklevel=2)
    started = time.perf_counter()
    scores, taken_for, tallies = _score_all(detector, category, progress or NullProgress())
    elapsed = time.perf_counter() - started
    defective = [item.is_defective for item in category.test]
    return Evaluation(
        category=category.name,
        model=detector.name,
        image_auroc=metrics.image_auroc(defective, scores),
        image_auroc_interval=metrics.image_auroc_interval(
            defective, scores, generator=np.random.default_rng(0)
        ),
        pixel_auroc=metrics.pixel_auroc(tallies.values()) if tallies else None,
        aupro=metrics.aupro(tallies.values()) if tallies else None,
        f1_max=metrics.best_f1(defective, scores),
        threshold=detector.threshold,
        resolution=max(detector.input_shape),
        milliseconds_per_image=round(1000 * elapsed / len(scores), 2),
        recognised=taken_for.count(category.name) if detector.manifest.categories else None,
        types=_type_rows(category, scores, tallies, detector.threshold),
        items=tuple(
            ScoredItem(item.path, item.defect_type, item.mask, score, own, item.mask_inverted)
            for item, score, own in zip(category.test, scores, taken_for, strict=True)
        ),
    )


def _score_all(
    detector: AnomalyDetector, category: Category, progress: Progress
) -> tuple[list[float], list[str | None], dict[str, PixelTally]]:
    """The score of each test image and what it was taken for; tallies of pixels by defect type, none without masks."""
    shape, scores, taken_for = detector.input_shape, list[float](), list[str | None]()
    tallies: dict[str, PixelTally] = {}
    progress.stage("scoring", len(category.test))
    detector.prepare(len(category.test))

    def work(batch: Sequence[UInt8[np.ndarray, "h w 3"]]) -> list[Scored]:
        raw = detector.runtime.run(np.stack([reading.resize(pixels, shape) for pixels in batch]))
        shapes = [pixels.shape[:2] for pixels in batch]
        names = raw.category_names(detector.manifest.categories)
        return list(zip(raw.score.tolist(), names, raw.heatmap, shapes, strict=True))

    plan = detector.runtime.plan
    for done in prefetch_map(
        category.test,
        lambda item: detector.read(item.path),
        work,
        batch_size=plan.batch_size,
        workers=plan.workers,
    ):
        score, taken, heatmap, own_shape = done.require()
        if category.has_masks:
            tally = tallies.setdefault(done.item.defect_type, PixelTally.empty())
            tally.add(heatmap, mask_at(done.item, shape, of=own_shape))
        scores.append(score)
        taken_for.append(taken)
        progress.advance(1)
    return scores, taken_for, tallies


def mask_at(item: TestItem, shape: tuple[int, int], *, of: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The item's mask (empty for good parts) brought to `shape`, height and width. of: the shape of its image."""
    mask = item.read_mask(of).astype(np.uint8)
    return cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT).astype(bool)


def _type_rows(
    category: Category, scores: Sequence[float], tallies: Mapping[str, PixelTally], threshold: float
) -> tuple[TypeRow, ...]:
    by_type: dict[str, list[float]] = {}
    for item, score in zip(category.test, scores, strict=True):
        by_type.setdefault(item.defect_type, []).append(score)
    good = by_type.get(GOOD, [])
    rows = []
    for defect_type in (*category.defect_types, *([GOOD] if good else [])):
        own, defects = by_type[defect_type], defect_type != GOOD
        together = [tallies[name] for name in (GOOD, defect_type) if name in tallies]
        rows.append(
            TypeRow(
                defect_type=defect_type,
                images=len(own),
                above_threshold=sum(score > threshold for score in own),
                image_auroc=metrics.image_auroc([False] * len(good) + [True] * len(own), [*good, *own])
                if defects
                else None,
                pixel_auroc=metrics.pixel_auroc(together) if defects and together else None,
                aupro=metrics.aupro(together) if defects and together else None,
            )
        )
    return tuple(rows)
