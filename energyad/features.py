"""Patch features of a frozen timm backbone: images in, one feature grid out."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor, nn

from energyad import backbones
from energyad.backbones import BackboneWeights
from energyad.errors import BackboneError, SettingsError

DEFAULT_STRIDES = (4, 8, 16)
BORDER_PIXELS = 16
"""Width of the border whose patches are left out. Their energy is the nearest inner patch's."""


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


@dataclass(frozen=True)
class Scale:
    """A part of the features that is judged by itself: channels from `start` to `stop`.

    factor: patches of the grid, a side, that are one patch of this scale, the mean of them. A stage coarser than the
    grid has no more to tell than its own grid holds.
    """

    start: int
    stop: int
    factor: int = 1

    @property
    def num_channels(self) -> int:
        """Features of a patch."""
        return self.stop - self.start

    def of(self, features: Float[Tensor, "*b rows g c"]) -> Float[Tensor, "*b rows2 g2 k"]:
        """This scale's patches of whole grids, which may lie below one another."""
        own = features[..., self.start : self.stop]
        return own if self.factor == 1 else self._blocks(own.float()).mean(dim=(-4, -2))

    def any_of(self, patches: Bool[Tensor, "*b rows g"]) -> Bool[Tensor, "*b rows2 g2"]:
        """Which of this scale's patches hold one of these."""
        return (
            patches if self.factor == 1 else self._blocks(patches[..., None]).any(dim=-4).any(dim=-2)[..., 0]
        )

    def _blocks(self, grids: Shaped[Tensor, "*b rows g c"]) -> Shaped[Tensor, "*b rows2 f g2 f c"]:
        return grids.unflatten(-2, (-1, self.factor)).unflatten(-4, (-1, self.factor))


