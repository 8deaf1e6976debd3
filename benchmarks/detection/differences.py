"""What parts and games are worth, in points: one line for what all are compared with, and one for each other."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

FIGURES: Final = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro": "AUPRO"}
MISSING: Final = "—"
Measured: TypeAlias = Mapping[tuple[str, str, int], Mapping[str, Any]]
"""Rows by name, category and seed."""


def categories_of(rows: Measured, figure: str, base: str) -> list[str]:
    """Return the categories in which `base` has the figure."""
    return sorted(
        {category for name, category, _ in rows if name == base and _mean(rows, base, category, figure)}
    )


def lines_of(
    rows: Measured, figure: str, *, base: str, others: Mapping[str, str], categories: Sequence[str]
) -> list[list[str]]:
    """Return a line for `base` and one for each other, each with a cell for each category and one for their mean.

    Args:
        rows: Rows that have the figure; figures are means over seeds.
        figure: One of `FIGURES`.
        base: Whose figures are given as they are.
        others: What each other is called, whose differences from `base` are given in points.
        categories: Columns.
    """
    whole = [_mean(rows, base, category, figure) for category in categories]
    lines = [[base, *map(_figure, whole), _figure(_average(whole))]]
    for name, title in others.items():
        found = [_mean(rows, name, category, figure) for category in categories]
        lost = [
            None if value is None or before is None else 100 * (value - before)
            for value, before in zip(found, whole, strict=True)
        ]
        known = [points for points, before in zip(lost, whole, strict=True) if before is not None]
        lines.append([title, *map(_points, lost), _points(_average(known))])
    return lines


def source_of(rows: Measured) -> str:
    """Return a line about where rows come from."""
    seeds = ", ".join(map(str, sorted({seed for *_, seed in rows})))
    commits = ", ".join(sorted({str(row["commit"])[:9] for row in rows.values()}))
    processors = ", ".join(sorted({row["processor"] for row in rows.values()}))
    return f"Seeds {seeds}; commits {commits}; {processors}."


def _mean(rows: Measured, name: str, category: str, figure: str) -> float | None:
    values = [row[figure] for (part, of, _), row in rows.items() if (part, of) == (name, category)]
    return statistics.fmean(values) if values and None not in values else None


def _average(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def _figure(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3f}"


def _points(value: float | None) -> str:
    return MISSING if value is None else f"{round(value, 1) + 0.0:+.1f}"
