"""The scorer: ONE module from pixels to heatmap and score. Eager, exported and served all run this graph.

Deterministic: no sampling, no autograd. Whatever is learned is in its buffers and parameters; the threshold is not.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from energyad.features import FeatureExtractor, Grid
from energyad.latents import Whitening


class Scores(NamedTuple):
    """score: highest smoothed energy of each image. heatmap: energy at each pixel of the resized image."""

    score: Float[Tensor, " b"]
    heatmap: Float[Tensor, "b h w"]


class EnergyHead(nn.Module):
    """Feature grid → latents → energies → heatmap → score: all that is fitted, behind the frozen backbone.

    smoothing: standard deviation in pixels of the Gaussian applied to the heatmap before its maximum is taken.
    """

    upsampling: Float[Tensor, "image_size inner"]

    def __init__(self, whitening: Whitening, energy: nn.Module, *, grid: Grid, smoothing: float) -> None:
        super().__init__()
        self.whitening = whitening
        self.energy = energy
        self.register_buffer("upsampling", upsampling_matrix(grid, smoothing=smoothing), persistent=False)

    def energies(self, features: Float[Tensor, "b c g g"]) -> Float[Tensor, "b g g"]:
        """The energy of each patch."""
        return self.energy(self.whitening(features.permute(0, 2, 3, 1)))

    def forward(self, features: Float[Tensor, "b c g g"]) -> Scores:
        """Score a feature grid."""
        heatmap = self.upsampling @ self.energies(features) @ self.upsampling.T
        return Scores(heatmap.amax(dim=(1, 2)), heatmap)


class Scorer(nn.Module):
    """Pixels in, score and heatmap out."""

    def __init__(self, extractor: FeatureExtractor, head: EnergyHead) -> None:
        super().__init__()
        self.extractor = extractor
        self.head = head

    def forward(self, pixels: UInt8[Tensor, "b h w 3"]) -> Scores:
        """Score RGB bytes, h = w = the grid's image_size."""
        return self.head(self.extractor(pixels))


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
    blur = torch.exp(-0.5 * ((pixel[:, None] - pixel) / smoothing) ** 2)
    return ((blur / blur.sum(1, keepdim=True)) @ interpolation).float()
