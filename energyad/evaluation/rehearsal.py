"""Good parts → a test with planted defects: what a model finds of them, before there is a real one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from jaxtyping import Bool

from energyad.data.datasets import GOOD, Category, TestItem
from energyad.data.defect_kinds import KINDS
from energyad.data.defects import draw_defect, drawing_size
from energyad.detector import AnomalyDetector
from energyad.errors import DataError
from energyad.evaluation.evaluate import Evaluation, evaluate
from energyad.images import reading
from energyad.images.prefetch import ordered_map
from energyad.progress import NullProgress, Progress

ENOUGH: Final = 120  # planted defects: ten of each kind
MIN_BAND: Final = 8  # pixels

Diameters: TypeAlias = Mapping[Path, float]
"""Of each image with a defect: the diameter of a disc as large as it, in pixels of the good image as it was taken."""


@dataclass(frozen=True)
class SizeRow:
    """Defects of at least `above` and less than `below` pixels' diameter. `above_threshold` counts images."""

    above: int
    below: int
    images: int
    above_threshold: int


@dataclass(frozen=True)
class Rehearsal:
    """How well a detector finds planted defects, by kind (the evaluation's types) and by size.

    The detector's discriminator learned from defects of these kinds, planted on other parts, and they are stand-ins: of
    real ones fewer may be found. What is hardly found here is hardly found at all.
    """

    evaluation: Evaluation
    sizes: tuple[SizeRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return self.evaluation.to_dict() | {"sizes": [asdict(row) for row in self.sizes]}


def rehearse(
    detector: AnomalyDetector,
    good: Sequence[Path],
    folder: str | Path,
    *,
    per_image: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Rehearsal:
    """Plant defects on copies of good parts, write them into `folder`, and evaluate the detector on them.

    good: parts that the detector was not fitted on, two at least. folder: gets `test` and `ground_truth`, in the layout
    of MVTec AD. per_image: defects planted on each, one a copy; None for about 120 in all, of more images on some. The
    same seed gives the same defects. Raises DataError, ImageError at the first image that cannot be read.
    """
    if len(good) < 2:
        raise DataError(f"{len(good)} good image(s): at least two are needed to plant defects on")
    if per_image is not None and per_image < 1:
        raise DataError(f"{per_image} defects on each image: at least one is needed")
    if per_image is None:
        good = good[:: -(-len(good) // ENOUGH)]
    count, waiting = per_image or round(ENOUGH / len(good)), progress or NullProgress()
    root = _new_test_set(Path(folder))
    judged = _judged(detector, good[0])
    items, diameters = list[TestItem](), dict[Path, float]()
    waiting.stage("planting", len(good))

    def work(place: int) -> list[tuple[TestItem, float]]:
        return list(_plant(detector, good, place, root, count=count, seed=seed, judged=judged))

    for written in ordered_map(work, range(len(good)), workers=detector.runtime.plan.workers):
        items += [item for item, _ in written]
        diameters |= {item.path: diameter for item, diameter in written if item.is_defective}
        waiting.advance()
    test = tuple(sorted(items, key=lambda item: (item.defect_type, item.path)))
    found = evaluate(detector, Category(detector.name, root, (), test), progress=waiting)
    return Rehearsal(replace(found, recognised=None), by_size(found, diameters))


def by_size(evaluation: Evaluation, diameters: Diameters) -> tuple[SizeRow, ...]:
    """How many defects of each size lie above the threshold; each band reaches to twice the diameter."""
    bands: dict[int, list[float]] = {}
    for item in evaluation.items:
        if item.path in diameters:
            times = diameters[item.path] / MIN_BAND
            bands.setdefault(math.floor(math.log2(times)) + 1 if times >= 1 else 0, []).append(item.score)
    return tuple(
        SizeRow(
            above=MIN_BAND * 2 ** (band - 1) if band else 0,
            below=MIN_BAND * 2**band,
            images=len(scores),
            above_threshold=sum(score > evaluation.threshold for score in scores),
        )
        for band, scores in sorted(bands.items())
    )


def _new_test_set(root: Path) -> Path:
    for name in ("test", "ground_truth"):
        if (root / name).exists():
            raise DataError(f"{root / name}: exists already; choose another folder")
    return root


def _judged(detector: AnomalyDetector, good: Path) -> Bool[np.ndarray, "h w"]:
    """The pixels of the network's input that the model judges: elsewhere its heatmap is 0, and nowhere else."""
    pixels = reading.resize(detector.read(good), detector.input_shape)
    judged: Bool[np.ndarray, "h w"] = detector.runtime.run(pixels[None]).heatmap[0] > 0
    return judged


def _plant(
    detector: AnomalyDetector,
    good: Sequence[Path],
    place: int,
    root: Path,
    *,
    count: int,
    seed: int,
    judged: Bool[np.ndarray, "h w"],
) -> Iterator[tuple[TestItem, float]]:
    """Write one good part and its copies with defects, and give each with its defect's diameter."""
    own, other = (detector.read(path) for path in (good[place], good[place - 1]))
    size = drawing_size(own.shape[:2], detector.input_shape)
    pixels, taken_by = reading.resize(own, size), math.sqrt(own.shape[0] * own.shape[1] / math.prod(size))
    within = reading.resize_map(judged.astype(np.float32), *size) >= 0.5
    kinds = list(KINDS)
    yield TestItem(reading.write_png(root / "test" / GOOD / f"{place:04}.png", pixels), GOOD, None), 0.0
    for number in range(count):
        rng = np.random.default_rng((seed, place, number))
        kind = kinds[(place * count + number) % len(kinds)]
        defect = draw_defect(pixels, rng=rng, source=other, kind=kind, within=within)
        stem = f"{place:04}_{number:02}"
        path = reading.write_png(root / "test" / defect.kind / f"{stem}.png", defect.image)
        mask = reading.write_png(root / "ground_truth" / defect.kind / f"{stem}_mask.png", defect.mask)
        diameter = taken_by * math.sqrt(4 / math.pi * int(defect.mask.sum()))
        yield TestItem(path, defect.kind, mask), diameter
