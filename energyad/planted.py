"""Patches of good images' copies that planted defects cover: what a discriminator learns to tell good ones from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float16, Float32, UInt8
from torch import Tensor

from energyad import detector, images
from energyad.augmentation import relight
from energyad.defect_kinds import KINDS
from energyad.defects import FINER, drawing_size, plant_defect
from energyad.extraction import BATCH_SIZE, some_tiles
from energyad.grids import Grid, Scale
from energyad.pipeline import batches, in_order
from energyad.progress import Progress
from energyad.runtimes.onnx import OnnxFeatures
from energyad.settings import FitSettings

FEWEST_COPIES, MOST_COPIES = 64, 300
"""Of few images several each, of very many images some; of tiles likewise."""

COVERED = 0.25
"""Share of a patch's own pixels, less of coarser ones. What defects cover less of is neither good nor an example."""


def planted_patches(
    fitted_images: Sequence[detector.ImageLike],
    session: OnnxFeatures,
    *,
    grid: Grid,
    scales: Sequence[Scale],
    settings: FitSettings,
    progress: Progress,
    kinds: Sequence[str] = tuple(KINDS),
    mask: Bool[np.ndarray, "h w"] | None = None,
) -> list[Float16[Tensor, "d c"]]:
    """Features of the patches that defects cover, of each scale; planted on copies of the fitted images, tile by tile.

    The copies lie under other light too, or light would tell good patches from planted ones. kinds: of the defects.
    mask: pixels of the resized image that they may cover; of tiles all, since where the drawn ones lay is not known.
    """
    if settings.planted_defects == 0:
        return [torch.empty(0, scale.num_channels, dtype=torch.float16) for scale in scales]
    chosen = range(0, len(fitted_images), -(-len(fitted_images) // MOST_COPIES))
    most_tiles = max(1, MOST_COPIES // len(chosen))
    mask = mask if settings.cut().count == 1 else None
    progress.stage("planted", len(chosen))

    def covered(place: int) -> list[Float16[Tensor, "p c"]]:
        rng = np.random.default_rng((settings.seed, place))
        pixels = images.as_rgb(fitted_images[place], white_level=settings.white_level)
        fields = to_plant_in(pixels, settings=settings, most_tiles=most_tiles)
        rounds = -(-FEWEST_COPIES // (len(chosen) * len(fields)))
        copies = (
            plant(field, grid=grid, settings=settings, rng=rng, kinds=kinds, mask=mask)
            for field in fields
            for _ in range(rounds)
        )
        found = [_features(session, batch, scales) for batch in batches(copies, BATCH_SIZE)]
        return [torch.cat(each) for each in zip(*found, strict=True)]

    gathered = []
    for patches in in_order(covered, chosen, workers=session.plan.workers):
        gathered.append(patches)
        progress.advance()
    return [torch.cat(each) for each in zip(*gathered, strict=True)]


def to_plant_in(
    pixels: UInt8[np.ndarray, "h w 3"], *, settings: FitSettings, most_tiles: int
) -> Sequence[UInt8[np.ndarray, "side side2 3"]]:
    """The image, or some of its tiles, at a size at which defects are drawn: from the network's to FINER times that."""
    size = drawing_size(pixels.shape[:2], settings.input_shape)
    if settings.cut().count == 1:
        return [images.resize(pixels, size)]
    times = FINER if size == tuple(FINER * side for side in settings.input_shape) else 1
    enlarged = replace(settings, image_size=times * settings.image_size)
    return list(some_tiles(images.resize(pixels, enlarged.input_shape), settings=enlarged, most=most_tiles))


def plant(
    pixels: UInt8[np.ndarray, "side side2 3"],
    *,
    grid: Grid,
    settings: FitSettings,
    rng: np.random.Generator,
    kinds: Sequence[str] = tuple(KINDS),
    mask: Bool[np.ndarray, "h w"] | None = None,
) -> tuple[UInt8[np.ndarray, "h w 3"], Float32[np.ndarray, "g g"]]:
    """A copy with defects, under other light, of the network's size; and how much of each patch they cover.

    mask: pixels of the resized copy that count, all where None.
    """
    image, covered = pixels, np.zeros(pixels.shape[:2], dtype=bool)
    within = None if mask is None else images.resize_map(mask.astype(np.float32), *pixels.shape[:2]) >= 0.5
    for _ in range(settings.planted_defects):
        defect = plant_defect(image, rng=rng, kind=str(rng.choice(kinds)), within=within)
        image, covered = defect.image, covered | defect.mask
    if within is not None:
        covered &= within
    inner = slice(grid.margin, grid.size - grid.margin)
    share = images.resize_map(covered.astype(np.float32), grid.size, grid.size)[inner, inner]
    return relight(images.resize(image, grid.image_size), strength=settings.lighting, rng=rng), share


def _features(
    session: OnnxFeatures,
    copies: Sequence[tuple[UInt8[np.ndarray, "h w 3"], Float32[np.ndarray, "g g"]]],
    scales: Sequence[Scale],
) -> list[Float16[Tensor, "p c"]]:
    features = torch.from_numpy(session.run(np.stack([image for image, _ in copies]))).permute(0, 2, 3, 1)
    shares = torch.from_numpy(np.stack([share for _, share in copies]))
    return [scale.of(features)[scale.mean_of(shares) >= COVERED / scale.factor].half() for scale in scales]
