"""Many image files through one detector: a file that cannot be read costs its own row and no other."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
from jaxtyping import UInt8

from energyad.detector import BATCH_SIZE, AnomalyDetector
from energyad.errors import ImageError
from energyad.prediction import Prediction


@dataclass(frozen=True)
class Reading:
    """One file: its pixels, or why there are none."""

    path: Path
    pixels: UInt8[np.ndarray, "h w 3"] | None
    error: ImageError | None

    def require(self) -> UInt8[np.ndarray, "h w 3"]:
        """The pixels. Raises ImageError where there are none."""
        if self.pixels is None:
            raise self.error or ImageError(self.path, "cannot be read")
        return self.pixels


@dataclass(frozen=True)
class Inspection:
    """One file scored: its pixels and what the detector says of them, or why it could not be read."""

    path: Path
    pixels: UInt8[np.ndarray, "h w 3"] | None
    prediction: Prediction | None
    error: ImageError | None


def inspect_files(
    detector: AnomalyDetector, paths: Sequence[Path], *, batch_size: int = BATCH_SIZE
) -> Iterator[Inspection]:
    """Score files in their order. Never raises ImageError; memory is that of a few batches."""
    for batch in read_ahead(detector, paths, batch_size=batch_size):
        readable = [reading.pixels for reading in batch if reading.pixels is not None]
        predictions = iter(detector.score_pixels(readable) if readable else [])
        for reading in batch:
            prediction = None if reading.pixels is None else next(predictions)
            yield Inspection(reading.path, reading.pixels, prediction, reading.error)


def read_ahead(
    detector: AnomalyDetector, paths: Sequence[Path], *, batch_size: int = BATCH_SIZE
) -> Iterator[list[Reading]]:
    """Decode the next batch of files in a thread while the last one is worked on."""
    parts = [paths[start : start + batch_size] for start in range(0, len(paths), batch_size)]
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="energyad-read") as pool:
        pending = pool.submit(_read_all, detector, parts[0] if parts else ())
        for following in [*parts[1:], ()]:
            batch, pending = pending.result(), pool.submit(_read_all, detector, following)
            yield batch


def _read_all(detector: AnomalyDetector, paths: Sequence[Path]) -> list[Reading]:
    return [_read(detector, path) for path in paths]


def _read(detector: AnomalyDetector, path: Path) -> Reading:
    try:
        return Reading(path, detector.read(path), None)
    except ImageError as error:
        return Reading(path, None, error)


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
