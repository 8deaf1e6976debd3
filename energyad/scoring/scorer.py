"""The scorer: ONE module from pixels to heatmap and score. Eager, exported and served all run this graph.

Deterministic: no sampling, no autograd. Whatever is learned is in its buffers and parameters; the threshold is not.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from energyad.energy.patch_energy import ImageEnergy
from energyad.features.extractor import FeatureExtractor
from energyad.features.grids import Grid
from energyad.images.tiling import Tiles, cut_indices
from energyad.scoring.heatmaps import border_weights, patches_in_roi, upsampling_axes

MIN_SCORE = 1e-12
"""To divide by, of images without any energy."""


PEAK_POWER = 3.0
"""How steeply the heatmap falls off around what the score comes from. 3 to 6 are alike."""


class Scores(NamedTuple):
    """What the scorer says of a batch.

    Attributes:
        score: The heatmap's highest value, an energy.
        heatmap: Smoothed energy at each pixel of the resized image.
        category: The category that each image was classified as, as a number; None for a model of one.
    """

    score: Float[Tensor, " b"]
    heatmap: Float[Tensor, "b h w"]
    category: Int[Tensor, " b"] | None = None


class EnergyHead(nn.Module):
    """Feature grid → latents → energies → heatmap → score: all that is fitted, behind the frozen backbone.

    patch_energy: of the patches of one category, or of several.
    smoothing: standard deviation in pixels of the Gaussian applied to the heatmap before its maximum is taken.
    contrast: of the heatmap, see `to_scores`.
    tiles: how the image was cut. mask: pixels in the region of interest, all where None; elsewhere the heatmap is 0.
    """

    upsampling: Float[Tensor, "h rows*inner"]
    widening: Float[Tensor, "w columns*inner"]
    border: Float[Tensor, "h w"]
    mask: Bool[Tensor, "h w"] | None
    in_roi: Bool[Tensor, " p"] | None

    def __init__(
        self,
        patch_energy: ImageEnergy,
        *,
        grid: Grid,
        smoothing: float,
        tiles: Tiles | None = None,
        mask: Bool[Tensor, "h w"] | None = None,
        contrast: float = 1.0,
    ) -> None:
        super().__init__()
        self.patch_energy = patch_energy
        self.contrast = contrast
        self.grid, self.tiles = grid, tiles or Tiles()
        axes = upsampling_axes(grid, self.tiles, smoothing=smoothing)
        border = border_weights(axes, grid, smoothing=smoothing)
        for name, matrix in zip(("upsampling", "widening", "border"), (*axes, border), strict=True):
            self.register_buffer(name, matrix, persistent=False)
        self.register_buffer("mask", mask)
        in_roi = None if mask is None else patches_in_roi(mask, axes, self.tiles)
        self.register_buffer("in_roi", in_roi, persistent=False)

    def forward(self, features: Float[Tensor, "b*tiles c g1 g2"]) -> Scores:
        """Score feature grids, those of an image's tiles row by row."""
        patches = features.permute(0, 2, 3, 1)
        patches_per_image = self.tiles.count * self.grid.num_patches
        energies, category = self.patch_energy.predict(patches, patches_per_image, self.in_roi)
        detection, localisation = map(self._smoothed, energies)
        return to_scores(detection, localisation, self.border, category, contrast=self.contrast)

    def _smoothed(self, energies: Float[Tensor, "b*tiles g1 g2"]) -> Float[Tensor, "b h w"]:
        """Return a map of pixels, 0 outside of the region of interest."""
        smoothed = self.upsampling @ self._side_by_side(energies) @ self.widening.T
        return smoothed if self.mask is None else torch.where(self.mask, smoothed, 0.0)

    def _side_by_side(
        self, energies: Float[Tensor, "b*tiles g1 g2"]
    ) -> Float[Tensor, "b rows*g1 columns*g2"]:
        if self.tiles.count == 1:
            return energies
        (g1, g2), rows, columns = self.grid.inner, self.tiles.rows, self.tiles.columns
        return (
            energies.reshape(-1, rows, columns, g1, g2).transpose(2, 3).reshape(-1, rows * g1, columns * g2)
        )


def to_scores(
    detection: Float[Tensor, "b h w"],
    localisation: Float[Tensor, "b h w"],
    border: Float[Tensor, "h w"],
    category: Int[Tensor, " b"] | None = None,
    *,
    contrast: float = 1.0,
) -> Scores:
    """Compute scores from smoothed energies, and heatmaps whose maximum is the score.

    heatmap = score · max((L / score)^c, (D / score)^p), D the energies that detect and L those that localise, both at
    most the score. The second term is what the score comes from: it reaches the score, and falls off steeply.

    Args:
        detection: D, smoothed.
        localisation: L, smoothed; see `PatchEnergies`.
        border: What each pixel weighs in the score, see `border_weights`.
        category: Passed on.
        contrast: c. Around an anomaly the energies of good patches are raised as well, as the backbone's patches
            overlap; with c > 1 less of that is seen.
    """
    # One map, not an axis after the other: of maximum, product, maximum in a row OpenVINO makes something else.
    score = (detection * border).amax(dim=(1, 2))
    limit = score[:, None, None]
    divisor = limit.clamp_min(MIN_SCORE)
    peak = (detection / divisor).clamp(0, 1) ** PEAK_POWER
    shown = (localisation / divisor).clamp(0, 1)
    return Scores(score, torch.maximum(shown if contrast == 1 else shown**contrast, peak) * limit, category)


class Scorer(nn.Module):
    """From pixels to score and heatmap: the feature extractor, then the energy head."""

    def __init__(self, extractor: FeatureExtractor, head: EnergyHead) -> None:
        super().__init__()
        self.extractor = extractor
        self.head = head

    def forward(self, pixels: UInt8[Tensor, "b h w 3"]) -> Scores:
        """Score RGB bytes, (h, w) = the grid's image_size, or the shape of its tiles together."""
        return self.head(self.extractor(cut(pixels, self.head.tiles, self.extractor.grid.image_size)))


def cut(
    pixels: UInt8[Tensor, "b h w 3"], tiles: Tiles, tile_size: tuple[int, int]
) -> UInt8[Tensor, "b*tiles th tw 3"]:
    """Cut each image into its tiles, row by row. tile_size: height and width, pixels."""
    if tiles.count == 1:
        return pixels
    rows, columns = (
        torch.from_numpy(cut_indices(count, side, tiles.overlap)).to(pixels.device)
        for count, side in zip((tiles.rows, tiles.columns), tile_size, strict=True)
    )
    return pixels[:, rows][:, :, :, columns].transpose(2, 3).reshape(-1, *tile_size, 3)
