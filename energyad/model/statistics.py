"""What is kept of one part beside its verdict: its score, and what its pixels look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Final

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from energyad.model.manifest import PartStatistics
from energyad.runtimes import RawScores

QUANTITIES: Final = tuple(field.name for field in fields(PartStatistics) if field.name != "category")


def measure(
    pixels: UInt8[np.ndarray, "rows columns 3"],
    heatmap: Float[np.ndarray, "rows columns"],
    score: float,
    category: str | None = None,
) -> PartStatistics:
    """Measure one part.

    Args:
        pixels: RGB, at the network's input size, so that cameras of any resolution compare.
        heatmap: Energies, at the same size.
        score: The image's energy.
        category: The category that the image was classified as, by a model for several.
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return PartStatistics(
        score=float(score),
        brightness=round(float(grey.mean()), 4),
        contrast=round(float(grey.std()), 4),
        sharpness=round(float(cv2.Laplacian(grey, cv2.CV_32F).std()), 4),
        heatmap_mean=float(np.float32(heatmap.mean(dtype=np.float64))),
        category=category,
    )


def measure_batch(
    pixels: UInt8[np.ndarray, "b rows columns 3"], raw: RawScores, categories: Sequence[str]
) -> list[PartStatistics]:
    """Measure each part of a batch. This is the only way that statistics of a part come about.

    Args:
        pixels: RGB, at the network's input size.
        raw: What the graph gave for them.
        categories: Names of the categories that the model is for; empty for a model of one.
    """
    return list(map(measure, pixels, raw.heatmap, raw.score, raw.category_names(categories)))


def rescale(part: PartStatistics, unit: float) -> PartStatistics:
    """Return the same part with its energies in this unit."""
    mean = part.heatmap_mean
    return replace(part, score=part.score / unit, heatmap_mean=None if mean is None else mean / unit)
