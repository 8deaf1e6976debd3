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
from energyad.pipeline import read_and_work
from energyad.prediction import Prediction


@dataclass(frozen=True)
class Inspection:
    """One file scored: its pixels and what the detector says of them, or why it could not be read."""

    path: Path
    pixels: UInt8[np.ndarray, "h w 3"] | None
    prediction: Prediction | None
    error: ImageError | None


def inspect_files(
    detector: AnomalyDetector, paths: Iterable[Path], *, batch_size: int | None = None
) -> Iterator[Inspection]:
    """Score files in their order. Never raises ImageError; memory is that of a few batches, however many there are.

    batch_size: files read and scored together; the runtime's own by default.
    """
    detector.prepare(length_hint(paths))
    plan = detector.runtime.plan
    for done in read_and_work(
        paths,
        detector.read,
        detector.score_pixels,
        batch_size=batch_size or plan.batch_size,
        workers=plan.workers,
    ):
        yield Inspection(done.item, done.pixels, done.result, done.error)
