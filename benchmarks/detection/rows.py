"""One row of results: what was compared, how well it did, at what cost, and where that was measured."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks import provenance
from energyad.errors import DataError

RESULTS = Path(__file__).with_name("results.jsonl")

Key: TypeAlias = tuple[object, ...]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method on one category with one seed.

    categories: fitted on together; more than one is the unified mode. shots: good images taken of each category,
    None for all. Pixel figures are None without masks. image_auroc_low, image_auroc_high: bootstrap interval over
    test images, 95 %. model_bytes: without the backbone. *_seconds: of the fit, *_ms: of one image end to end;
    wall clock and, which others' load leaves alone, processor time. pixel_ap, aupro_5, aupimo: see `Quality`; older
    rows lack them. The rest is `provenance.Stamp`.
    """

    method: str
    category: str
    categories: tuple[str, ...]
    shots: int | None
    seed: int
    image_size: int
    settings_hash: str
    image_auroc: float
    image_auroc_low: float
    image_auroc_high: float
    pixel_auroc: float | None
    aupro: float | None
    best_f1: float
    num_train: int
    num_test: int
    model_bytes: int
    fit_seconds: float
    fit_cpu_seconds: float
    image_ms: float
    image_cpu_ms: float
    commit: str | None
    modified: bool
    date: str
    versions: dict[str, str]
    processor: str
    threads: int
    load: float
    settings: dict[str, Any]
    pixel_ap: float | None = None
    aupro_5: float | None = None
    aupimo: float | None = None

    @property
    def key(self) -> Key:
        """What a finished row is known by."""
        return cell_key(
            self.method, self.category, self.categories, self.shots, self.seed, self.settings_hash
        )

    @property
    def column(self) -> Key:
        """What has one configuration: a method in one mode."""
        return self.method, self.unified, self.shots is not None, self.image_size

    @property
    def unified(self) -> bool:
        """Whether one model was fitted on several categories."""
        return len(self.categories) > 1


def cell_key(
    method: str,
    category: str,
    categories: tuple[str, ...],
    shots: int | None,
    seed: int,
    settings_hash: str,
) -> Key:
    """The key of a row that may not exist yet. The image size is one of the settings."""
    return method, category, categories, shots, seed, settings_hash


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Twelve digits that change with any setting."""
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def append(path: Path, row: Row) -> None:
    """Add a row to the file."""
    provenance.append_row(path, asdict(row))


def read(path: Path) -> list[Row]:
    """All rows, oldest first. Raises DataError for one with other fields."""
    names = {field.name for field in fields(Row)}
    optional = {field.name for field in fields(Row) if field.default is not MISSING}
    rows = []
    for number, plain in enumerate(provenance.read_rows(path), start=1):
        if odd_names := (set(plain) ^ names) - (optional - set(plain)):
            odd = ", ".join(sorted(odd_names))
            raise DataError(f"{path}, line {number}: missing or unknown fields {odd}; remove that line")
        rows.append(Row(**{**plain, "categories": tuple(plain["categories"])}))
    return rows


def current(rows: Iterable[Row]) -> list[Row]:
    """The rows that count: of each method in each mode and image size, those of its newest settings alone.

    Few good images are a mode, since they have a table of their own. So categories of one column always share one
    configuration; of a cell measured twice the newer row counts.
    """
    newest: dict[Key, str] = {}
    cells: dict[Key, Row] = {}
    for row in sorted(rows, key=lambda row: row.date):
        newest[row.column] = row.settings_hash
        cells[row.key] = row
    return [row for row in cells.values() if row.settings_hash == newest[row.column]]
