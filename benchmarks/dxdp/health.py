"""Health of DxMI in a default fit, as the model's file holds it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from energyad import AnomalyDetector
from energyad.data.demo import render_demo
from energyad.images.finding import find_images


def rows(images: Path | None) -> Iterator[dict[str, Any]]:
    """One row an energy of a default fit on a folder of good images, or on the rendered bottles of the demo."""
    with tempfile.TemporaryDirectory() as folder:
        if images is None:
            paths, data = render_demo(Path(folder) / "demo", seed=0).train_good, "rendered bottles"
        else:
            paths, data = tuple(find_images([images])), images.resolve().parents[1].name
        trainings = AnomalyDetector.fit(paths, threads=1).manifest.training_health
    for energy, health in enumerate(trainings, start=1):
        yield {
            "part": "health",
            "data": data,
            "energy": energy,
            **asdict(health),
            "verdict": health.verdict(),
        }
