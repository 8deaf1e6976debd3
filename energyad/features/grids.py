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
class GridAxis:
    """One axis of a grid.

    Attributes:
        pixels: Of the network's input along it.
        patches: That lie over these pixels.
        margin: Patches at each end that are not used.
    """

    pixels: int
    patches: int
    margin: int

    @property
    def inner(self) -> int:
        """Patches that are used."""
        return self.patches - 2 * self.margin

    @property
    def can_halve(self) -> bool:
        """Whether patches twice as wide fit in, some of them inside the margin."""
        return self.patches % 2 == 0 and self.halved().inner > 0

    def halved(self) -> GridAxis:
        """The axis of patches twice as wide, none of them beyond this margin."""
        return GridAxis(self.pixels, self.patches // 2, -(-self.margin // 2))


@dataclass(frozen=True)
class Grid:
    """Where patches lie over the network's input, whose height and width may differ.

    Attributes:
        rows: The axis from top to bottom.
        columns: The axis from left to right.
    """

    rows: GridAxis
    columns: GridAxis

    @classmethod
    def square(cls, image_size: int, size: int, margin: int) -> Grid:
        """The grid of a square: `size` patches a side over `image_size` pixels, the outer `margin` of them unused."""
        axis = GridAxis(image_size, size, margin)
        return cls(axis, axis)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.rows.pixels, self.columns.pixels

    @property
    def inner(self) -> tuple[int, int]:
        """Rows and columns of patches that are used."""
        return self.rows.inner, self.columns.inner

    @property
    def num_patches(self) -> int:
        """Patches that are used."""
        return self.rows.inner * self.columns.inner

    def coarser(self) -> Grid:
        """The grid of patches twice as wide, none of them beyond this margin; the same where such do not fit in."""
        if not (self.rows.can_halve and self.columns.can_halve):
            return self
        return Grid(self.rows.halved(), self.columns.halved())


@dataclass(frozen=True)
class Scale:
    """A part of the features with an energy of its own: so many channels from `start` on.

    Features of a coarse patch are spread over the patches of the grid that it covers, so that scales of any grid lie
    side by side in one array: feature n is channel ⌊n / factor²⌋ of the (n mod factor²)-th of its patches, row by row.

    Attributes:
        start: First channel.
        num_channels: k, features of a patch of this scale.
        factor: Patches of the grid, a side, that are one patch of this scale.
        margin: Outermost patches of the grid, at each side, where this scale has none.
    """

    start: int
    num_channels: int
    factor: int = 1
    margin: int = 0

    @property
    def stop(self) -> int:
        """The first channel after it."""
        return self.start - (-self.num_channels // self.factor**2)

    def of(self, features: Float[Tensor, "*b g1 g2 c"]) -> Float[Tensor, "*b r1 r2 k"]:
        """This scale's patches of whole grids."""
        inner = self._inner(features[..., self.start : self.stop])
        if self.factor == 1:
            return inner
        together = self._blocks(inner).movedim((-4, -2), (-2, -1))
        return together.flatten(-3)[..., : self.num_channels]

    def mean_of(self, values: Float[Tensor, "*b g1 g2"]) -> Float[Tensor, "*b r1 r2"]:
        """A value of each of the grid's patches as one of this scale's."""
        own = self._inner(values[..., None])
        return (own if self.factor == 1 else self._blocks(own).mean(dim=(-4, -2)))[..., 0]

    def any_of(self, patches: Bool[Tensor, "*b g1 g2"]) -> Bool[Tensor, "*b r1 r2"]:
        """Which of this scale's patches hold one of these."""
        return self.mean_of(patches.float()) > 0

    def shape(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of patches, of a grid that has so many rows and columns."""
        rows, columns = ((patches - 2 * self.margin) // self.factor for patches in grid)
        return rows, columns

    def _inner(self, grids: Shaped[Tensor, "*b g1 g2 c"]) -> Shaped[Tensor, "*b r1 r2 c"]:
        if self.margin == 0:
            return grids
        rows, columns = (slice(self.margin, side - self.margin) for side in grids.shape[-3:-1])
        return grids[..., rows, columns, :]

    def _blocks(self, grids: Shaped[Tensor, "*b g1 g2 c"]) -> Shaped[Tensor, "*b r1 f r2 f c"]:
        return grids.unflatten(-2, (-1, self.factor)).unflatten(-4, (-1, self.factor))


def make_grid(image_size: tuple[int, int], stride: int, *, border: int, multiple: int = MULTIPLE) -> Grid:
    """The grid of a backbone's chosen stride.

    Args:
        image_size: Height and width of the network's input, pixels.
        stride: Pixels a patch.
        border: Pixels; patches that lie in it are left out.
        multiple: What sides must be a multiple of: the coarsest stride, or the patch size of a transformer.

    Raises:
        SettingsError: For a size that the strides do not divide, and a border that leaves no patch.
    """
    return Grid(*(_make_axis(pixels, stride, border=border, multiple=multiple) for pixels in image_size))


def _make_axis(pixels: int, stride: int, *, border: int, multiple: int) -> GridAxis:
    if pixels < MIN_IMAGE_SIZE or pixels % multiple != 0:
        near = multiple * max(-(-MIN_IMAGE_SIZE // multiple), round(pixels / multiple))
        raise SettingsError(
            f"image size {pixels}: must be a multiple of {multiple}, at least {MIN_IMAGE_SIZE}; try {near}"
        )
    margin = border // stride
    if 2 * margin >= pixels // stride:
        raise SettingsError(f"border {border}: leaves nothing of {pixels} pixels; make it smaller")
    return GridAxis(pixels, pixels // stride, margin)


def resampling_matrix(size: int, axis: GridAxis, *, mean: bool = True) -> Float[Tensor, "inner size"]:
    """One axis of «3 × 3 mean, then resize to the common grid, then leave out the margin», as a matrix.

    All three steps are linear and separable, so a stage becomes R · stage · Cᵀ: two small products instead of passes
    over the whole map. Stages at least as fine as the grid: means, at the border over the neighbours that exist, then
    averaged down. Coarser ones: no mean, interpolated up with half-pixel centres. Rows sum to one.

    Args:
        size: Patches a side of the stage.
        grid: The common grid.
        mean: Whether stages at least as fine as the grid are averaged over 3 × 3 patches first.
    """
    cell = torch.arange(size, dtype=torch.float64)
    if size % axis.patches == 0:
        near = ((cell[:, None] - cell).abs() <= (1 if mean else 0)).double()
        means = near / near.sum(1, keepdim=True)
        share = size // axis.patches
        common = torch.eye(axis.patches, dtype=torch.float64).repeat_interleave(share, dim=1) / share @ means
    else:
        common = interpolation_matrix(size, axis.patches)
    return common[axis.margin : axis.patches - axis.margin].float()


@functools.cache
def interpolation_matrix(size: int, target: int, *, margin: int = 0) -> Float[Tensor, "target size"]:
    """One axis of a linear interpolation with half-pixel centres, as a matrix whose rows sum to one, in float64.

    Args:
        size: Places before.
        target: Places after.
        margin: Places at each end of the target that lie beyond what is interpolated, and take the nearest value.
    """
    covered = target - 2 * margin
    centres = (torch.arange(-margin, target - margin, dtype=torch.float64) + 0.5) * size / covered - 0.5
    cell = torch.arange(size, dtype=torch.float64)
    return (1 - (centres.clamp(0, size - 1)[:, None] - cell).abs()).clamp_min(0)
