"""How time and memory grow with the size of the images and of the training set."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.images import write_channels
from benchmarks.speed.memory import in_a_process
from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.images.reading import as_rgb, resize


def by_image_size(
    detector: AnomalyDetector, category: Category, folder: Path, *, sides: Sequence[int], count: int
) -> list[dict[str, Any]]:
    """Milliseconds an image from PNG files of each size; the network's own size stays."""
    rows = []
    for side in sides:
        place = folder / str(side)
        place.mkdir(parents=True)
        sources = islice(cycle(item.path for item in category.test), count)
        for index, path in enumerate(sources):
            write_channels(place / f"{index:03}.png", resize(as_rgb(path), side))
        files = sorted(place.iterdir())
        times = []
        for _ in range(3):
            started = time.perf_counter()
            scored = sum(1 for _ in detector.score_images(files))
            times.append(1000 * (time.perf_counter() - started) / scored)
        rows.append({"part": "image size", "side": side, "ms_an_image": round(float(np.median(times)), 2)})
    return rows


def image_size_memory(
    rows: list[dict[str, Any]], model: Path, folder: Path, *, threads: int
) -> list[dict[str, Any]]:
    """The same rows with the peak of a process that scores those files."""
    for row in rows:
        place = folder / str(row["side"])
        arguments = ("score", "--model", str(model), "--images", str(place), "--threads", str(threads))
        row["peak_mb"] = in_a_process(*arguments)["peak_mb"]
    return rows


def by_training_set(good: Path, *, counts: Sequence[int], threads: int) -> list[dict[str, Any]]:
    """Seconds and peak memory of a fit on so many good images."""
    return [
        {
            "part": "training set",
            "num_train": count,
            **in_a_process("fit", "--good", str(good), "--few", str(count), "--threads", str(threads)),
        }
        for count in counts
    ]
