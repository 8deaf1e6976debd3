"""`python -m benchmarks.detection.figure`: image AUROC of the summary's methods, from the rows."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.detection import rows, summary
from benchmarks.detection.rows import Row

PATH = Path(__file__).with_name("detection.png")
OURS, OTHERS = "#d9602f", "#5b83c4"


def draw(measured: Sequence[Row], path: Path) -> None:
    """One panel a category: each method's mean with the mean of its seeds' 95 % intervals, and every seed."""
    categories, methods = sorted({row.category for row in measured}), summary.ordered(measured)
    columns = min(3, len(categories))
    rows_of_panels = -(-len(categories) // columns)
    figure = Figure(figsize=(11, 0.6 + 3 * rows_of_panels), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows_of_panels, columns, sharey=True, squeeze=False).flat
    for axis, category in zip(panels, categories, strict=False):  # a panel may stay empty
        for place, method in enumerate(reversed(methods)):
            some = [row for row in measured if (row.category, row.method) == (category, method)]
            if not some:
                continue
            colour = OURS if method.startswith("energyad") else OTHERS
            low, high = (
                statistics.fmean(getattr(row, name) for row in some)
                for name in ("image_auroc_low", "image_auroc_high")
            )
            axis.plot(
                [low, high], [place, place], color=colour, alpha=0.35, linewidth=5, solid_capstyle="round"
            )
            axis.plot([row.image_auroc for row in some], [place] * len(some), "|", color=colour, markersize=9)
            axis.plot(
                statistics.fmean(row.image_auroc for row in some), place, "o", color=colour, markersize=5
            )
        axis.set(title=category, xlabel="image AUROC", yticks=range(len(methods)), yticklabels=methods[::-1])
        axis.grid(alpha=0.3, axis="x")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    draw(summary.measured(rows.RESULTS), PATH)
