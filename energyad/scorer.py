"""The scorer: ONE module from pixels to heatmap and score. Eager, exported and served all run this graph.

Deterministic: no sampling, no autograd. Whatever is learned is in its buffers and parameters; the threshold is not.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Self

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from energyad.experts import Experts, Judge
from energyad.features import FeatureExtractor
from energyad.grids import Grid
from energyad.settings import FitSettings
from energyad.tiling import Tiles, blending_weights, cut_indices, length, starts

SMOOTHING_REACH = 6
"""Standard deviations. Beyond, weights become subnormal numbers, which cost a head a quarter of its time."""

LEAST_SCORE = 1e-12
"""To divide by, of images without any energy."""

LEAST_WEIGHT = 1e-2
"""Pixels. Of a patch that weighs less in what is judged of an image, nothing is seen there."""


class Scores(NamedTuple):
    """score: the heatmap's highest value. heatmap: smoothed energy at each pixel of the resized image.

    category: that each image was taken for, as a number; None of a model of one.
    """

    score: Float[Tensor, " b"]
    heatmap: Float[Tensor, "b h w"]
    category: Int[Tensor, " b"] | None = None


class EnergyHead(nn.Module):
    """Feature grid → latents → energies → heatmap → score: all that is fitted, behind the frozen backbone.

    expert: what judges the patches of a category, or one for each of several.
    smoothing: standard deviation in pixels of the Gaussian applied to the heatmap before its maximum is taken.
    contrast: of the heatmap, see `to_scores`.
    tiles: how the image was cut. mask: pixels of the heatmap that are judged, all where None; elsewhere it is 0.
    even: whether a patch weighs as much at the border as in the middle, see `border_weights`.
    """

    upsampling: Float[Tensor, "h rows*inner"]
    widening: Float[Tensor, "w columns*inner"]
    border: Float[Tensor, "h w"]
    mask: Bool[Tensor, "h w"] | None
    judged: Bool[Tensor, " p"] | None

    def __init__(
        self,
        expert: Judge | Experts,
        *,
        grid: Grid,
        smoothing: float,
        tiles: Tiles | None = None,
        mask: Bool[Tensor, "h w"] | None = None,
        even: bool = True,
        contrast: float = 1.0,
    ) -> None:
        super().__init__()
        self.expert = expert
        self.contrast = contrast
        self.tiles = tiles or Tiles()
        axes = upsampling_axes(grid, self.tiles, smoothing=smoothing)
        border = border_weights(axes, grid, smoothing=smoothing)
        if not even:
            border = torch.ones_like(border)
        for name, each in zip(("upsampling", "widening", "border"), (*axes, border), strict=True):
            self.register_buffer(name, each, persistent=False)
        self.register_buffer("mask", mask)
        judged = None if mask is None else judged_patches(mask, axes, self.tiles)
        self.register_buffer("judged", judged, persistent=False)

    @classmethod
    def of(
        cls,
        expert: Judge | Experts,
        grid: Grid,
        settings: FitSettings,
        *,
        tiles: Tiles | None = None,
        mask: Bool[Tensor, "h w"] | None = None,
        even: bool = True,
    ) -> Self:
        """With heatmaps as these settings ask."""
        smoothing, contrast = settings.smoothing, settings.heatmap_contrast
        return cls(
            expert, grid=grid, smoothing=smoothing, contrast=contrast, tiles=tiles, mask=mask, even=even
        )

    def forward(self, features: Float[Tensor, "b*tiles c g g"]) -> Scores:
        """Score feature grids, those of an image's tiles row by row."""
        patches, category = features.permute(0, 2, 3, 1), None
        if isinstance(self.expert, Experts):
            energies, category = self.expert(patches, self.judged)
        else:
            energies = self.expert(patches, self.tiles.count * patches.shape[1] ** 2, self.judged)
        smoothed = self.upsampling @ self._side_by_side(energies) @ self.widening.T
        if self.mask is not None:
            smoothed = torch.where(self.mask, smoothed, 0.0)
        return to_scores(smoothed, self.border, category, contrast=self.contrast)

    def _side_by_side(self, energies: Float[Tensor, "b*tiles g g"]) -> Float[Tensor, "b rows*g columns*g"]:
        if self.tiles.count == 1:
            return energies
        g, rows, columns = energies.shape[1], self.tiles.rows, self.tiles.columns
        return energies.reshape(-1, rows, columns, g, g).transpose(2, 3).reshape(-1, rows * g, columns * g)


def to_scores(
    smoothed: Float[Tensor, "b h w"],
    border: Float[Tensor, "h w"],
    category: Int[Tensor, " b"] | None = None,
    *,
    contrast: float = 1.0,
) -> Scores:
    """Scores of smoothed energies, and heatmaps, which stop at the scores. border: see `border_weights`.

    contrast: c of heatmap = score · (energy / score)^c. Around a strange place the energies of good patches are raised
    as well, as the backbone's patches overlap; with c > 1 less of that is shown. The score, the hottest pixel and the
    order of an image's pixels stay as they are.
    """
    # One map, not an axis after the other: of maximum, product, maximum in a row OpenVINO makes something else.
    score = (smoothed * border).amax(dim=(1, 2))
    limit = score[:, None, None]
    if contrast == 1:
        return Scores(score, torch.minimum(smoothed, limit), category)
    return Scores(score, (smoothed / limit.clamp_min(LEAST_SCORE)).clamp(0, 1) ** contrast * limit, category)


