"""The good patches that are most like a region: what the model compared it with, shown on images of good parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from energyad.detector import AnomalyDetector
from energyad.errors import DataError
from energyad.features.grids import Scale
from energyad.feedback.evidence import SeenImage, coverage_of, see_images
from energyad.feedback.learning import category_energy, scales_of
from energyad.feedback.marks import Polygon, mask_of
from energyad.feedback.teaching import OpenedModel, open_to_learn
from energyad.images.reading import ImageLike
from energyad.images.tiling import starts
from energyad.progress import NullProgress, Progress

MAX_REGIONS: Final = 5
"""Regions that are looked up, those of the highest peaks."""
AT_ONCE: Final = 32
"""Good images in memory."""


@dataclass(frozen=True)
class Patch:
    """A patch of an image.

    Attributes:
        image: The image.
        left: First column, pixels of the image.
        top: First row.
        width: Pixels.
        height: Pixels.
    """

    image: ImageLike
    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class GoodPatch:
    """A good patch near one of a region.

    Attributes:
        patch: Where it is.
        distance: To the region's patch, in units of the features' largest deviation.
        is_fitted: Whether its image was in the fit.
    """

    patch: Patch
    distance: float
    is_fitted: bool


@dataclass(frozen=True)
class Neighbours:
    """A region's strangest patch, and the good ones that are most like it, the nearest first, one of each image."""

    patch: Patch
    good: tuple[GoodPatch, ...]


def nearest_good(
    detector: AnomalyDetector,
    image: ImageLike,
    regions: Sequence[Polygon],
    good_images: Sequence[ImageLike],
    *,
    count: int = 3,
    threads: int | None = None,
    progress: Progress | None = None,
) -> list[Neighbours]:
    """Find the patches of good parts that are most like the strangest patch of each region.

    Args:
        detector: The model, of one category.
        image: Of the part.
        regions: Of the part, those of the highest peaks first; the whole image where there are none.
        good_images: Of good parts, those of the fit or others.
        count: Good images for each region.
        threads: Of the backbone; all cores by default.
        progress: Called at each image.

    Raises:
        DataError: The image, or none of the good ones, can be read.
        ModelError: The model is for several categories, quantised, or imported.
    """
    progress = progress or NullProgress()
    opened = open_to_learn(detector, threads=threads)
    seen = see_images([image], opened.manifest, opened.session, progress=NullProgress(), stage="part")
    if not seen:
        raise DataError("the part's image cannot be read; give the one that was scored")
    scale, latents = _scale_and_latents(opened, seen[0])
    masks = [mask_of([region], seen[0].shape) for region in regions[:MAX_REGIONS]]
    masks = masks or [np.ones(seen[0].shape, bool)]
    strangest = [_strangest(opened, scale, latents, mask) for mask in masks]
    found: list[list[GoodPatch]] = [[] for _ in strangest]
    progress.stage("good parts", len(good_images))
    for start in range(0, len(good_images), AT_ONCE):
        batch = good_images[start : start + AT_ONCE]
        for good in see_images(batch, opened.manifest, opened.session, progress=NullProgress(), stage=""):
            _, others = _scale_and_latents(opened, good)
            is_fitted = good.digest in opened.manifest.provenance.image_digests
            for index, near in zip(strangest, found, strict=True):
                distances = (others - latents[index]).norm(dim=1)
                nearest = int(distances.argmin())
                patch = _patch(opened, scale, good, nearest)
                near.append(GoodPatch(patch, float(distances[nearest]), is_fitted))
        progress.advance(len(batch))
    if not all(found):
        raise DataError("none of the good images can be read; give images of good parts")
    return [
        Neighbours(
            _patch(opened, scale, seen[0], index), tuple(sorted(near, key=lambda one: one.distance)[:count])
        )
        for index, near in zip(strangest, found, strict=True)
    ]


def _scale_and_latents(opened: OpenedModel, image: SeenImage) -> tuple[Scale, Float[Tensor, "p k"]]:
    """The finest scale, and its patches in the units of the memory banks."""
    scale, energy = scales_of(opened.head)[0], category_energy(opened.head).by_scale()[0]
    patches = scale.of(image.features.movedim(-3, -1).float())
    return scale, energy.whitening(patches).flatten(0, 2) * energy.whitening.deviations()


def _strangest(
    opened: OpenedModel, scale: Scale, latents: Float[Tensor, "p k"], mask: Bool[np.ndarray, "h w"]
) -> int:
    """The patch of a region with the highest energy."""
    energy = category_energy(opened.head).by_scale()[0]
    coverage = scale.mean_of(coverage_of(mask, opened.manifest, opened.head.grid)).flatten()
    inside = coverage >= min(0.5, float(coverage.max()))
    with torch.inference_mode():
        energies = energy.latent_energy(latents / energy.whitening.deviations())
    return int(energies.masked_fill(~inside, -torch.inf).argmax())


def _patch(opened: OpenedModel, scale: Scale, image: SeenImage, index: int) -> Patch:
    """Where a patch of the finest scale lies in its image."""
    grid, spec = opened.head.grid, opened.manifest.input
    tile, row, column = (
        int(at) for at in np.unravel_index(index, (spec.tiles.count, *scale.shape(grid.inner)))
    )
    tile_row, tile_column = divmod(tile, spec.tiles.columns)
    spans = []
    for axis, at, of_tile, count, shown, full in (
        (grid.rows, row, tile_row, spec.tiles.rows, image.shape[0], spec.shape[0]),
        (grid.columns, column, tile_column, spec.tiles.columns, image.shape[1], spec.shape[1]),
    ):
        side = axis.pixels / axis.patches
        inside = (axis.margin + scale.margin + at * scale.factor) * side
        first = starts(count, axis.pixels, spec.tiles.overlap)[of_tile] + inside
        spans.append((round(first * shown / full), max(1, round(scale.factor * side * shown / full))))
    (top, height), (left, width) = spans
    return Patch(image.source, left, top, width, height)
