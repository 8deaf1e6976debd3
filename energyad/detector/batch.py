"""Many image files through one detector: a file that cannot be read costs its own row and no other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import length_hint
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from energyad.detector import AnomalyDetector
from energyad.errors import ImageError
from energyad.images import reading
from energyad.images.prefetch import prefetch_map
from energyad.model.statistics import PartStatistics, measure
from energyad.scoring import results
from energyad.scoring.prediction import Prediction
from energyad.scoring.results import ImageResult


@dataclass(frozen=True)
class Inspection:
    """One file scored: its pixels and what the detector says of them, or why it could not be read."""

    path: Path
    pixels: UInt8[np.ndarray, "h w 3"] | None
    prediction: Prediction | None
    error: ImageError | None

    def result(
        self, detector: AnomalyDetector, *, image: str | None = None, heatmap: str | None = None
    ) -> ImageResult:
        """Its result, as JSON knows it. image: what it is called, else its path. heatmap: where its overlay lies."""
        name, model = str(self.path) if image is None else image, detector.reference
        if self.prediction is not None:
            return results.scored(self.prediction, image=name, model=model, heatmap=heatmap)
        reason = "cannot be read" if self.error is None else self.error.reason
        return results.unreadable(reason, image=name, model=model, calibration=detector.calibration)

    def observation(self, detector: AnomalyDetector) -> PartStatistics | None:
        """What drift is told from; None where it could not be read."""
        if self.pixels is None or self.prediction is None:
            return None
        return measure_prediction(detector, self.pixels, self.prediction)


def measure_prediction(
    detector: AnomalyDetector, pixels: UInt8[np.ndarray, "h w 3"], prediction: Prediction
) -> PartStatistics:
    """What drift is told from, of an image at its own size."""
    resized = reading.resize(pixels, detector.input_shape)
    return measure(resized, prediction.heatmap, prediction.score, prediction.category)


def inspect_files(
    detector: AnomalyDetector, paths: Iterable[Path], *, batch_size: int | None = None
) -> Iterator[Inspection]:
    """Score files in their order. Never raises ImageError; memory is that of a few batches, however many there are.

    batch_size: files read and scored together; the runtime's own by default.
    """
    detector.prepare(length_hint(paths))
    plan = detector.runtime.plan
    for done in prefetch_map(
        paths,
        detector.read,
        detector.score_pixels,
        batch_size=batch_size or plan.batch_size,
        workers=plan.workers,
    ):
        yield Inspection(done.item, done.pixels, done.result, done.error)