class Scorer(nn.Module):
    """Pixels in, score and heatmap out."""

    def __init__(self, extractor: FeatureExtractor, head: EnergyHead) -> None:
        super().__init__()
        self.extractor = extractor
        self.head = head

    def forward(self, pixels: UInt8[Tensor, "b h w 3"]) -> Scores:
        """Score RGB bytes, h = w = the grid's image_size, or the shape of its tiles together."""
        return self.head(self.extractor(cut(pixels, self.head.tiles, self.extractor.grid.image_size)))


def cut(pixels: UInt8[Tensor, "b h w 3"], tiles: Tiles, side: int) -> UInt8[Tensor, "b*tiles side side 3"]:
    """The tiles of each image, row by row."""
    if tiles.count == 1:
        return pixels
    rows, columns = (
        torch.from_numpy(cut_indices(count, side, tiles.overlap)).to(pixels.device)
        for count in (tiles.rows, tiles.columns)
    )
    return pixels[:, rows][:, :, :, columns].transpose(2, 3).reshape(-1, side, side, 3)


def upsampling_axes(
    grid: Grid, tiles: Tiles, *, smoothing: float
) -> tuple[Float[Tensor, "h rows*inner"], Float[Tensor, "w columns*inner"]]:
    """What makes a heatmap of energies, from the left and from the right: U · energies · Vᵀ."""
    matrix = upsampling_matrix(grid, smoothing=smoothing)
    first = math.ceil((grid.margin + 0.5) * grid.image_size / grid.size)  # centre of the first inner patch
    down, across = (
        blended(matrix, count, tiles.overlap, margin=first) for count in (tiles.rows, tiles.columns)
    )
    return down, across


def border_weights(
    axes: tuple[Float[Tensor, "h p"], Float[Tensor, "w q"]], grid: Grid, *, smoothing: float
) -> Float[Tensor, "h w"]:
    """What each pixel weighs in the score, so that one strange patch counts alike wherever it lies.

    Smoothing shares a patch's energy with its neighbours. Beside the border there are none, the heatmap continues the
    outermost patch there, and it would keep 1.6 times as much at a side and 2.7 times as much in a corner. axes: of
    `upsampling_axes`.
    """
    usual = upsampling_matrix(grid, smoothing=smoothing)[:, grid.inner // 2].max()
    down, across = ((usual / axis.amax(dim=1)).clamp_max(1.0) for axis in axes)
    return down[:, None] * across


def judged_patches(
    mask: Bool[Tensor, "h w"], axes: tuple[Float[Tensor, "h p"], Float[Tensor, "w q"]], tiles: Tiles
) -> Bool[Tensor, " tiles*g*g"]:
    """Patches that weigh in the mask's pixels, tile by tile. axes: of `upsampling_axes`."""
    weights = axes[0].T @ mask.to(axes[0].dtype) @ axes[1]
    by_tile = weights.unflatten(1, (tiles.columns, -1)).unflatten(0, (tiles.rows, -1)).transpose(1, 2)
    return by_tile.flatten() > LEAST_WEIGHT


def blended(
    upsampling: Float[Tensor, "side inner"], count: int, overlap: float, *, margin: int = 0
) -> Float[Tensor, "length count*inner"]:
    """One axis of «upsample each tile, weigh it, add where tiles overlap», as a matrix whose rows sum to one."""
    side, inner = upsampling.shape
    weights = torch.from_numpy(blending_weights(count, side, overlap, margin=margin))
    matrix = torch.zeros(length(count, side, overlap), count * inner, dtype=torch.float64)
    for number, start in enumerate(starts(count, side, overlap)):
        part = weights[number][:, None] * upsampling
        matrix[start : start + side, number * inner : (number + 1) * inner] = part
    return matrix.float()


def upsampling_matrix(grid: Grid, *, smoothing: float) -> Float[Tensor, "image_size inner"]:
    """One axis of «linear interpolation to image_size, then a Gaussian», as a matrix whose rows sum to one.

    Both steps are linear and separable, so heatmap = U · energies · Uᵀ: two small products instead of two passes
    over all pixels. Half-pixel centres; towards the border the outermost inner patch is continued.
    """
    pixel = torch.arange(grid.image_size, dtype=torch.float64)
    centres = ((pixel + 0.5) * grid.size / grid.image_size - 0.5 - grid.margin).clamp(0, grid.inner - 1)
    interpolation = (1 - (centres[:, None] - torch.arange(grid.inner)).abs()).clamp_min(0)
    if smoothing <= 0:
        return interpolation.float()
    away = (pixel[:, None] - pixel).abs() / smoothing
    blur = torch.where(away <= SMOOTHING_REACH, torch.exp(-0.5 * away**2), 0.0)
    return ((blur / blur.sum(1, keepdim=True)) @ interpolation).float()
