"""Cells of the comparison on a Ray cluster, a cell a task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch

from benchmarks.detection.measure import Cell, Scored, measure
from benchmarks.detection.rows import Row
from energyad.integrations.ray_fitting import run_side_by_side

Measured = list[tuple[Row, Scored]]


def measure_cells(
    cells: Sequence[Cell], *, threads: int, address: str | None
) -> Iterator[tuple[Cell, Measured | str]]:
    """Measure cells, as many at a time as there are cores; of a cell that failed, why, in one line."""
    yield from run_side_by_side(partial(_measure, threads=threads), cells, address=address, cores=threads)


def _measure(cell: Cell, *, threads: int) -> Measured:
    torch.set_num_threads(threads)
    return measure(cell, threads=threads)
