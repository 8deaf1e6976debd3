"""Good parts → a test set with synthetic defects: what a model finds of them, before there is a real one."""

from __future__ import annotations

import math
import warnings
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
from energyad.images.identity import pixel_digest
from energyad.images.prefetch import ordered_map
from energyad.progress import NullProgress, Progress

NUM_DEFECTS: Final = 120
"""Synthetic defects in all, where no number per image is given: ten of each kind."""
MIN_SIZE: Final = 8
"""Pixels: the smallest diameter that is told apart from smaller ones."""

Diameters: TypeAlias = Mapping[Path, float]
"""Of each image with a defect: the diameter of a disc as large as it, in pixels of the good image as it was taken."""


@dataclass(frozen=True)
class SizeRow:
    """Defects of one range of sizes.

    Attributes:
        above: Smallest diameter, pixels.
        below: Diameters are smaller than this, pixels.
        images: Number of images, one defect each.
        above_threshold: How many of them score above the model's threshold.
    """

    above: int
    below: int
    images: int
    above_threshold: int


@dataclass(frozen=True)
class SyntheticEvaluation:
    """How well a detector finds synthetic defects, by kind and by size.

    The detector's discriminator learned from defects of these kinds, drawn on other parts, and they are stand-ins: of
    real ones fewer may be found. What is hardly found here is hardly found at all.

    Attributes:
        evaluation: Figures by kind, which are the evaluation's defect types.
        sizes: Counts by size, small ones first.
    """

    evaluation: Evaluation
    sizes: tuple[SizeRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return self.evaluation.to_dict() | {"sizes": [asdict(row) for row in self.sizes]}


def evaluate_synthetic(
    detector: AnomalyDetector,
    good: Sequence[Path],
    folder: str | Path,
    *,
    per_image: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> SyntheticEvaluation:
    """Draw defects on copies of good parts, write them into a folder, and evaluate the detector on them.

    Args:
        detector: The detector.
        good: Images of parts that the detector was not fitted on, two at least.
        folder: Where `test` and `ground_truth` are written, in the layout of MVTec AD.
        per_image: Defects of each image, one a copy; None for about 120 in all, of more images on some of them.
        seed: The same seed gives the same defects.
        progress: Called at each image.

    Raises:
        DataError: Too few images or defects, or the folder holds a test set already.
        ImageError: At the first image that cannot be read.
    """
    if len(good) < 2:
        raise DataError(f"{len(good)} good image(s): at least two are needed to draw defects on")
    if per_image is not None and per_image < 1:
        raise DataError(f"{per_image} defects on each image: at least one is needed")
    if per_image is None:
        good = good[:: -(-len(good) // NUM_DEFECTS)]
    fitted = frozenset(detector.manifest.provenance.image_digests)
    num_fitted = sum(pixel_digest(detector.read(path)) in fitted for path in good)
    if num_fitted:
        text = f"{num_fitted} of {len(good)} good images were in the fit, which knows them, so figures are too good"
        warnings.warn(text, stacklevel=2)
    count, progress = per_image or round(NUM_DEFECTS / len(good)), progress or NullProgress()
    root = _require_new(Path(folder))
    items, diameters = _write_test_set(detector, good, root, count=count, seed=seed, progress=progress)
    test = tuple(sorted(items, key=lambda item: (item.defect_type, item.path)))
    evaluation = evaluate(detector, Category(detector.name, root, (), test), progress=progress)
    return SyntheticEvaluation(replace(evaluation, recognised=None), by_size(evaluation, diameters))


def by_size(evaluation: Evaluation, diameters: Diameters) -> tuple[SizeRow, ...]:
    """Count the defects of each size that lie above the threshold; each range reaches to twice its diameter."""
    scores_of: dict[int, list[float]] = {}
    for item in evaluation.items:
        if item.path in diameters:
            ratio = diameters[item.path] / MIN_SIZE
            octave = math.floor(math.log2(ratio)) + 1 if ratio >= 1 else 0
            scores_of.setdefault(octave, []).append(item.score)
    return tuple(
        SizeRow(
            above=MIN_SIZE * 2 ** (octave - 1) if octave else 0,
            below=MIN_SIZE * 2**octave,
            images=len(scores),
            above_threshold=sum(score > evaluation.threshold for score in scores),
        )
        for octave, scores in sorted(scores_of.items())
    )


def _require_new(root: Path) -> Path:
    for name in ("test", "ground_truth"):
        if (root / name).exists():
            raise DataError(f"{root / name}: exists already; choose another folder")
    return root


def _write_test_set(
    detector: AnomalyDetector,
    good: Sequence[Path],
    root: Path,
    *,
    count: int,
    seed: int,
    progress: Progress,
) -> tuple[list[TestItem], dict[Path, float]]:
    """Write good images and copies with defects; return them with the defects' diameters."""
    roi = _roi(detector, good[0])
    progress.stage("synthetic", len(good))

    def write(position: int) -> list[tuple[TestItem, float]]:
        return list(_write_copies(detector, good, position, root, count=count, seed=seed, roi=roi))

    items: list[TestItem] = []
    diameters: dict[Path, float] = {}
    for written in ordered_map(write, range(len(good)), workers=detector.runtime.plan.workers):
        items += [item for item, _ in written]
        diameters |= {item.path: diameter for item, diameter in written if item.is_defective}
        progress.advance()
    return items, diameters


def _roi(detector: AnomalyDetector, good: Path) -> Bool[np.ndarray, "h w"]:
    """The pixels of the network's input that the model scores: elsewhere its heatmap is 0, and nowhere else."""
    roi: Bool[np.ndarray, "h w"] = detector.score_image(good).require().network_heatmap > 0
    return roi


def _write_copies(
    detector: AnomalyDetector,
    good: Sequence[Path],
    position: int,
    root: Path,
    *,
    count: int,
    seed: int,
    roi: Bool[np.ndarray, "h w"],
) -> Iterator[tuple[TestItem, float]]:
    """Write one good part and its copies with defects, and give each with its defect's diameter."""
    image, texture = (detector.read(path) for path in (good[position], good[position - 1]))
    size = drawing_size(image.shape[:2], detector.input_shape)
    pixels = reading.resize(image, size)
    scale = math.sqrt(image.shape[0] * image.shape[1] / math.prod(size))
    within = reading.resize_map(roi.astype(np.float32), *size) >= 0.5
    kinds = list(KINDS)
    path = reading.write_png(root / "test" / GOOD / f"{position:04}.png", pixels)
    yield TestItem(path, GOOD, None), 0.0
    for number in range(count):
        rng = np.random.default_rng((seed, position, number))
        kind = kinds[(position * count + number) % len(kinds)]
        defect = draw_defect(pixels, rng=rng, source=texture, kind=kind, within=within)
        stem = f"{position:04}_{number:02}"
        path = reading.write_png(root / "test" / defect.kind / f"{stem}.png", defect.image)
        mask = reading.write_png(root / "ground_truth" / defect.kind / f"{stem}_mask.png", defect.mask)
        diameter = scale * math.sqrt(4 / math.pi * int(defect.mask.sum()))
        yield TestItem(path, defect.kind, mask), diameter
