"""Patches that synthetic defects cover, on copies of good images: what a discriminator learns from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float16, Float32, UInt8
from torch import Tensor

from energyad.data.defect_kinds import KINDS
from energyad.data.defects import FINER, draw_defect, drawing_size
from energyad.features.grids import Grid
from energyad.fitting.context import FitContext
from energyad.fitting.extraction import EXTRACTION_BATCH_SIZE, sample_tiles
from energyad.images import reading
from energyad.images.augmentation import photometric_jitter
from energyad.images.prefetch import batches, ordered_map
from energyad.images.reading import ImageLike
from energyad.settings import FitSettings

MIN_COPIES, MAX_COPIES = 64, 300
"""Copies of all images together: several of each where there are few, of some where there are many. Likewise tiles."""

MIN_COVERAGE = 0.25
"""Fraction of a patch's pixels that a defect covers, less for coarser patches. Patches that defects cover less of are
neither good nor an example of a defect."""

SyntheticCopy = tuple[UInt8[np.ndarray, "h w 3"], Float32[np.ndarray, "g1 g2"]]
"""An image with defects, of the network's size, and the fraction of each patch that they cover."""


def synthetic_patches(
    fitted_images: Sequence[ImageLike], context: FitContext, *, kinds: Sequence[str] = tuple(KINDS)
) -> list[Float16[Tensor, "d c"]]:
    """Extract the patches that synthetic defects cover, on copies of the fitted images.

    The copies also have photometric jitter, or light would tell good patches from synthetic defects.

    Args:
        fitted_images: Images that are fitted on.
        context: Of the fit. Defects stay in its region of interest, except on tiles: where a chosen tile lay is not
            known.
        kinds: Kinds of defects to draw from.

    Returns:
        Features of the covered patches, for each scale; none where the settings ask for no defects.
    """
    if context.settings.synthetic_defects.per_image == 0:
        return [torch.empty(0, scale.num_channels, dtype=torch.float16) for scale in context.scales]
    indices = range(0, len(fitted_images), -(-len(fitted_images) // MAX_COPIES))
    context.progress.stage("synthetic defects", len(indices))
    work = _defect_drawer(fitted_images, context, num_images=len(indices), kinds=kinds)
    by_image = []
    for patches in ordered_map(work, indices, workers=context.session.plan.workers):
        by_image.append(patches)
        context.progress.advance()
    return [torch.cat(of_scale) for of_scale in zip(*by_image, strict=True)]


def drawing_fields(
    pixels: UInt8[np.ndarray, "h w 3"], *, settings: FitSettings, max_tiles: int
) -> Sequence[UInt8[np.ndarray, "side side2 3"]]:
    """Resize an image, or some of its tiles, to the size at which defects are drawn.

    Args:
        pixels: The image.
        settings: The size of the network's input, and the tiles.
        max_tiles: Tiles of the image at the most.

    Returns:
        The image or its tiles, between once and `FINER` times the size of the network's input.
    """
    size = drawing_size(pixels.shape[:2], settings.input.shape)
    if settings.input.tiling.count == 1:
        return [reading.resize(pixels, size)]
    times = FINER if size == tuple(FINER * side for side in settings.input.shape) else 1
    enlarged = settings.with_values(
        {"input.image_size": tuple(times * side for side in settings.input.network_shape)}
    )
    resized = reading.resize(pixels, enlarged.input.shape)
    return list(sample_tiles(resized, settings=enlarged, max_tiles=max_tiles))


def draw_synthetic_copy(
    pixels: UInt8[np.ndarray, "side side2 3"],
    *,
    grid: Grid,
    settings: FitSettings,
    rng: np.random.Generator,
    kinds: Sequence[str] = tuple(KINDS),
    roi_mask: Bool[np.ndarray, "h w"] | None = None,
) -> SyntheticCopy:
    """Draw synthetic defects on a copy of an image, and change its light.

    Args:
        pixels: The image, at the size at which defects are drawn.
        grid: Where the network's patches lie.
        settings: Number of defects, and strength of the photometric jitter.
        rng: Source of the defects and of the light.
        kinds: Kinds of defects to draw from.
        roi_mask: Pixels of the network's input that defects may cover; all where None.

    Returns:
        The copy at the size of the network's input, and the fraction of each patch that defects cover.
    """
    height, width = pixels.shape[:2]
    within = (
        None if roi_mask is None else reading.resize_map(roi_mask.astype(np.float32), height, width) >= 0.5
    )
    image, covered = pixels, np.zeros((height, width), dtype=bool)
    for _ in range(settings.synthetic_defects.per_image):
        defect = draw_defect(image, rng=rng, kind=str(rng.choice(kinds)), within=within)
        image, covered = defect.image, covered | defect.mask
    if within is not None:
        covered &= within
    axes = (grid.rows, grid.columns)
    rows, columns = (slice(axis.margin, axis.patches - axis.margin) for axis in axes)
    whole = reading.resize_map(covered.astype(np.float32), *(axis.patches for axis in axes))
    coverage = whole[rows, columns]
    resized = reading.resize(image, grid.image_size)
    return photometric_jitter(resized, strength=settings.augmentation.photometric_jitter, rng=rng), coverage


def _defect_drawer(
    fitted_images: Sequence[ImageLike], context: FitContext, *, num_images: int, kinds: Sequence[str]
) -> Callable[[int], list[Float16[Tensor, "p c"]]]:
    """Return a function from an image's index to its covered patches, for each scale. num_images: of all calls."""
    settings = context.settings
    max_tiles = max(1, MAX_COPIES // num_images)
    roi_mask = context.roi_mask if settings.input.tiling.count == 1 else None

    def copies(index: int) -> Iterator[SyntheticCopy]:
        rng = np.random.default_rng((settings.seed, index))
        pixels = reading.as_rgb(
            fitted_images[index], max_pixels=context.max_pixels, white_level=settings.input.white_level
        )
        fields = drawing_fields(pixels, settings=settings, max_tiles=max_tiles)
        rounds = -(-MIN_COPIES // (num_images * len(fields)))
        for field in fields:
            for _ in range(rounds):
                yield draw_synthetic_copy(
                    field, grid=context.grid, settings=settings, rng=rng, kinds=kinds, roi_mask=roi_mask
                )

    def draw(index: int) -> list[Float16[Tensor, "p c"]]:
        by_batch = [
            _covered_patches(batch, context) for batch in batches(copies(index), EXTRACTION_BATCH_SIZE)
        ]
        return [torch.cat(of_scale) for of_scale in zip(*by_batch, strict=True)]

    return draw


def _covered_patches(copies: Sequence[SyntheticCopy], context: FitContext) -> list[Float16[Tensor, "p c"]]:
    features = torch.from_numpy(context.session.run(np.stack([image for image, _ in copies])))
    channel_last = features.permute(0, 2, 3, 1)
    coverage = torch.from_numpy(np.stack([of_patches for _, of_patches in copies]))
    return [
        scale.of(channel_last)[scale.mean_of(coverage) >= MIN_COVERAGE / scale.factor].half()
        for scale in context.scales
    ]
