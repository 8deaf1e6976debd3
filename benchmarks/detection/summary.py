"""`python -m benchmarks.detection.summary`: what a newcomer compares with, of the tables that `table` makes.

Main methods at the default image size; all else stands in this folder's README.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.detection import rows, standing, table
from benchmarks.markdown import Place, tabulate
from energyad.settings import FitSettings

PLACE = Place.of("detection summary")
METHODS = frozenset((
    "energyad", "energyad-init", "energyad-tau0", "energyad-whole", "knn", "knn-half", "knn-turned",
    "knn-whitened", "mahalanobis", "padim", "patchcore-0.01", "patchcore-0.1",
))  # fmt: skip


def render(results: Path) -> str:
    """The tables, of these methods and the default image size alone."""
    size = FitSettings().input.image_size
    return table.render(
        [row for row in standing.read(results) if row.method in METHODS and row.image_size == size]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, or write them into a file, or check that the file has them. Returns the exit status."""
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
