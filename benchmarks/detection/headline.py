"""`python -m benchmarks.detection.headline`: the table of the project's README, of five methods."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence

from benchmarks.detection import rows, summary
from benchmarks.markdown import Place, tabulate

PLACE = Place.of("detection headline")
METHODS = ("energyad", "knn", "patchcore-0.1", "patchcore-0.01", "padim")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or write it into a file, or check that the file has it. Returns the exit status."""
    return tabulate(
        functools.partial(summary.render, methods=METHODS, spread=False),
        PLACE,
        results=rows.RESULTS,
        program="benchmarks.detection.headline",
        what=__doc__,
        arguments=arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
