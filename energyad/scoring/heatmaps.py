"""From energies of patches to a heatmap of pixels: upsampling, smoothing, borders, tiles."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from energyad.features.grids import Grid
from energyad.images.tiling import Tiles, blending_weights, length, starts

SMOOTHING_TRUNCATE = 6
"""Standard deviations. Beyond, weights become subnormal numbers, which cost a head a quarter of its time."""


MIN_PATCH_WEIGHT = 1e-2
"""Pixels. A patch that weighs less than this in the region of interest is not seen there."""


def upsampling_axes(
    grid: Grid, tiles: Tiles, *, smoothing: float
) -> tuple[Float[Tensor, "h rows*inner"], Float[Tensor, "w columns*inner"]]:
    """Return the matrices U and V of heatmap = U · energies · Vᵀ: upsampling, smoothing and blending of tiles.

    Args:
        grid: The grid of patches in one tile.
        tiles: How an image is cut.
        smoothing: Standard deviation of the Gaussian, pixels.
    """
    matrix = upsampling_matrix(grid, smoothing=smoothing)
    first = math.ceil((grid.margin + 0.5) * grid.image_size / grid.size)  # centre of the first inner patch
    down, across = (
        blended(matrix, count, tiles.overlap, margin=first) for count in (tiles.rows, tiles.columns)
    )
    return down, across


def border_weights(
    axes: tuple[Float[Tensor, "h p"], Float[Tensor, "w q"]], grid: Grid, *, smoothing: float
) -> Float[Tensor, "h w"]:
    """Return what each pixel weighs in the score, so that one abnormal patch counts the same wherever it lies.

    Smoothing shares a patch's energy with its neighbours. Beside the border there are none, the heatmap continues the
    outermost patch there, and it would keep 1.6 times as much at a side and 2.7 times as much in a corner.

    Args:
        axes: The matrices of `upsampling_axes`.
        grid: The grid of patches in one tile.
        smoothing: Standard deviation of the Gaussian, pixels.
    """
    usual = upsampling_matrix(grid, smoothing=smoothing)[:, grid.inner // 2].max()
    down, across = ((usual / axis.amax(dim=1)).clamp_max(1.0) for axis in axes)
    return down[:, None] * across


def patches_in_roi(
    mask: Bool[Tensor, "h w"], axes: tuple[Float[Tensor, "h p"], Float[Tensor, "w q"]], tiles: Tiles
) -> Bool[Tensor, " tiles*g*g"]:
    """Find the patches that weigh in the mask's pixels, tile by tile. `axes` are the matrices of `upsampling_axes`."""
    weights = axes[0].T @ mask.to(axes[0].dtype) @ axes[1]
    by_tile = weights.unflatten(1, (tiles.columns, -1)).unflatten(0, (tiles.rows, -1)).transpose(1, 2)
    return by_tile.flatten() > MIN_PATCH_WEIGHT


def blended(
    upsampling: Float[Tensor, "side inner"], count: int, overlap: float, *, margin: int = 0
) -> Float[Tensor, "length count*inner"]:
    """Return one axis of: upsample each tile, weigh it, add where tiles overlap; a matrix whose rows sum to one."""
    side, inner = upsampling.shape
    weights = torch.from_numpy(blending_weights(count, side, overlap, margin=margin))
    matrix = torch.zeros(length(count, side, overlap), count * inner, dtype=torch.float64)
    for number, start in enumerate(starts(count, side, overlap)):
        part = weights[number][:, None] * upsampling
        matrix[start : start + side, number * inner : (number + 1) * inner] = part
    return matrix.float()


def upsampling_matrix(grid: Grid, *, smoothing: float) -> Float[Tensor, "image_size inner"]:
    """Return one axis of: interpolate linearly to image_size, then smooth by a Gaussian; its rows sum to one.

    Both steps are linear and separable, so heatmap = U · energies · Uᵀ: two small products instead of two passes
    over all pixels. Half-pixel centres; towards the border the outermost inner patch is continued.
    """
    pixel = torch.arange(grid.image_size, dtype=torch.float64)
    centres = ((pixel + 0.5) * grid.size / grid.image_size - 0.5 - grid.margin).clamp(0, grid.inner - 1)
    interpolation = (1 - (centres[:, None] - torch.arange(grid.inner)).abs()).clamp_min(0)
    if smoothing <= 0:
        return interpolation.float()
    away = (pixel[:, None] - pixel).abs() / smoothing
    blur = torch.where(away <= SMOOTHING_TRUNCATE, torch.exp(-0.5 * away**2), 0.0)
    return ((blur / blur.sum(1, keepdim=True)) @ interpolation).float()
