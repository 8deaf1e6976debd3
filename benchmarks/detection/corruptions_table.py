"""`python -m benchmarks.detection.corruptions_table`: what changes of the images cost, from the rows alone."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from benchmarks import provenance
from benchmarks.detection.corruptions import CORRUPTIONS, NONE, RESULTS
from benchmarks.markdown import Place, table, tabulate

PLACE: Final = Place.of("corruptions table")
FIGURES: Final = {
    "image_auroc": "Image AUROC",
    "false_alarms": "Share of good test images above the threshold",
    "found": "Share of defective test images above the threshold",
}


def render(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a table for each figure; of several rows of one cell the newest counts."""
    newest = {(row["method"], row["corruption"], row["category"]): row for row in rows}
    if not newest:
        return "No rows yet."
    categories = sorted({category for *_, category in newest})
    methods = sorted({method for method, *_ in newest})
    parts = []
    for figure, title in FIGURES.items():
        lines = [
            [corruption, f"`{method}`", *_cells(newest, figure, method, corruption, categories)]
            for corruption in CORRUPTIONS
            for method in methods
        ]
        head = ["change", "method", *categories, "mean"]
        parts.append(f"**{title}**\n\n" + table(head, lines))
    commits = ", ".join(sorted({str(row["commit"])[:9] for row in newest.values()}))
    seeds = ", ".join(sorted({str(row["seed"]) for row in newest.values()}))
    return "\n\n".join([*parts, f"{len(newest)} rows, seed {seeds}, commit {commits}."])


def _cells(
    newest: Mapping[tuple[str, str, str], Mapping[str, Any]],
    figure: str,
    method: str,
    corruption: str,
    categories: Sequence[str],
) -> list[str]:
    """Return the figure as it is without a change, and otherwise the difference in points; the mean of both last."""
    values, bases = (
        [newest[key][figure] for category in categories if (key := (method, name, category)) in newest]
        for name in (corruption, NONE)
    )
    if len(values) != len(categories) or len(bases) != len(categories):
        return ["—"] * (len(categories) + 1)
    if corruption == NONE:
        return [f"{value:.3f}" for value in [*values, statistics.fmean(values)]]
    changes = [100 * (value - base) for value, base in zip(values, bases, strict=True)]
    return [f"{change:+.1f}" for change in [*changes, statistics.fmean(changes)]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, or write them into a file. Returns the exit status."""
    return tabulate(
        lambda path: render(provenance.read_rows(path)),
        PLACE,
        results=RESULTS,
        program="benchmarks.detection.corruptions_table",
        what=__doc__,
        arguments=arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
