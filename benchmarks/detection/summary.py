"""`python -m benchmarks.detection.summary`: one table of ten methods, at the default image size, on real images.

All methods, figures and few good images stand in results.md beside this file.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.detection import rows, standing
from benchmarks.detection.method import side_of
from benchmarks.detection.rows import Row
from benchmarks.detection.table import FIGURES, NOTHING, Figure
from benchmarks.markdown import Place, mean_and_deviation, table, tabulate
from energyad.data.demo import DEMO_NAME
from energyad.settings import FitSettings

PLACE = Place.of("detection summary")
METHODS = (
    "energyad", "energyad-init", "energyad-whole", "energyad-int8", "knn", "knn-whitened", "patchcore-0.1",
    "patchcore-0.01", "padim", "mahalanobis",
)  # fmt: skip
NAMES = ("image AUROC", "pixel AUROC", "AUPRO")


def measured(results: Path, methods: Sequence[str] = METHODS) -> list[Row]:
    """The rows of these methods: default image size, all good images, one model a category, real images."""
    size = side_of(FitSettings())
    return [
        row
        for row in standing.read(results)
        if row.method in methods
        and row.image_size == size
        and row.shots is None
        and not row.unified
        and row.category != DEMO_NAME  # rendered parts are no evidence
    ]


def ordered(real: Sequence[Row]) -> list[str]:
    """Their methods, the best mean image AUROC first."""
    return sorted({row.method for row in real}, key=lambda method: -_mean(real, method, FIGURES[0]))


def render(results: Path, *, methods: Sequence[str] = METHODS, spread: bool = True) -> str:
    """The table. spread: whether deviations over seeds stand beside the means."""
    real = measured(results, methods)
    categories = sorted({row.category for row in real})
    head = [
        "method",
        *(f"{name}, {figure}" for name in categories for figure in NAMES),
        "CPU ms an image",
        "seeds",
    ]
    lines = [
        _line([row for row in real if row.method == name], categories, spread=spread)
        for name in ordered(real)
    ]
    return table(head, lines)


def _line(measured: Sequence[Row], categories: Sequence[str], *, spread: bool) -> list[str]:
    show = _spread if spread else _average
    cells = [
        show([row for row in measured if row.category == name], figure)
        for name in categories
        for figure in FIGURES
    ]
    milliseconds = statistics.fmean(row.image_cpu_ms for row in measured)
    seeds = sorted({sum(row.category == name for row in measured) for name in categories})
    return [f"`{measured[0].method}`", *cells, f"{milliseconds:.0f}", " and ".join(map(str, seeds))]


def _spread(measured: Sequence[Row], figure: Figure) -> str:
    values = [value for row in measured if (value := figure(row)) is not None]
    return mean_and_deviation(values, 3) if values else NOTHING


def _average(measured: Sequence[Row], figure: Figure) -> str:
    return _spread(measured, figure).split(" ±")[0]


def _mean(measured: Sequence[Row], method: str, figure: Figure) -> float:
    """Mean over categories of the mean over seeds."""
    by_category: dict[str, list[float]] = {}
    for row in measured:
        if row.method == method:
            by_category.setdefault(row.category, []).append(figure(row) or 0.0)
    return statistics.fmean(statistics.fmean(values) for values in by_category.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or write it into a file, or check that the file has it. Returns the exit status."""
    return tabulate(
        render,
        PLACE,
        results=rows.RESULTS,
        program="benchmarks.detection.summary",
        what=__doc__,
        arguments=arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
