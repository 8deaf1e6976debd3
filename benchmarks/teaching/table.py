"""Rows as tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

NAMES = {
    "none": "not taught",
    "marks": "marks",
    "images": "images without marks",
    "logistic": "logistic regression alone",
    "supersimplenet": "SuperSimpleNet",
}
FIGURES = (
    ("image_auroc", "image AUROC"),
    ("pixel_auroc", "pixel AUROC"),
    ("aupro", "AUPRO"),
    ("missed", "missed"),
)


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """All tables: what is gained on the mean of the categories, then each category."""
    parts = [f"### All\n\n{_gains(rows)}"]
    for category in sorted({row["category"] for row in rows}):
        chosen = [row for row in rows if row["category"] == category]
        parts.append(f"### {category}\n\n{_shown(chosen)}\n\n{_others(chosen)}\n\n{_alarms(chosen)}")
    return "\n\n".join(parts)


def _gains(rows: Sequence[dict[str, Any]]) -> str:
    """Each method beside the untaught model of the same category and seed, and the mean of the differences."""
    lines = [
        "| learned from | labels | kinds | missed before | missed after | image AUROC before | after | splits |",
        "|" + " --- |" * 8,
    ]
    for hidden, figures in ((False, "shown"), (True, "others")):
        before = {
            (row["category"], row["seed"]): row[figures]
            for row in rows
            if row["method"] == "none" and row["hidden"] == hidden
        }
        for method, labels in _cells(rows, hidden=hidden):
            if method == "none":
                continue
            chosen = [
                row
                for row in _chosen(rows, method, labels, hidden=hidden)
                if (row["category"], row["seed"]) in before
            ]
            pairs = [(before[row["category"], row["seed"]], row[figures]) for row in chosen]
            cells = [
                _mean(pair[index][name] for pair in pairs)
                for name in ("missed", "image_auroc")
                for index in (0, 1)
            ]
            kinds = "not shown" if hidden else "shown"
            lines.append(f"| {NAMES[method]} | {labels} | {kinds} | {' | '.join(cells)} | {len(pairs)} |")
    return "\n".join(lines)


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
        "| seed | corrected false alarms | gain of the light | other good parts under it | rejected before | after |",
        "|" + " --- |" * 6,
    ]
    for row in rows:
        if row["method"] == "alarms":
            cells = (row[name] for name in ("seed", "corrected", "gain", "good_parts", "before", "after"))
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
