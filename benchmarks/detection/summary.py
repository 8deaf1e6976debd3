"""`python -m benchmarks.detection.summary`: one table of all categories, on real images.

All methods at 256 pixels, and two of them at the size that `auto` chooses for each category, which is the default.

All methods, figures and few good images stand in results.md beside this file.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.detection import image_sizes, rows, standing
from benchmarks.detection.method import side_of
from benchmarks.detection.rows import Row
from benchmarks.detection.table import FIGURES, NOTHING, Figure
from benchmarks.markdown import Place, mean_and_deviation, table, tabulate
from energyad.data.demo import DEMO_NAME
from energyad.settings import FitSettings

PLACE = Place.of("detection summary")
METHODS = (
    "energyad", "energyad-init", "energyad-int8", "knn", "knn-whitened", "patchcore-0.1", "patchcore-0.01", "padim",
    "mahalanobis",
)  # fmt: skip


AT_AUTO = ("energyad", "knn")
"""Methods that are shown at the size that `auto` chooses as well."""
AUTO = " (auto)"


def measured(results: Path, methods: Sequence[str] = METHODS) -> list[Row]:
    """The rows of these methods: all good images, one model a category, real images.

    Rows at the size that `auto` chooses have a method of their own.
    """
    size, chosen = side_of(FitSettings()), image_sizes.read()
    whole = [
        row
        for row in standing.read(results)
        if row.method in methods
        and row.shots is None
        and not row.unified
        and row.category != DEMO_NAME  # rendered parts are no evidence
    ]
    at_auto = [
        replace(row, method=row.method + AUTO)
        for row in whole
        if row.method in AT_AUTO and row.image_size == chosen.get(row.category)
    ]
    return at_auto + [row for row in whole if row.image_size == size]


def ordered(real: Sequence[Row]) -> list[str]:
    """Their methods: first those with most categories, then by the mean image AUROC."""

    def rank(method: str) -> tuple[int, float]:
        found = _by_category(real, method, FIGURES[0])
        return -len(found), -statistics.fmean(statistics.fmean(values) for values in found.values())

    return sorted({row.method for row in real}, key=rank)


def render(results: Path, *, methods: Sequence[str] = METHODS, spread: bool = True) -> str:
    """The table: image AUROC of each category, and means over all that have the figure.

    Args:
        results: Path of the rows.
        methods: One line each.
        spread: Whether deviations over seeds stand beside the means.
    """
    real = measured(results, methods)
    categories = sorted({row.category for row in real})
    masked = [name for name in categories if any(row.aupro is not None for row in _of(real, name))]
    head = ["method", *categories, "mean", "pixel AUROC, mean", "AUPRO, mean", "CPU ms an image", "seeds"]
    lines = []
    for method in ordered(real):
        image, pixel, aupro = (_by_category(real, method, figure) for figure in FIGURES)
        rows_of_it = [row for row in real if row.method == method]
        lines.append(
            [
                f"`{method}`",
                *(_shown(image.get(name), spread=spread) for name in categories),
                _mean(image, categories),
                _mean(pixel, masked),
                _mean(aupro, masked),
                f"{statistics.fmean(row.image_cpu_ms for row in rows_of_it):.0f}",
                " and ".join(map(str, sorted({len(values) for values in image.values()}))),
            ]
        )
    return table(head, lines)


def _of(real: Sequence[Row], category: str) -> list[Row]:
    return [row for row in real if row.category == category]


def _by_category(real: Sequence[Row], method: str, figure: Figure) -> dict[str, list[float]]:
    """A figure of all seeds, of the categories that have it."""
    found: dict[str, list[float]] = {}
    for row in real:
        value = figure(row)
        if row.method == method and value is not None:
            found.setdefault(row.category, []).append(value)
    return found


def _shown(values: Sequence[float] | None, *, spread: bool) -> str:
    if values is None:
        return NOTHING
    return mean_and_deviation(values, 3) if spread else f"{statistics.fmean(values):.3f}"


def _mean(found: Mapping[str, Sequence[float]], categories: Sequence[str]) -> str:
    """Mean over categories of the mean over seeds, where the method has them all."""
    if not categories or found.keys() != set(categories):
        return NOTHING
    return f"{statistics.fmean(statistics.fmean(values) for values in found.values()):.3f}"


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
