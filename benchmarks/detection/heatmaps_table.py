"""`python -m benchmarks.detection.heatmaps_table`: heatmaps by five measures as Markdown, from the rows alone.

The rows are those of `benchmarks.detection --results benchmarks/detection/heatmaps.jsonl`, one seed of each method.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from benchmarks.detection import rows
from benchmarks.detection.rows import Row
from benchmarks.markdown import Place, table, tabulate

RESULTS: Final = Path(__file__).with_name("heatmaps.jsonl")
PLACE = Place.of("heatmaps table")
FIGURES: Final = {
    "aupro": "AUPRO",
    "aupro_5": "AUPRO at 5 %",
    "aupimo": "AUPIMO",
    "pixel_ap": "pixel AP",
    "pixel_auroc": "pixel AUROC",
}


def render(all_rows: Iterable[Row]) -> str:
    """Return a table for each image size; of several rows of one cell the newest counts."""
    current = rows.current(all_rows)
    if not current:
        return "No rows yet."
    parts = [
        _of_size(size, [row for row in current if row.image_size == size])
        for size in sorted({row.image_size for row in current})
    ]
    commits = ", ".join(sorted({(row.commit or "unknown")[:9] for row in current}))
    seeds = ", ".join(sorted({str(row.seed) for row in current}))
    machines = ", ".join(sorted({row.processor for row in current}))
    return "\n\n".join([*parts, f"Seed {seeds}; commits {commits}; {machines}."])


def _of_size(size: int, measured: Sequence[Row]) -> str:
    categories = sorted({row.category for row in measured})
    methods = sorted({row.method for row in measured})
    lines = []
    for name, title in FIGURES.items():
        for method in methods:
            found = {row.category: getattr(row, name) for row in measured if row.method == method}
            values = [found.get(category) for category in categories]
            cells = ["—" if value is None else f"{value:.3f}" for value in values]
            present = [value for value in values if value is not None]
            mean = f"{statistics.fmean(present):.3f}" if len(present) == len(categories) else "—"
            lines.append([title, f"`{method}`", *cells, mean])
    head = ["figure", "method", *categories, "mean"]
    return f"**{size} × {size} pixels**\n\n{table(head, lines)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, or write them into a file. Returns the exit status."""
    return tabulate(
        lambda path: render(rows.read(path)),
        PLACE,
        results=RESULTS,
        program="benchmarks.detection.heatmaps_table",
        what=__doc__,
        arguments=arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
