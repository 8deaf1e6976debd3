"""What is kept of one part beside its verdict: its score, and what its pixels look like."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Final

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from energyad.manifest import GoodPart, Manifest
from energyad.runtimes import Runtime


@dataclass(frozen=True)
class Observation:
    """What is kept of one part. brightness, contrast: mean and standard deviation of grey values, 0 to 255.

    sharpness: standard deviation of the grey values' Laplacian. heatmap_mean: mean energy. All of the pixels that the
    network sees. None where only the score is known. category: that it was taken for; None of a model of one.
    """

    score: float
    brightness: float | None = None
    contrast: float | None = None
    sharpness: float | None = None
    heatmap_mean: float | None = None
    category: str | None = None


QUANTITIES: Final = tuple(field.name for field in fields(Observation) if field.name != "category")


def observe(
    pixels: UInt8[np.ndarray, "size size 3"],
    heatmap: Float[np.ndarray, "rows columns"],
    score: float,
    category: str | None = None,
) -> Observation:
    """Measure one part. pixels: RGB, at the network's size, so that cameras of any resolution compare."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return Observation(
        score=float(score),
        brightness=round(float(grey.mean()), 4),
        contrast=round(float(grey.std()), 4),
        sharpness=round(float(cv2.Laplacian(grey, cv2.CV_32F).std()), 4),
        heatmap_mean=float(np.float32(heatmap.mean(dtype=np.float64))),
        category=category,
    )


def observe_batch(
    pixels: Sequence[UInt8[np.ndarray, "size size 3"]], runtime: Runtime, categories: Sequence[str]
) -> list[Observation]:
    """Score images of the network's size, and measure each. categories: the names of those that the model is for."""
    raw = runtime.run(np.stack(pixels))
    names = [None] * len(pixels) if raw.category is None else [categories[number] for number in raw.category]
    return list(map(observe, pixels, raw.heatmap, raw.score, names))


def good_parts(observations: Iterable[Observation]) -> tuple[GoodPart, ...]:
    """What a model keeps of the held-out good parts."""
    return tuple(GoodPart(**asdict(part)) for part in observations)


def reference_of(manifest: Manifest) -> list[Observation]:
    """The held-out good parts of a model; their scores alone where it was fitted before it kept more."""
    if manifest.good_parts:
        return [Observation(**part.model_dump()) for part in manifest.good_parts]
    return [Observation(score) for score in manifest.calibration.good_scores]
