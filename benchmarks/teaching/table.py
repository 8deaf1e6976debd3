"""Rows as tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

NAMES = {
    "none": "not taught",
    "marks": "marks",
    "images": "images without marks",
    "logistic": "logistic regression",
}
FIGURES = (
    ("image_auroc", "image AUROC"),
    ("pixel_auroc", "pixel AUROC"),
    ("aupro", "AUPRO"),
    ("missed", "missed"),
)


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """All tables: shown kinds, kinds that were not shown, corrected false alarms."""
    parts = []
    for category in sorted({row["category"] for row in rows}):
        own = [row for row in rows if row["category"] == category]
        parts.append(f"### {category}\n\n{_shown(own)}\n\n{_others(own)}\n\n{_alarms(own)}")
    return "\n\n".join(parts)


def _shown(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| learned from | labels | image AUROC | pixel AUROC | AUPRO | missed | false rejects | seeds |",
        "|" + " --- |" * 8,
    ]
    for method, labels in _cells(rows, hidden=False):
        chosen = _chosen(rows, method, labels, hidden=False)
        cells = [_mean(row["shown"].get(name) for row in chosen) for name, _ in FIGURES]
        cells.append(_mean(row["shown"]["false_rejects"] for row in chosen))
        lines.append(f"| {NAMES[method]} | {labels} | {' | '.join(cells)} | {len(chosen)} |")
    return "\n".join(lines)


def _others(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| kinds that nobody showed | labels | image AUROC | missed | seeds |", "|" + " --- |" * 5]
    for method, labels in _cells(rows, hidden=True):
        chosen = _chosen(rows, method, labels, hidden=True)
        cells = [_mean(row["others"][name] for row in chosen) for name in ("image_auroc", "missed")]
        lines.append(f"| {NAMES[method]} | {labels} | {' | '.join(cells)} | {len(chosen)} |")
    return "\n".join(lines)


def _alarms(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| corrected false alarms | gain of the light | other good parts under it | rejected before | after |",
        "|" + " --- |" * 5,
    ]
    for row in rows:
        if row["method"] == "alarms":
            cells = (row[name] for name in ("corrected", "gain", "good_parts", "before", "after"))
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _cells(rows: Sequence[dict[str, Any]], *, hidden: bool) -> list[tuple[str, int]]:
    found = {
        (row["method"], row["labels"]) for row in rows if row["hidden"] == hidden and row["method"] in NAMES
    }
    return sorted(found, key=lambda cell: (list(NAMES).index(cell[0]), cell[1]))


def _chosen(
    rows: Sequence[dict[str, Any]], method: str, labels: int, *, hidden: bool
) -> list[dict[str, Any]]:
    return [row for row in rows if (row["method"], row["labels"], row["hidden"]) == (method, labels, hidden)]


def _mean(values: Iterable[float | None]) -> str:
    present = [value for value in values if value is not None]
    return f"{np.mean(present):.3f}" if present else ""
