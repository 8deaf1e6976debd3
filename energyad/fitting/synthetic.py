"""Patches of good images' copies that planted defects cover: what a discriminator learns to tell good ones from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float16, Float32, UInt8
from torch import Tensor

from energyad.data.defect_kinds import KINDS
from energyad.data.defects import FINER, draw_defect, drawing_size
from energyad.features.grids import Grid, Scale
from energyad.fitting.extraction import BATCH_SIZE, some_tiles
from energyad.images import reading
from energyad.images.augmentation import photometric_jitter
from energyad.images.prefetch import batches, ordered_map
from energyad.images.reading import ImageLike
from energyad.progress import Progress
from energyad.runtimes.onnx import OnnxFeatures
from energyad.settings import FitSettings

MIN_COPIES, MAX_COPIES = 64, 300
"""Of few images several each, of very many images some; of tiles likewise."""

MIN_COVERAGE = 0.25
"""Share of a patch's own pixels, less of coarser ones. What defects cover less of is neither good nor an example."""


def synthetic_patches(
    fitted_images: Sequence[ImageLike],
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
    if settings.synthetic_defects.per_image == 0:
        return [torch.empty(0, scale.num_channels, dtype=torch.float16) for scale in scales]
    chosen = range(0, len(fitted_images), -(-len(fitted_images) // MAX_COPIES))
    most_tiles = max(1, MAX_COPIES // len(chosen))
    mask = mask if settings.input.tiling.count == 1 else None
    progress.stage("planted", len(chosen))

    def covered(place: int) -> list[Float16[Tensor, "p c"]]:
        rng = np.random.default_rng((settings.seed, place))
        pixels = reading.as_rgb(fitted_images[place], white_level=settings.input.white_level)
        fields = drawing_fields(pixels, settings=settings, most_tiles=most_tiles)
        rounds = -(-MIN_COPIES // (len(chosen) * len(fields)))
        copies = (
            plant(field, grid=grid, settings=settings, rng=rng, kinds=kinds, mask=mask)
            for field in fields
            for _ in range(rounds)
        )
        found = [_features(session, batch, scales) for batch in batches(copies, BATCH_SIZE)]
        return [torch.cat(each) for each in zip(*found, strict=True)]

    gathered = []
    for patches in ordered_map(covered, chosen, workers=session.plan.workers):
        gathered.append(patches)
        progress.advance()
    return [torch.cat(each) for each in zip(*gathered, strict=True)]


def drawing_fields(
    pixels: UInt8[np.ndarray, "h w 3"], *, settings: FitSettings, most_tiles: int
) -> Sequence[UInt8[np.ndarray, "side side2 3"]]:
    """The image, or some of its tiles, at a size at which defects are drawn: from the network's to FINER times that."""
    size = drawing_size(pixels.shape[:2], settings.input.shape)
    if settings.input.tiling.count == 1:
        return [reading.resize(pixels, size)]
    times = FINER if size == tuple(FINER * side for side in settings.input.shape) else 1
    enlarged = settings.with_values({"input.image_size": times * settings.input.image_size})
    return list(some_tiles(reading.resize(pixels, enlarged.input.shape), settings=enlarged, most=most_tiles))


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
    within = None if mask is None else reading.resize_map(mask.astype(np.float32), *pixels.shape[:2]) >= 0.5
    for _ in range(settings.synthetic_defects.per_image):
        defect = draw_defect(image, rng=rng, kind=str(rng.choice(kinds)), within=within)
        image, covered = defect.image, covered | defect.mask
    if within is not None:
        covered &= within
    inner = slice(grid.margin, grid.size - grid.margin)
    share = reading.resize_map(covered.astype(np.float32), grid.size, grid.size)[inner, inner]
    return photometric_jitter(
        reading.resize(image, grid.image_size), strength=settings.augmentation.photometric_jitter, rng=rng
    ), share


def _features(
    session: OnnxFeatures,
    copies: Sequence[tuple[UInt8[np.ndarray, "h w 3"], Float32[np.ndarray, "g g"]]],
    scales: Sequence[Scale],
) -> list[Float16[Tensor, "p c"]]:
    features = torch.from_numpy(session.run(np.stack([image for image, _ in copies]))).permute(0, 2, 3, 1)
    shares = torch.from_numpy(np.stack([share for _, share in copies]))
    return [
        scale.of(features)[scale.mean_of(shares) >= MIN_COVERAGE / scale.factor].half() for scale in scales
    ]
