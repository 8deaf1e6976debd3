"""The threshold of a fit, from good parts held out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from energyad.fitting.category import CategoryFit
from energyad.fitting.context import FitContext
from energyad.fitting.extraction import image_reader, process_images
from energyad.images.reading import ImageLike
from energyad.model import statistics
from energyad.model.statistics import PartStatistics
from energyad.runtimes.eager import HeadRuntime
from energyad.scoring.calibration import Calibration, calibrate, calibrate_together
from energyad.scoring.scorer import EnergyHead


class FitCalibration(NamedTuple):
    """The thresholds of a fit, and what they rest on.

    Attributes:
        units: A divisor of each category's energies; None for a model of one category.
        calibration: The thresholds, in these units.
        parts: Statistics of the held-out parts, in these units.
    """

    units: tuple[float, ...] | None
    calibration: Calibration
    parts: list[PartStatistics]


def calibrate_on(fits: Sequence[CategoryFit], head: EnergyHead, context: FitContext) -> FitCalibration:
    """Set the thresholds by the held-out images of all categories.

    Args:
        fits: One for each category.
        head: Of these fits, with units of 1.
        context: Of the fit, whose session runs the backbone.
    """
    rates: dict[str, Any] = {
        "false_reject_rate": context.settings.threshold.false_reject_rate,
        "review_rate": context.settings.threshold.review_rate,
    }
    names = [fit.name for fit in fits]
    held_out = [image for fit in fits for image in fit.held_out_images]
    parts = measure(held_out, head, names, context)
    if len(fits) == 1:
        return FitCalibration(None, calibrate([part.score for part in parts], **rates), parts)
    scores = iter(part.score for part in parts)
    by_category = [list(islice(scores, len(fit.split.held_out))) for fit in fits]
    units, calibration = calibrate_together(by_category, **rates)
    unit_of: dict[str | None, float] = dict(zip(names, units, strict=True))
    rescaled = [statistics.rescale(part, unit_of[part.category]) for part in parts]
    return FitCalibration(units, calibration, rescaled)


def measure(
    held_out: Sequence[ImageLike], head: EnergyHead, categories: Sequence[str], context: FitContext
) -> list[PartStatistics]:
    """Score each held-out image, and measure its pixels.

    Args:
        held_out: Images of good parts.
        head: What is fitted.
        categories: Names of the head's categories.
        context: Of the fit, whose session runs the backbone.
    """
    context.progress.stage("threshold", len(held_out))
    runtime = HeadRuntime(context.session, head)

    def score(pixels: Sequence[UInt8[np.ndarray, "h w 3"]]) -> list[PartStatistics]:
        batch = np.stack(pixels)
        return statistics.measure_batch(batch, runtime.run(batch), categories)

    read = image_reader(held_out, context.settings, max_pixels=context.max_pixels)
    indices = range(len(held_out))
    parts: list[PartStatistics] = []
    for batch, measured in process_images(read, score, indices, skip_bad=False, workers=runtime.plan.workers):
        parts += measured
        context.progress.advance(len(batch))
    return parts
