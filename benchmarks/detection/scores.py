"""Scores of every test image, kept beside the rows: what two methods are compared by on the same images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from benchmarks import provenance
from benchmarks.detection.rows import Row
from energyad.errors import DataError

SCORES = "scores.jsonl"
DIGITS = 6  # that count

Cell: TypeAlias = tuple[str, str, int, int]


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One method's scores of one category's test images, in their order. The rest is as in `Row`."""

    method: str
    category: str
    seed: int
    image_size: int
    settings_hash: str
    defective: tuple[bool, ...]
    scores: tuple[float, ...]
    commit: str | None
    modified: bool
    date: str

    @property
    def cell(self) -> Cell:
        """What has one current row."""
        return self.method, self.category, self.seed, self.image_size


def beside(results: Path) -> Path:
    """Where the scores of these results are kept."""
    return results.parent / SCORES


def append(path: Path, row: Row, *, defective: Sequence[bool], scores: Float[np.ndarray, " n"]) -> None:
    """Add the scores that a row was computed from."""
    shared = {name: value for name, value in asdict(row).items() if name in _NAMES}
    rounded = [float(f"{score:.{DIGITS}g}") for score in scores]
    kept = ScoreRow(**shared, defective=tuple(bool(each) for each in defective), scores=tuple(rounded))
    provenance.append_row(path, asdict(kept))


def read(path: Path) -> list[ScoreRow]:
    """The newest row of each cell. Raises DataError for one with other fields."""
    newest: dict[Cell, ScoreRow] = {}
    for number, plain in enumerate(provenance.read_rows(path), start=1):
        if set(plain) != _NAMES or len(plain["scores"]) != len(plain["defective"]):
            raise DataError(f"{path}, line {number}: no row of scores; remove that line")
        row = ScoreRow(**{**plain, "defective": tuple(plain["defective"]), "scores": tuple(plain["scores"])})
        known = newest.get(row.cell)
        if known is None or known.date <= row.date:
            newest[row.cell] = row
    return list(newest.values())


def of_rows(kept: Iterable[ScoreRow], rows: Iterable[Row]) -> list[ScoreRow]:
    """Those that one of these rows was computed from."""
    known = {
        (row.method, row.category, row.seed, row.image_size, row.settings_hash, row.date) for row in rows
    }
    return [each for each in kept if (*each.cell, each.settings_hash, each.date) in known]


_NAMES = {field.name for field in fields(ScoreRow)}
