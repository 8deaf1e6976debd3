"""Many image files through one detector: a file that cannot be read costs its own row and no other."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from operator import length_hint
from pathlib import Path
from typing import Self

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


@dataclass(frozen=True)
class ScoreRow:
    """One line of a score table. score, is_anomalous: None where `error` says why the file could not be read."""

    path: str
    score: float | None
    threshold: float
    is_anomalous: bool | None
    heatmap: str | None
    error: str | None

    @classmethod
    def of(cls, inspection: Inspection, *, threshold: float, heatmap: Path | None = None) -> Self:
        """The line of one inspection; heatmap: where its overlay was written."""
        prediction = inspection.prediction
        if prediction is None:
            reason = inspection.error.reason if inspection.error is not None else "cannot be read"
            return cls(str(inspection.path), None, threshold, None, None, reason)
        place = None if heatmap is None else str(heatmap)
        return cls(str(inspection.path), prediction.score, threshold, prediction.is_anomalous, place, None)


def by_score(rows: Iterable[ScoreRow]) -> list[ScoreRow]:
    """Highest score first, files that could not be read last."""
    return sorted(rows, key=lambda row: (row.score is None, -(row.score or 0.0), row.path))


def scores_csv(rows: Iterable[ScoreRow]) -> str:
    """The rows as CSV with a header; empty cells for what is not known."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [column.name for column in fields(ScoreRow)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()
