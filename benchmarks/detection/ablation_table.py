"""`python -m benchmarks.detection.ablation_table`: what each part is worth, from the rows alone."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from benchmarks import provenance
from benchmarks.detection.ablation import PARTS, RESULTS, WHOLE
from benchmarks.detection.edges import EDGE, INSIDE
from benchmarks.detection.edges import RESULTS as EDGES
from benchmarks.markdown import Place, table, tabulate

PLACE = Place.of("ablation table")
FIGURES: Final = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro": "AUPRO"}
MISSING: Final = "—"


def render(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a table for each figure: what all parts reach, and by how many points each part is missed.

    Of several rows of one part, category and seed the newest counts.
    """
    newest = {(row["part"], row["category"], row["seed"]): row for row in rows}
    if not newest:
        return "No rows yet."
    categories = sorted({category for _, category, _ in newest})
    seeds = sorted({seed for *_, seed in newest})
    commits = ", ".join(sorted({str(row["commit"])[:9] for row in newest.values()}))
    processors = ", ".join(sorted({row["processor"] for row in newest.values()}))
    tables = [_of_figure(newest, figure, categories, seeds) for figure in FIGURES]
    source = f"Seeds {', '.join(map(str, seeds))}; commits {commits}; {processors}."
    return "\n\n".join([*tables, source])


def _of_figure(
    rows: Mapping[tuple[str, str, int], Mapping[str, Any]],
    figure: str,
    categories: Sequence[str],
    seeds: Sequence[int],
) -> str:
    def mean(part: str, category: str) -> float | None:
        keys = [(part, category, seed) for seed in seeds if (part, category, seed) in rows]
        values = [rows[key][figure] for key in keys]
        return statistics.fmean(values) if values and None not in values else None

    whole = {category: value for category in categories if (value := mean(WHOLE, category)) is not None}
    lines = [
        [WHOLE, *(f"{value:.3f}" for value in whole.values()), f"{statistics.fmean(whole.values()):.3f}"]
    ]
    for part in PARTS:
        if part == WHOLE:
            continue
        found = [mean(part, category) for category in whole]
        lost = [
            None if value is None else 100 * (value - whole[c]) for c, value in zip(whole, found, strict=True)
        ]
        known = [each for each in lost if each is not None]
        average = statistics.fmean(known) if len(known) == len(whole) else None
        lines.append([f"without: {part}", *map(_points, lost), _points(average)])
    return f"**{FIGURES[figure]}**\n\n" + table(["", *whole, "mean"], lines)


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


def _points(value: float | None) -> str:
    return MISSING if value is None else f"{round(value, 1) + 0.0:+.1f}"


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
