"""Validation from train/good alone: parts held out, as they are and with synthetic defects.

The discriminator of energyad learns from synthetic defects too; the kinds of the validation are kept from it. What is
ranked by it was not chosen on test images. It ranks, and estimates nothing: synthetic defects are not real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, UInt8
from torch import Tensor

from benchmarks.detection.quality import tally_pixels
from benchmarks.detection.same_features import FeatureRule
from energyad.data.datasets import Category
from energyad.data.defect_kinds import KINDS
from energyad.data.defects import draw_defect
from energyad.errors import DataError
from energyad.evaluation import metrics
from energyad.fitting.augmented import photometric_features
from energyad.fitting.context import FitContext
from energyad.fitting.extraction import GoodFeatures, extract
from energyad.fitting.patches import TrainingPatches, gather_scales
from energyad.fitting.synthetic import drawing_fields, synthetic_patches
from energyad.images import reading
from energyad.runtimes.onnx import OnnxFeatures
from energyad.scoring.scorer import Scores
from energyad.settings import FitSettings

HELD_OUT = 0.3
MOST_HELD_OUT = 60
APART = 0.05
MOST_APART = 10  # images
WATCHED_SHARE = 10  # one in so many fitted images only tells training when to stop
VALIDATION_KINDS = 4  # kinds of defects
NUM_DEFECTIVE = 300  # images with a defect, about
TOO_SMALL = 1 / 3  # of the synthetic defects, the smallest: by chance or seen by nobody
BATCH_SIZE = 8


@dataclass(frozen=True)
class ValidationImages:
    """Held-out images, first as they are and then with defects. masks: of the defects, empty for the others."""

    features: Float[Tensor, "n c g1 g2"]
    defective: Bool[np.ndarray, " n"]
    masks: Bool[np.ndarray, "n h w"]


@dataclass(frozen=True)
class SyntheticValidation:
    """What to fit on and what to measure on, of one category and seed. patches: of each scale."""

    context: FitContext
    patches: list[TrainingPatches]
    images: ValidationImages


ScoreFunction: TypeAlias = Callable[[Float[Tensor, "b c g1 g2"]], Scores]
"""Feature grids to scores, as a fitted head has it."""


def hold_out(category: Category, settings: FitSettings, *, threads: int) -> SyntheticValidation:
    """Hold parts and kinds of defects out, others for each seed; extract the rest as a fit does."""
    grid, scales, graph = FeatureRule("mahalanobis", settings).backbone()
    session = OnnxFeatures(graph, threads=threads)
    context = FitContext(settings=settings, session=session, grid=grid, scales=scales)
    fitted, held_out = split(category.train_good, settings.seed)
    watched, taught = fitted[::WATCHED_SHARE], [p for i, p in enumerate(fitted) if i % WATCHED_SHARE]
    kinds = np.random.default_rng(settings.seed).permutation(sorted(KINDS)).tolist()
    validation_kinds, training_kinds = kinds[:VALIDATION_KINDS], kinds[VALIDATION_KINDS:]
    generator = context.generator()

    def gathered(good: GoodFeatures) -> list[Float16[Tensor, "n p c"]]:
        return gather_scales(good.features, range(len(good.indices)), scales, generator=generator)

    own, seen = (gathered(extract(paths, context)) for paths in (taught, watched))
    jittered = gathered(photometric_features(taught, context))
    synthetic = synthetic_patches(taught, context, kinds=training_kinds)
    patches = [TrainingPatches(*of_scale) for of_scale in zip(own, jittered, seen, synthetic, strict=True)]
    return SyntheticValidation(context, patches, with_defects(session, held_out, validation_kinds, settings))


def split(good: Sequence[Path], seed: int) -> tuple[list[Path], list[Path]]:
    """Images to fit on and images held out. Raises DataError for too few.

    Held out is a run of them, and its neighbours are in neither: images next to each other often show one part.
    """
    if len(good) < 4:
        raise DataError(f"{len(good)} good image(s): at least 4 are needed to hold some out")
    count = min(MOST_HELD_OUT, max(2, round(HELD_OUT * len(good))))
    apart = min(MOST_APART, round(APART * len(good)))
    start = int(np.random.default_rng(seed).integers(0, len(good) - count + 1))
    fitted = [*good[: max(0, start - apart)], *good[start + count + apart :]]
    return fitted, list(good[start : start + count])


def with_defects(
    session: OnnxFeatures, paths: Sequence[Path], kinds: Sequence[str], settings: FitSettings
) -> ValidationImages:
    """Every held-out image as it is, and several times with one defect of these kinds, textured by another image."""
    rng = np.random.default_rng(settings.seed)
    good = [drawing_fields(reading.read_image(path), settings=settings, max_tiles=1)[0] for path in paths]
    pixels = [reading.resize(image, settings.input.network_shape) for image in good]
    masks = [np.zeros(image.shape[:2], dtype=bool) for image in pixels]
    for copy in range(-(-NUM_DEFECTIVE // len(good))):
        for place, image in enumerate(good):
            source = good[(place + 1 + copy) % len(good)]
            defect = draw_defect(image, rng=rng, source=source, kind=str(rng.choice(kinds)))
            pixels.append(reading.resize(defect.image, settings.input.network_shape))
            masks.append(reading.resize_map(defect.mask.astype(np.float32), *pixels[-1].shape[:2]) >= 0.5)
    areas = np.array([mask.sum() for mask in masks])
    defective = np.arange(len(pixels)) >= len(good)
    large_enough = ~defective | (areas >= np.quantile(areas[defective], TOO_SMALL))
    chosen = [image for image, counts in zip(pixels, large_enough, strict=True) if counts]
    return ValidationImages(
        run_backbone(session, chosen), defective[large_enough], np.stack(masks)[large_enough]
    )


def run_backbone(
    session: OnnxFeatures, pixels: Sequence[UInt8[np.ndarray, "h w 3"]]
) -> Float[Tensor, "n c g1 g2"]:
    """Features of resized images."""
    starts = range(0, len(pixels), BATCH_SIZE)
    return torch.from_numpy(
        np.concatenate([session.run(np.stack(pixels[start : start + BATCH_SIZE])) for start in starts])
    )


@torch.no_grad()
def measure_detection(images: ValidationImages, score: ScoreFunction) -> dict[str, float]:
    """Image and pixel AUROC, and AUPRO.

    Pixels of good images count for as many images as were planted in, or a heatmap that says less of how strange an
    image is would win by there being hardly any good one.
    """
    batches = [score(features) for features in images.features.split(BATCH_SIZE)]
    scores = torch.cat([scores.score for scores in batches]).numpy()
    heatmaps = torch.cat([scores.heatmap for scores in batches]).numpy()
    often = max(1, round(images.defective.sum() / (~images.defective).sum()))
    counted = np.repeat(np.arange(len(heatmaps)), np.where(images.defective, 1, often))
    tally = tally_pixels(heatmaps[counted], images.masks[counted])
    figures = {
        "image_auroc": metrics.image_auroc(images.defective.tolist(), scores.tolist()),
        "pixel_auroc": metrics.pixel_auroc([tally]),
        "aupro": metrics.aupro([tally]),
    }
    return {name: round(figure, 5) for name, figure in figures.items() if figure is not None}
