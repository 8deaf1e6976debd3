"""One cell of the comparison: fit, score, measure; and the rows it gives."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from benchmarks import provenance
from benchmarks.detection.method import Fitted, Method, read_batches
from benchmarks.detection.quality import Quality, measure_quality
from benchmarks.detection.rows import Row, settings_hash
from energyad.data.datasets import Category
from energyad.errors import DataError

PACKAGES = (*provenance.PACKAGES, "timm", "onnxruntime", "anomalib", "scikit-learn", "opencv-python-headless")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What to measure: a method on categories fitted together (one of them, or several: unified)."""

    name: str
    method: Method
    categories: tuple[Category, ...]
    shots: int | None
    seed: int

    @property
    def settings_hash(self) -> str:
        """Of the method's settings."""
        return settings_hash(self.method.settings)


@dataclass(frozen=True)
class Clock:
    """Seconds on the wall and of this process's processor time."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Clock:
        """Two readings without a common zero; only their differences mean something."""
        return cls(time.perf_counter(), time.process_time())

    def __sub__(self, earlier: Clock) -> Clock:
        return Clock(self.wall - earlier.wall, self.cpu - earlier.cpu)


@dataclass(frozen=True)
class Cost:
    """What a fit took: good images, bytes without the backbone, time."""

    num_train: int
    model_bytes: int
    fit: Clock


@dataclass(frozen=True)
class Scored:
    """Test images of a category with scores and heatmaps at the size they were scored at."""

    category: Category
    scores: Float32[np.ndarray, " n"]
    heatmaps: Float32[np.ndarray, "n h w"]
    time: Clock


def measure(cell: Cell, *, threads: int) -> list[tuple[Row, Scored]]:
    """Fit once, then score and measure every category. Raises DataError where there is nothing to measure."""
    for category in cell.categories:
        require_test_images(category)
    good = [path for c in cell.categories for path in draw_good(c.train_good, cell.shots, cell.seed)]
    stamp = provenance.stamp(threads=threads, packages=PACKAGES)
    started = Clock.now()
    fitted = cell.method.fit(good, seed=cell.seed, threads=threads)
    fit_time = Clock.now() - started
    results = []
    for category in cell.categories:
        scored = score_category(fitted, category)
        quality = measure_quality(category, scored.scores, scored.heatmaps)
        cost = Cost(len(good), fitted.num_bytes, fit_time)
        results.append((make_row(cell, scored, quality, cost, stamp), scored))
    return results


def make_row(cell: Cell, scored: Scored, quality: Quality, cost: Cost, stamp: provenance.Stamp) -> Row:
    """Put a row together."""
    figures: dict[str, Any] = {name: _rounded(value) for name, value in vars(quality).items()}
    num_test = len(scored.category.test)
    return Row(
        method=cell.name,
        category=scored.category.name,
        categories=tuple(category.name for category in cell.categories),
        shots=cell.shots,
        seed=cell.seed,
        image_size=cell.method.image_size,
        settings_hash=cell.settings_hash,
        num_train=cost.num_train,
        num_test=num_test,
        model_bytes=cost.model_bytes,
        fit_seconds=round(cost.fit.wall, 2),
        fit_cpu_seconds=round(cost.fit.cpu, 2),
        image_ms=round(1000 * scored.time.wall / num_test, 2),
        image_cpu_ms=round(1000 * scored.time.cpu / num_test, 2),
        settings=cell.method.settings,
        **figures,
        **vars(stamp),
    )


def score_category(fitted: Fitted, category: Category) -> Scored:
    """Score all test images, in batches. The time is end to end: read, decode, resize, score, heatmap."""
    paths = [item.path for item in category.test]
    for pixels in read_batches(paths[:1], fitted.shape):
        fitted.score(pixels)  # the first call allocates
    started = Clock.now()
    raw = [fitted.score(pixels) for pixels in read_batches(paths, fitted.shape)]
    elapsed = Clock.now() - started
    return Scored(
        category,
        np.concatenate([part.score for part in raw]),
        np.concatenate([part.heatmap for part in raw]),
        elapsed,
    )


def draw_good(paths: Sequence[Path], shots: int | None, seed: int) -> list[Path]:
    """All good images, or a few drawn by the seed. Raises DataError for more than there are."""
    if shots is None:
        return list(paths)
    if shots > len(paths):
        raise DataError(f"{shots} good images asked for, {len(paths)} present; give a smaller --few-shot")
    chosen = np.random.default_rng(seed).choice(len(paths), shots, replace=False)
    return [paths[place] for place in sorted(chosen)]


def require_test_images(category: Category) -> None:
    """Refuse a category without good or without defective test images: it has no AUROC."""
    if len({item.is_defective for item in category.test}) < 2:
        raise DataError(f"{category.root}: test/good and a folder of defects are needed to compare methods")


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)
