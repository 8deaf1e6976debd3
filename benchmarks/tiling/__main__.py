"""`python -m benchmarks.tiling --data-root DIR --category screw`: tiles against plain resizing, a row for each.

An image is a field of 4,096 pixels with one part in it, enlarged to 1,024; in a defective one the part has a real
defect. image_auroc: of fields. hit_rate: defective fields whose heatmap peaks in the defect's mask or within `NEAR` of
the part's side from it. ms_an_image: reading and scoring. All else is energyad's default, and the same.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.provenance import append_row, stamp
from benchmarks.tiling.fields import Field, Size, defective_fields, good_fields
from energyad.data.datasets import Category, open_category
from energyad.detector import AnomalyDetector
from energyad.evaluation import metrics
from energyad.images.tiling import parse_tiles
from energyad.settings import FitSettings

RESULTS = Path(__file__).with_name("results.jsonl")
NEAR = 1 / 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--category", default="screw")
    parser.add_argument("--methods", nargs="+", default=["1", "4"], help="tiles a side, or COLUMNSxROWS")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--field", type=int, default=4096, help="pixels a side of an image")
    parser.add_argument("--part", type=int, default=1024, help="pixels a side of the part in it")
    parser.add_argument("--train", type=int, default=60, help="good fields to fit on")
    parser.add_argument("--good", type=int, default=24, help="good fields to test")
    parser.add_argument("--each", type=int, default=5, help="defective fields of each type")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    category = open_category(arguments.category, data_root=arguments.data_root)
    with tempfile.TemporaryDirectory() as folder:
        train, test = make_fields(category, Path(folder), arguments)
        for method in arguments.methods:
            row = measure(method, train, test, arguments)
            append_row(arguments.results, row)
            print(json.dumps(row, indent=1))


def make_fields(
    category: Category, folder: Path, arguments: argparse.Namespace
) -> tuple[list[Field], list[Field]]:
    """Fields to fit on and fields to test."""
    rng, size = np.random.default_rng(arguments.seed), Size(arguments.field, arguments.part)
    good = [item.path for item in category.test if not item.is_defective]
    train = good_fields(category.train_good, folder / "train", count=arguments.train, size=size, rng=rng)
    whole = good_fields(good, folder / "test", count=arguments.good, size=size, rng=rng)
    return train, whole + defective_fields(category, folder / "test", each=arguments.each, size=size, rng=rng)


def measure(
    method: str, train: Sequence[Field], test: Sequence[Field], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Fit one method and score the test fields."""
    settings = FitSettings().with_values(
        {"input.tiles": parse_tiles(method), "input.image_size": arguments.image_size, "seed": arguments.seed}
    )
    started = time.perf_counter()
    detector = AnomalyDetector.fit(
        [field.image for field in train], settings=settings, threads=arguments.threads
    )
    fitted = time.perf_counter()
    scores: list[float] = []
    hits: dict[str, list[bool]] = {}
    for field in test:
        prediction = detector.score(field.image)
        scores.append(prediction.score)
        if field.defect_type is not None and field.mask is not None:
            reach = round(NEAR * arguments.part)
            hits.setdefault(field.defect_type, []).append(is_hit(prediction.heatmap, field.mask, reach=reach))
    seconds = time.perf_counter() - fitted
    return {
        "category": arguments.category,
        "tiles": method,
        "network_input": arguments.image_size,
        "graph_input": settings.input.shape,
        "field": arguments.field,
        "part": arguments.part,
        "num_train": len(train),
        "num_good": sum(field.mask is None for field in test),
        "num_defective": sum(field.mask is not None for field in test),
        "image_auroc": metrics.image_auroc([field.mask is not None for field in test], scores),
        "hit_rate": float(np.mean([hit for found in hits.values() for hit in found])),
        "hits": {name: f"{sum(found)}/{len(found)}" for name, found in hits.items()},
        "fit_seconds": round(fitted - started, 1),
        "ms_an_image": round(1000 * seconds / len(test), 1),
        "seed": arguments.seed,
        **asdict(stamp(threads=arguments.threads)),
    }


def is_hit(heatmap: np.ndarray, mask: np.ndarray, *, reach: int) -> bool:
    """Whether the heatmap's peak lies in the mask or within `reach` pixels of it."""
    row, column = np.unravel_index(int(heatmap.argmax()), heatmap.shape)
    away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    return bool(away[row, column] <= reach)


if __name__ == "__main__":
    main()
