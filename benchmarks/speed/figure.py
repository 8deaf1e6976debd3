"""The scaling figure, drawn from the rows: time and memory against images, image size and training set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.provenance import read_rows
from benchmarks.speed.table import best

FIGURE = Path(__file__).with_name("scaling.png")


def draw(results: Path, place: Path = FIGURE) -> Path:
    """Draw what rows there are; the newest of each kind."""
    rows = best(read_rows(results))
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    flat = [row for row in rows if row["part"] == "flat"][-1:]
    marks = flat[0]["images_seconds_mb"] if flat else []
    panel(axes[0], "images scored", "seconds", [tuple(mark) for mark in marks])
    panel(axes[1], "pixels a side of the files", "ms an image", newest(rows, "side", "ms_an_image"))
    panel(axes[2], "images fitted on", "seconds of the fit", newest(rows, "num_train", "seconds"))
    figure.savefig(place, dpi=120)
    plt.close(figure)
    return place


def newest(rows: Sequence[Mapping[str, Any]], x: str, y: str) -> list[tuple[float, float, float]]:
    """The last row of each x, with its peak memory."""
    found = {row[x]: (row[x], row[y], row["peak_mb"]) for row in rows if x in row and y in row}
    return [found[key] for key in sorted(found)]


def panel(axes: Axes, x_name: str, y_name: str, points: Sequence[tuple[float, float, float]]) -> None:
    """Time on the left in blue, resident memory on the right in orange; both axes from zero but for counts."""
    axes.set_xlabel(x_name)
    axes.set_ylabel(y_name, color="C0")
    if not points:
        return
    x, seconds, memory = zip(*points, strict=True)
    axes.set_xscale("log", base=10 if max(x) > 4096 else 2)
    axes.set_xticks(x, [f"{value:,}" for value in x])
    axes.minorticks_off()
    axes.plot(x, seconds, "o-", color="C0")
    axes.set_ylim(0, 1.1 * max(seconds))
    right = axes.twinx()
    right.plot(x, memory, "s--", color="C1")
    right.set_ylim(0, 1.3 * max(memory))
    right.set_ylabel("MB", color="C1")
