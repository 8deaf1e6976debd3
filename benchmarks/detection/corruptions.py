"""`python -m benchmarks.detection.corruptions`: what changes of the images cost, one row for each change.

Methods are fitted on four fifths of the good images as they are; the rest set a threshold, by the same rule for each
method. Then the test images are scored as they are and once with each change: other light, blur, noise, compression and
a shift, as a camera's lens, lamp or holder may bring them.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from benchmarks import provenance
from benchmarks.command import command
from benchmarks.detection.data import open_anywhere
from benchmarks.detection.method import BATCH_SIZE, Fitted
from benchmarks.detection.methods import open_method
from benchmarks.detection.rows import settings_hash
from energyad.data.datasets import Category
from energyad.evaluation import metrics
from energyad.images import reading
from energyad.scoring.calibration import calibrate

RESULTS: Final = Path(__file__).with_name("corruptions.jsonl")
HELD_OUT_EVERY: Final = 5
FALSE_REJECT_RATE: Final = 0.05
"""Promised of good parts. As few as 19 held-out parts certify it."""

NETWORK_SIDE: Final = 256
NONE: Final = "none"

Pixels: TypeAlias = UInt8[np.ndarray, "h w 3"]
Corruption: TypeAlias = Callable[[Pixels, np.random.Generator], Pixels]


def expose(factor: float) -> Corruption:
    """Return a change of the light by a factor."""
    return lambda pixels, _: np.clip(np.rint(pixels * factor), 0, 255).astype(np.uint8)


def blur(pixels: Pixels, _: np.random.Generator) -> Pixels:
    """Blur by a Gaussian of one pixel's deviation in a network's input of 256 pixels."""
    return cv2.GaussianBlur(pixels, (0, 0), max(0.5, min(pixels.shape[:2]) / NETWORK_SIDE)).astype(np.uint8)


def add_noise(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Add Gaussian noise of eight grey levels to each pixel."""
    noisy = pixels + rng.normal(0, 8, pixels.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def compress(pixels: Pixels, _: np.random.Generator) -> Pixels:
    """Compress as JPEG of quality 50."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=50)
    return np.asarray(Image.open(file), dtype=np.uint8)


def shift(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Move the image by three hundredths of its sides, in a random direction; its border goes on."""
    height, width = pixels.shape[:2]
    angle = rng.uniform(0, 2 * np.pi)
    move = np.array([[1, 0, 0.03 * width * np.cos(angle)], [0, 1, 0.03 * height * np.sin(angle)]])
    moved = cv2.warpAffine(pixels, move, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return moved.astype(np.uint8)


CORRUPTIONS: Final[Mapping[str, Corruption]] = {
    NONE: lambda pixels, _: pixels,
    "exposure -30 %": expose(0.7),
    "exposure +30 %": expose(1.3),
    "blur": blur,
    "noise": add_noise,
    "JPEG 50": compress,
    "shift 3 %": shift,
}


def score(fitted: Fitted, paths: Sequence[Path], corruption: Corruption) -> list[float]:
    """Score images with a change, drawn from each image's place in the sequence."""
    scores: list[float] = []
    for start in range(0, len(paths), BATCH_SIZE):
        batch = [
            corruption(reading.read_image(path), np.random.default_rng((0, number)))
            for number, path in enumerate(paths[start : start + BATCH_SIZE], start=start)
        ]
        scores += fitted.score(np.stack([reading.resize(p, fitted.shape) for p in batch])).score.tolist()
    return scores


def measure(
    category: Category, fitted: Fitted, held_out: Sequence[Path], names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return image AUROC, and the shares of good and of defective test images above the threshold.

    Args:
        category: With test images.
        fitted: The method, fitted on other images than `held_out`.
        held_out: Good images that set the threshold.
        names: Of the changes.
    """
    good_scores = score(fitted, held_out, CORRUPTIONS[NONE])
    threshold = calibrate(good_scores, false_reject_rate=FALSE_REJECT_RATE).threshold
    defective = np.array([item.is_defective for item in category.test])
    figures = {}
    for name in names:
        scores = score(fitted, [item.path for item in category.test], CORRUPTIONS[name])
        above = np.array(scores) > threshold
        figures[name] = {
            "image_auroc": round(metrics.image_auroc(defective.tolist(), scores) or 0.0, 5),
            "false_alarms": round(float(above[~defective].mean()), 5),
            "found": round(float(above[defective].mean()), 5),
        }
    return figures


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection.corruptions", description=__doc__)
    parser.add_argument(
        "--data-root", action="append", type=Path, help="folder of categories; may be given several times"
    )
    parser.add_argument("--categories", nargs="+", required=True, metavar="NAME")
    parser.add_argument("--methods", nargs="+", default=["energyad", "knn"], metavar="NAME")
    parser.add_argument("--image-size", type=int, default=NETWORK_SIDE)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Append a row for each method, category and change."""
    options = parser().parse_args(arguments)
    for name in options.categories:
        category = open_anywhere(name, options.data_root)
        good = category.train_good
        held_out = good[::HELD_OUT_EVERY]
        fitted_on = [path for number, path in enumerate(good) if number % HELD_OUT_EVERY]
        for method_name in options.methods:
            method = open_method(method_name, image_size=options.image_size)
            fitted = method.fit(fitted_on, seed=options.seed, threads=options.threads)
            for corruption, figures in measure(category, fitted, held_out, list(CORRUPTIONS)).items():
                row = {
                    "method": method_name,
                    "category": name,
                    "corruption": corruption,
                    "seed": options.seed,
                    "settings_hash": settings_hash(method.settings),
                    **figures,
                    **vars(provenance.stamp(threads=options.threads)),
                }
                provenance.append_row(options.results, row)
                print(f"{name}, {method_name}, {corruption}: {figures}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
