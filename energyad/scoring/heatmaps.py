"""From energies of patches to a heatmap of pixels: upsampling, smoothing, borders, tiles."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from energyad.features.grids import Grid, GridAxis
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
    down = _blended_axis(grid.rows, tiles.rows, tiles.overlap, smoothing=smoothing)
    return down, _blended_axis(grid.columns, tiles.columns, tiles.overlap, smoothing=smoothing)


def _blended_axis(
    axis: GridAxis, count: int, overlap: float, *, smoothing: float
) -> Float[Tensor, "length count*inner"]:
    first = math.ceil((axis.margin + 0.5) * axis.pixels / axis.patches)  # centre of the first inner patch
    return blended(upsampling_matrix(axis, smoothing=smoothing), count, overlap, margin=first)


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
    weights = []
    for matrix, axis in zip(axes, (grid.rows, grid.columns), strict=True):
        usual = upsampling_matrix(axis, smoothing=smoothing)[:, axis.inner // 2].max()
        weights.append((usual / matrix.amax(dim=1)).clamp_max(1.0))
    down, across = weights
    return down[:, None] * across


def patches_in_roi(
    mask: Bool[Tensor, "h w"], axes: tuple[Float[Tensor, "h p"], Float[Tensor, "w q"]], tiles: Tiles
) -> Bool[Tensor, " tiles*g1*g2"]:
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


def upsampling_matrix(axis: GridAxis, *, smoothing: float) -> Float[Tensor, "pixels inner"]:
    """Return one axis of: interpolate linearly to all pixels, then smooth by a Gaussian; its rows sum to one.

    Both steps are linear and separable, so heatmap = U · energies · Vᵀ: two small products instead of two passes
    over all pixels. Half-pixel centres; towards the border the outermost inner patch is continued.
    """
    pixel = torch.arange(axis.pixels, dtype=torch.float64)
    centres = ((pixel + 0.5) * axis.patches / axis.pixels - 0.5 - axis.margin).clamp(0, axis.inner - 1)
    interpolation = (1 - (centres[:, None] - torch.arange(axis.inner)).abs()).clamp_min(0)
    if smoothing <= 0:
        return interpolation.float()
    away = (pixel[:, None] - pixel).abs() / smoothing
    blur = torch.where(away <= SMOOTHING_TRUNCATE, torch.exp(-0.5 * away**2), 0.0)
    return ((blur / blur.sum(1, keepdim=True)) @ interpolation).float()
