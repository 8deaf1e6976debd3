"""`python -m benchmarks.detection.ablation_table`: what each part is worth, from the rows alone."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks import provenance
from benchmarks.detection.ablation import PARTS, RESULTS, WHOLE
from benchmarks.detection.differences import FIGURES, categories_of, lines_of, source_of
from benchmarks.detection.edges import EDGE, INSIDE
from benchmarks.detection.edges import RESULTS as EDGES
from benchmarks.markdown import Place, table, tabulate

PLACE = Place.of("ablation table")


def render(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a table for each figure: what all parts reach, and by how many points each part is missed.

    Of several rows of one part, category and seed the newest counts.
    """
    newest = {(row["part"], row["category"], row["seed"]): row for row in rows}
    if not newest:
        return "No rows yet."
    others = {part: f"without: {part}" for part in PARTS if part != WHOLE}
    tables = []
    for figure, name in FIGURES.items():
        categories = categories_of(newest, figure, WHOLE)
        lines = lines_of(newest, figure, base=WHOLE, others=others, categories=categories)
        tables.append(f"**{name}**\n\n" + table(["", *categories, "mean"], lines))
    return "\n\n".join([*tables, source_of(newest)])


def render_edges(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a table of synthetic defects at the edge beside those inside; of several rows of a place the newest."""
    newest = {(row["where"], row["category"]): row for row in rows}
    if not newest:
        return ""
    categories = sorted({category for _, category in newest})
    lines = [
        [
            f"{where}, {FIGURES[figure]}",
            *(f"{value:.3f}" for value in values),
            f"{statistics.fmean(values):.3f}",
        ]
        for figure in ("image_auroc", "aupro")
        for where in ("edge", "inside")
        if (values := [newest[where, category][figure] for category in categories])
    ]
    title = f"**Synthetic defects within {EDGE} pixels of the edge, and at least {INSIDE} from it**"
    return f"{title}\n\n" + table(["", *categories, "mean"], lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, or write them into a file. Returns the exit status."""
    return tabulate(
        lambda path: "\n\n".join(
            [
                render(provenance.read_rows(path)),
                render_edges(provenance.read_rows(path.with_name(EDGES.name))),
            ]
        ).rstrip(),
        PLACE,
        results=RESULTS,
        program="benchmarks.detection.ablation_table",
        what=__doc__,
        arguments=arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
