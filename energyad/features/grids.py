"""Where patches lie: their grid, the scales of their features, and ways between grids."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from energyad.errors import SettingsError

MULTIPLE = 32
"""Coarsest stride of most networks, which an image's side is a multiple of."""
MIN_IMAGE_SIZE = 64


@dataclass(frozen=True)
class Grid:
    """Where patches lie: `size` a side over `image_size` pixels, the outer `margin` of them unused."""

    image_size: int
    size: int
    margin: int

    @property
    def inner(self) -> int:
        """Patches a side that are used."""
        return self.size - 2 * self.margin

    def coarser(self) -> Grid:
        """The grid of patches twice as wide, none of them beyond this margin; the same where such do not fit in."""
        coarse = Grid(self.image_size, self.size // 2, -(-self.margin // 2))
        return coarse if self.size % 2 == 0 and coarse.inner > 0 else self


@dataclass(frozen=True)
class Scale:
    """A part of the features with an energy of its own: so many channels from `start` on.

    factor: patches of the grid, a side, that are one patch of this scale. Its features are dealt out among them, so
    that scales of any grid lie side by side in one array: feature n of a coarse patch is channel ⌊n / factor²⌋ of the
    (n mod factor²)-th of its patches, row by row.
    margin: outermost patches of the grid, at each side, where this scale has none.
    """

    start: int
    num_channels: int
    factor: int = 1
    margin: int = 0

    @property
    def stop(self) -> int:
        """The first channel after it."""
        return self.start - (-self.num_channels // self.factor**2)

    def of(self, features: Float[Tensor, "*b rows g c"]) -> Float[Tensor, "*b rows2 g2 k"]:
        """This scale's patches of whole grids, which may lie below one another."""
        own = self._inner(features[..., self.start : self.stop])
        if self.factor == 1:
            return own
        together = self._blocks(own).movedim((-4, -2), (-2, -1))
        return together.flatten(-3)[..., : self.num_channels]

    def mean_of(self, values: Float[Tensor, "*b rows g"]) -> Float[Tensor, "*b rows2 g2"]:
        """A value of each of the grid's patches as one of this scale's."""
        own = self._inner(values[..., None])
        return (own if self.factor == 1 else self._blocks(own).mean(dim=(-4, -2)))[..., 0]

    def any_of(self, patches: Bool[Tensor, "*b rows g"]) -> Bool[Tensor, "*b rows2 g2"]:
        """Which of this scale's patches hold one of these."""
        return self.mean_of(patches.float()) > 0

    def side(self, g: int) -> int:
        """Patches a side, of a grid that has g."""
        return (g - 2 * self.margin) // self.factor

    def _inner(self, grids: Shaped[Tensor, "*b rows g c"]) -> Shaped[Tensor, "*b rows2 g2 c"]:
        if self.margin == 0:
            return grids
        inner = slice(self.margin, grids.shape[-2] - self.margin)
        return grids.unflatten(-3, (-1, grids.shape[-2]))[..., inner, inner, :].flatten(-4, -3)

    def _blocks(self, grids: Shaped[Tensor, "*b rows g c"]) -> Shaped[Tensor, "*b rows2 f g2 f c"]:
        return grids.unflatten(-2, (-1, self.factor)).unflatten(-4, (-1, self.factor))


def make_grid(image_size: int, stride: int, *, border: int, multiple: int = MULTIPLE) -> Grid:
    """The grid of a backbone's chosen stride. border: pixels; patches that lie in it are left out.

    multiple: what the image size must be a multiple of: the coarsest stride, or the patch size of a transformer.

    Raises SettingsError for a size that the strides do not divide, and a border that leaves no patch.
    """
    if image_size < MIN_IMAGE_SIZE or image_size % multiple != 0:
        near = multiple * max(-(-MIN_IMAGE_SIZE // multiple), round(image_size / multiple))
        raise SettingsError(
            f"image size {image_size}: must be a multiple of {multiple}, at least {MIN_IMAGE_SIZE}; try {near}"
        )
    margin = border // stride
    if 2 * margin >= image_size // stride:
        raise SettingsError(f"border {border}: leaves nothing of {image_size} pixels; make it smaller")
    return Grid(image_size, image_size // stride, margin)


def resampling_matrix(size: int, grid: Grid, *, mean: bool = True) -> Float[Tensor, "inner size"]:
    """One axis of «3 × 3 mean, then resize to the common grid, then leave out the margin», as a matrix.

    All three steps are linear and separable, so a stage becomes R · stage · Rᵀ: two small products instead of passes
    over the whole map. Stages at least as fine as the grid: means, at the border over the neighbours that exist, then
    averaged down. Coarser ones: no mean, interpolated up with half-pixel centres. FeatureStore sum to one.
    """
    place = torch.arange(size, dtype=torch.float64)
    if size % grid.size == 0:
        near = ((place[:, None] - place).abs() <= (1 if mean else 0)).double()
        means = near / near.sum(1, keepdim=True)
        share = size // grid.size
        common = torch.eye(grid.size, dtype=torch.float64).repeat_interleave(share, dim=1) / share @ means
    else:
        common = interpolation_matrix(size, grid.size)
    return common[grid.margin : grid.size - grid.margin].float()


@functools.cache
def interpolation_matrix(size: int, target: int, *, margin: int = 0) -> Float[Tensor, "target size"]:
    """One axis of a linear interpolation with half-pixel centres, as a matrix whose rows sum to one, in float64.

    margin: places at each end of the target that lie beyond what is interpolated, and have what lies next to them.
    """
    covered = target - 2 * margin
    centres = (torch.arange(-margin, target - margin, dtype=torch.float64) + 0.5) * size / covered - 0.5
    place = torch.arange(size, dtype=torch.float64)
    return (1 - (centres.clamp(0, size - 1)[:, None] - place).abs()).clamp_min(0)
