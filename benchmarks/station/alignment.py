"""What alignment changes: a category as its parts come, and with every image moved onto a reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from jaxtyping import UInt8

from energyad.data.datasets import Category, open_category
from energyad.detector import AnomalyDetector
from energyad.evaluation.metrics import image_auroc
from energyad.images.alignment import Aligner, try_methods
from energyad.images.reading import read_image
from energyad.settings import FitSettings
from energyad.station.aligning import limit_of

SAMPLES: Final = 10
"""Images that the method is chosen on."""
MAX_SHIFT: Final = 0.08
"""Of shifted copies, as a share of the image's side."""
MAX_DEGREES: Final = 10.0
Image = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True)
class Alignment:
    """One fit of a category.

    Attributes:
        category: The category.
        copies: `as they are`, or `shifted`: every image moved by up to `MAX_SHIFT` and turned by up to `MAX_DEGREES`.
        method: How parts were aligned; None where they were not.
        train, good, defective: How many images.
        no_part: Test images of which the part was not found.
        false_rejects: Share of the good test images that are ng, those without a part not counted.
        auroc: Of the image scores, likewise.
    """

    category: str
    copies: str
    method: str | None
    train: int
    good: int
    defective: int
    no_part: int
    false_rejects: float
    auroc: float | None


def measure(
    root: Path, *, copies: str, num_train: int, settings: FitSettings, threads: int, seed: int
) -> list[Alignment]:
    """Fit and score a category without alignment and with it.

    Args:
        root: Its folder, in MVTec's layout.
        copies: See `Alignment`.
        num_train: Images of the fit, the first ones; those of the test are all used.
        settings: Of the fits.
        threads: Of fits and scoring.
        seed: Of the shifts.
    """
    category = open_category(root.name, data_root=root.parent)
    generator = np.random.default_rng(seed)
    move: Callable[[Image], Image] = _shifted(generator) if copies == "shifted" else lambda image: image
    train = [move(read_image(path)) for path in category.train_good[:num_train]]
    test = [move(read_image(item.path)) for item in category.test]
    best = try_methods(train[0], train[1 : 1 + SAMPLES])[0]
    aligner = Aligner(train[0], best.method, min_correlation=limit_of(best))
    without = _fit_and_score(category, train, list(test), settings, threads)
    aligned_train = [moved for moved in map(aligner.align, train) if moved is not None]
    aligned = _fit_and_score(category, aligned_train, list(map(aligner.align, test)), settings, threads)
    return [
        Alignment(root.name, copies, None, len(train), *without),
        Alignment(root.name, copies, best.method, len(aligned_train), *aligned),
    ]


def _shifted(generator: np.random.Generator) -> Callable[[Image], Image]:
    def move(image: Image) -> Image:
        height, width = image.shape[:2]
        matrix = cv2.getRotationMatrix2D(
            (width / 2, height / 2), generator.uniform(-MAX_DEGREES, MAX_DEGREES), 1
        )
        matrix[:, 2] += generator.uniform(-MAX_SHIFT, MAX_SHIFT, 2) * (width, height)
        return cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)

    return move


def _fit_and_score(
    category: Category,
    train: Sequence[Image],
    test: Sequence[Image | None],
    settings: FitSettings,
    threads: int,
) -> tuple[int, int, int, float, float | None]:
    """Good and defective images, those without a part, the share of false rejects, and the AUROC."""
    detector = AnomalyDetector.fit(train, name=category.name, settings=settings, threads=threads)
    found = [(item, pixels) for item, pixels in zip(category.test, test, strict=True) if pixels is not None]
    predictions = [detector.score_pixels([pixels])[0] for _, pixels in found]
    defective = [item.is_defective for item, _ in found]
    rejects = [
        prediction.verdict == "ng"
        for prediction, is_bad in zip(predictions, defective, strict=True)
        if not is_bad
    ]
    all_defective = sum(item.is_defective for item in category.test)
    return (
        len(category.test) - all_defective,
        all_defective,
        len(category.test) - len(found),
        round(float(np.mean(rejects)), 4) if rejects else 0.0,
        image_auroc(defective, [prediction.score for prediction in predictions]),
    )
