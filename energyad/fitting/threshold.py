"""The threshold of a fit, from good parts held out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import UInt8

from energyad.fitting.category import (
    CategoryFit,
)
from energyad.fitting.extraction import work_on
from energyad.images.reading import ImageLike
from energyad.model import statistics
from energyad.progress import Progress
from energyad.runtimes.eager import HeadRuntime
from energyad.runtimes.onnx import OnnxFeatures
from energyad.scoring.calibration import Calibration, calibrate, calibrate_together
from energyad.scoring.scorer import EnergyHead
from energyad.settings import FitSettings


def calibrate_on(
    fits: Sequence[CategoryFit],
    head: EnergyHead,
    session: OnnxFeatures,
    settings: FitSettings,
    progress: Progress,
) -> tuple[tuple[float, ...] | None, Calibration, list[statistics.PartStatistics]]:
    """Units of several categories, the thresholds, and statistics of the held-out parts in these units.

    head: of these fits, whose energies are in units of one.
    """
    held_out = [image for each in fits for image in each.held_out_images]
    rates: dict[str, Any] = {
        "false_reject_rate": settings.threshold.false_reject_rate,
        "review_rate": settings.threshold.review_rate,
    }
    names = [each.name for each in fits]
    runtime = HeadRuntime(session, head, side=settings.input.image_size)
    parts = measure(held_out, runtime, names, settings, progress)
    scores = [part.score for part in parts]
    if len(fits) == 1:
        return None, calibrate(scores, **rates), parts
    remaining = iter(scores)
    of_each = [list(islice(remaining, len(each.held_out))) for each in fits]
    units, calibration = calibrate_together(of_each, **rates)
    unit_of: dict[str | None, float] = dict(zip(names, units, strict=True))
    return units, calibration, [statistics.rescale(part, unit_of[part.category]) for part in parts]


def measure(
    held_out: Sequence[ImageLike],
    runtime: HeadRuntime,
    categories: Sequence[str],
    settings: FitSettings,
    progress: Progress,
) -> list[statistics.PartStatistics]:
    """What the head and the pixels say of each held-out good image."""
    progress.stage("threshold", len(held_out))
    parts: list[statistics.PartStatistics] = []

    def work(pixels: Sequence[UInt8[np.ndarray, "rows columns 3"]]) -> list[statistics.PartStatistics]:
        batch = np.stack(pixels)
        return statistics.measure_batch(batch, runtime.run(batch), categories)

    for places, found in work_on(
        held_out, work, settings=settings, skip_bad=False, workers=runtime.plan.workers
    ):
        parts += found
        progress.advance(len(places))
    return parts