class FeatureExtractor(nn.Module):
    """RGB bytes to one grid of patch features: chosen stages, 3 × 3 mean, resized to a common grid, concatenated.

    The 3 × 3 mean makes each patch aware of its neighbours, as in PatchCore (Roth et al., CVPR 2022, eq. 2). Stages
    coarser than the grid are interpolated without it: their patches reach far as they are, and a mean over three of
    them thins out what is smaller.
    Normalisation is inside, so that every runtime sees the same bytes. Patches of the outermost `margin` rings are
    left out: they see the zeros that convolutions pad with, and would be the strangest of every good image.

    scales: what is judged by itself, see `scales`.
    """

    scale: Float[Tensor, "1 3 1 1"]
    offset: Float[Tensor, "1 3 1 1"]

    def __init__(self, backbone: nn.Module, weights: BackboneWeights, *, grid: Grid) -> None:
        super().__init__()
        self.backbone = backbone
        self.weights = weights
        self.grid = grid
        self.register_buffer(
            "scale", 1 / (255 * torch.tensor(weights.std)).view(1, 3, 1, 1), persistent=False
        )
        offset = (torch.tensor(weights.mean) / torch.tensor(weights.std)).view(1, 3, 1, 1)
        self.register_buffer("offset", offset, persistent=False)
        with torch.no_grad():
            sizes = [
                stage.shape[-1] for stage in self._stages(torch.zeros(1, 3, grid.image_size, grid.image_size))
            ]
        for index, size in enumerate(sizes):
            self.register_buffer(f"resampling_{index}", resampling_matrix(size, grid), persistent=False)
        self.scales = scales(sizes, self.backbone.feature_info.channels(), grid)  # type: ignore[union-attr, operator]

    def forward(self, pixels: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b c g g"]:
        """Features of the inner patches, g = grid.inner. pixels: RGB bytes, h = w = grid.image_size."""
        x = pixels.permute(0, 3, 1, 2).to(self.scale.dtype) * self.scale - self.offset
        resampled = []
        for index, stage in enumerate(self._stages(x)):
            matrix = self.get_buffer(f"resampling_{index}")
            resampled.append(matrix @ (stage @ matrix.T))
        return torch.cat(resampled, dim=1)

    def _stages(self, x: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c gh gw"]]:
        """Feature maps, the channel second; some transformers (Swin) give it last."""
        channels = self.backbone.feature_info.channels()  # type: ignore[union-attr, operator]
        return [
            stage if stage.shape[1] == count else stage.permute(0, 3, 1, 2)
            for stage, count in zip(self.backbone(x), channels, strict=True)
        ]


def resampling_matrix(size: int, grid: Grid) -> Float[Tensor, "inner size"]:
    """One axis of «3 × 3 mean, then resize to the common grid, then leave out the margin», as a matrix.

    All three steps are linear and separable, so a stage becomes R · stage · Rᵀ: two small products instead of passes
    over the whole map. Stages at least as fine as the grid: means, at the border over the neighbours that exist, then
    averaged down. Coarser ones: no mean, interpolated up with half-pixel centres. Rows sum to one.
    """
    place = torch.arange(size, dtype=torch.float64)
    if size % grid.size == 0:
        near = ((place[:, None] - place).abs() <= 1).double()
        mean = near / near.sum(1, keepdim=True)
        share = size // grid.size
        common = torch.eye(grid.size, dtype=torch.float64).repeat_interleave(share, dim=1) / share @ mean
    else:
        common = interpolation_matrix(size, grid.size)
    return common[grid.margin : grid.size - grid.margin].float()


@functools.cache
def interpolation_matrix(size: int, target: int) -> Float[Tensor, "target size"]:
    """One axis of a linear interpolation with half-pixel centres, as a matrix whose rows sum to one, in float64."""
    centres = (torch.arange(target, dtype=torch.float64) + 0.5) * size / target - 0.5
    place = torch.arange(size, dtype=torch.float64)
    return (1 - (centres.clamp(0, size - 1)[:, None] - place).abs()).clamp_min(0)


def scales(sizes: Sequence[int], channels: Sequence[int], grid: Grid) -> tuple[Scale, ...]:
    """Finest first: stages as fine as the grid or finer are one scale, each coarser one its own, on its own grid."""
    fine = sum(count for size, count in zip(sizes, channels, strict=True) if size >= grid.size)
    found, start = [Scale(0, fine)] if fine else [], fine
    for size, count in zip(sizes, channels, strict=True):
        if size < grid.size:
            factor = grid.size // size
            found.append(Scale(start, start + count, factor if grid.inner % factor == 0 else 1))
            start += count
    return tuple(found)


def choose_stages(name: str, strides: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """The stage indices with these strides, and the grid's stride (the middle one).

    A backbone without them (a plain vision transformer has one stride only) gives its last three stages at
    their finest stride. Raises BackboneError for a model that cannot give feature maps.
    """
    backbones.check_name(name)
    try:
        reductions = list(
            timm.create_model(name, pretrained=False, features_only=True).feature_info.reduction()
        )
    except (RuntimeError, AttributeError, AssertionError) as error:
        raise BackboneError(
            f"backbone '{name}' gives no feature maps: choose a convolutional or transformer model"
        ) from error
    if all(stride in reductions for stride in strides):
        return tuple(reductions.index(stride) for stride in strides), sorted(strides)[(len(strides) - 1) // 2]
    last = tuple(range(max(0, len(reductions) - 3), len(reductions)))
    return last, min(reductions[i] for i in last)


def make_grid(image_size: int, stride: int) -> Grid:
    """The grid of a backbone's chosen stride. Raises SettingsError for a size that the strides do not divide."""
    if image_size < 64 or image_size % 32 != 0:
        near = max(64, 32 * round(image_size / 32))
        raise SettingsError(f"image size {image_size}: must be a multiple of 32, at least 64; try {near}")
    return Grid(image_size, image_size // stride, BORDER_PIXELS // stride)


def load_extractor(
    name: str,
    *,
    image_size: int,
    strides: tuple[int, ...] = DEFAULT_STRIDES,
    weights_file: Path | None = None,
) -> FeatureExtractor:
    """A frozen extractor with pretrained weights. image_size: pixels a side, a multiple of 32."""
    out_indices, stride = choose_stages(name, strides)
    grid = make_grid(image_size, stride)
    backbone, weights = backbones.load_backbone(
        name, out_indices=out_indices, image_size=image_size, weights_file=weights_file
    )
    return FeatureExtractor(backbone, weights, grid=grid).eval()


def empty_extractor(
    weights: BackboneWeights, *, image_size: int, strides: tuple[int, ...]
) -> FeatureExtractor:
    """The same without pretrained weights, for a saved model to fill."""
    out_indices, stride = choose_stages(weights.name, strides)
    backbone = backbones.empty_backbone(weights.name, out_indices=out_indices, image_size=image_size)
    return FeatureExtractor(backbone, weights, grid=make_grid(image_size, stride)).eval()
