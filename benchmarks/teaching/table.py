"""`python -m benchmarks.teaching.table [--into README.md] [--check]`: rows of one image size as tables."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.markdown import Place, table, tabulate
from benchmarks.provenance import read_rows
from benchmarks.teaching.protocol import LIGHTS

RESULTS: Final = Path(__file__).with_name("results.jsonl")
PLACE: Final = Place.of("teaching tables")
IMAGE_SIZE: Final = 256
"""A side; rows of another size, or of none, are of other fits."""

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


def tables(results: Path, *, image_size: int = IMAGE_SIZE) -> str:
    """All tables: what is gained on the mean of the categories, then each category."""
    rows = [row for row in read_rows(results) if row.get("image_size") == image_size]
    parts = [f"### All\n\n{_gains(rows)}"]
    for category in sorted({row["category"] for row in rows}):
        chosen = [row for row in rows if row["category"] == category]
        parts.append(f"### {category}\n\n{_shown(chosen)}\n\n{_others(chosen)}\n\n{_alarms(chosen)}")
    return "\n\n".join(parts)


def _gains(rows: Sequence[dict[str, Any]]) -> str:
    """Each method beside the untaught model of the same category and seed, and the mean of the differences."""
    head = ["learned from", "labels", "kinds", "missed before", "missed after"]
    head += ["image AUROC before", "after", "splits"]
    lines = []
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
            lines.append([NAMES[method], str(labels), kinds, *cells, str(len(pairs))])
    return table(head, lines)


def _shown(rows: Sequence[dict[str, Any]]) -> str:
    head = ["learned from", "labels", *(text for _, text in FIGURES), "false rejects", "seeds"]
    lines = []
    for method, labels in _cells(rows, hidden=False):
        chosen = _chosen(rows, method, labels, hidden=False)
        cells = [_mean(row["shown"].get(name) for row in chosen) for name, _ in FIGURES]
        cells.append(_mean(row["shown"]["false_rejects"] for row in chosen))
        lines.append([NAMES[method], str(labels), *cells, str(len(chosen))])
    return table(head, lines)


def _others(rows: Sequence[dict[str, Any]]) -> str:
    lines = []
    for method, labels in _cells(rows, hidden=True):
        chosen = _chosen(rows, method, labels, hidden=True)
        cells = [_mean(row["others"][name] for row in chosen) for name in ("image_auroc", "missed")]
        lines.append([NAMES[method], str(labels), *cells, str(len(chosen))])
    return table(["kinds that nobody showed", "labels", "image AUROC", "missed", "seeds"], lines)


def _alarms(rows: Sequence[dict[str, Any]]) -> str:
    head = ["light", "its gain", "seed", "corrected false alarms", "other good parts under it"]
    head += ["rejected before", "after", "defects missed in the fit's light before", "after"]
    names = ("method", "gain", "seed", "corrected", "good_parts", "before", "after")
    shares = ("missed_before", "missed_after")
    lines = [
        [*(str(row[name]) for name in names), *(f"{row[name]:.3f}" for name in shares)]
        for light in LIGHTS
        for row in rows
        if row["method"] == light
    ]
    return table(head, lines)


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, or write them into a file. Returns the exit status."""
    return tabulate(
        tables, PLACE, results=RESULTS, program="benchmarks.teaching.table", what=__doc__, arguments=arguments
    )


if __name__ == "__main__":
    sys.exit(main())
