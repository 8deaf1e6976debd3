"""The curve of `settle`, from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from energyad.errors import DataError

PANELS = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC"}


def draw(found: Sequence[Mapping[str, Any]], path: Path) -> None:
    """One line a category, of its newest settings: how far each seed is from its start, mean and range of that.

    Seeds hold out other parts and other kinds of defects, so their AUROCs differ by more than training changes them.
    Raises DataError for no rows.
    """
    if not found:
        raise DataError(f"{path}: no rows to draw; give --categories")
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(PANELS))
    newest = {row["category"]: row["settings_hash"] for row in found}
    for axis, (name, title) in zip(axes, PANELS.items(), strict=True):
        for category, settings in sorted(newest.items()):
            some = [r for r in found if (r["category"], r["settings_hash"]) == (category, settings)]
            x, values = by_iteration(some, name)
            change = 100 * (np.array(values) - values[0])
            label = f"{category}, {len(values[0])} seed(s), from {np.mean(values[0]):.3f}"
            axis.plot(x, change.mean(axis=1), marker=".", label=label)
            axis.fill_between(x, change.min(axis=1), change.max(axis=1), alpha=0.2)
        axis.set(title=f"{title}, synthetic defects", xlabel="DxMI iteration", ylabel="change, points")
        axis.margins(y=0.4)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="upper right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def by_iteration(found: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[list[float]]]:
    """Iterations, and each one's values over the seeds; of a training that ended by itself, its last one."""
    iterations = sorted({int(row["iteration"]) for row in found})
    seeds: dict[int, list[Mapping[str, Any]]] = {}
    for row in sorted(found, key=lambda row: int(row["iteration"])):
        seeds.setdefault(row["seed"], []).append(row)
    return iterations, [[float(_latest(rows, i)[name]) for rows in seeds.values()] for i in iterations]


def _latest(rows: Sequence[Mapping[str, Any]], iteration: int) -> Mapping[str, Any]:
    return [row for row in rows if row["iteration"] <= iteration][-1]
