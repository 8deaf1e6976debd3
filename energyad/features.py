"""Patch features of a frozen timm backbone: images in, one feature grid out."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from energyad import backbones
from energyad.backbones import BackboneWeights
from energyad.errors import BackboneError, SettingsError

DEFAULT_STRIDES = (4, 8, 16)
DEFAULT_HALF_STRIDES = (8, 16, 32)
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
class Stages:
    """Which feature maps of a backbone are used, and the stride of the grid.

    indices: timm's, of all of them. whole, half: places among these, of the image and of the image at half its size.
    """

    indices: tuple[int, ...]
    whole: tuple[int, ...]
    half: tuple[int, ...]
    stride: int


@dataclass(frozen=True)
class Scale:
    """A part of the features that is judged by itself: so many from channel `start` on.

    factor: patches of the grid, a side, that are one patch of this scale. Its features are dealt out among them, so
    that scales of any grid lie side by side in one array: feature n of a coarse patch is channel ⌊n / factor²⌋ of the
    (n mod factor²)-th of its patches, row by row.
    """

    start: int
    num_channels: int
    factor: int = 1

    @property
    def stop(self) -> int:
        """The first channel after it."""
        return self.start - (-self.num_channels // self.factor**2)

    def of(self, features: Float[Tensor, "*b rows g c"]) -> Float[Tensor, "*b rows2 g2 k"]:
        """This scale's patches of whole grids, which may lie below one another."""
        own = features[..., self.start : self.stop]
        if self.factor == 1:
            return own
        together = self._blocks(own).movedim((-4, -2), (-2, -1))
        return together.flatten(-3)[..., : self.num_channels]

    def mean_of(self, values: Float[Tensor, "*b rows g"]) -> Float[Tensor, "*b rows2 g2"]:
        """A value of each of the grid's patches as one of this scale's."""
        return values if self.factor == 1 else self._blocks(values[..., None]).mean(dim=(-4, -2))[..., 0]

    def any_of(self, patches: Bool[Tensor, "*b rows g"]) -> Bool[Tensor, "*b rows2 g2"]:
        """Which of this scale's patches hold one of these."""
        return self.mean_of(patches.float()) > 0

    def _blocks(self, grids: Shaped[Tensor, "*b rows g c"]) -> Shaped[Tensor, "*b rows2 f g2 f c"]:
        return grids.unflatten(-2, (-1, self.factor)).unflatten(-4, (-1, self.factor))


class FeatureExtractor(nn.Module):
    """RGB bytes to one grid of patch features: chosen stages, 3 × 3 mean, resized to a common grid, concatenated.

    The 3 × 3 mean makes each patch aware of its neighbours, as in PatchCore (Roth et al., CVPR 2022, eq. 2). Stages
    coarser than the grid are interpolated without it: their patches reach far as they are, and a mean over three of
    them thins out what is smaller.
    Normalisation is inside, so that every runtime sees the same bytes. Patches of the outermost `margin` rings are
    left out: they see the zeros that convolutions pad with, and would be the strangest of every good image.

    Of the image at half its size, an image pyramid's next level (Adelson et al. 1984), stages are taken without the
    mean, as features of patches twice as wide. scales: where the image's features lie, and those of its half.
    """

    scale: Float[Tensor, "1 3 1 1"]
    offset: Float[Tensor, "1 3 1 1"]

    def __init__(self, backbone: nn.Module, weights: BackboneWeights, *, grid: Grid, stages: Stages) -> None:
        super().__init__()
        self.backbone = backbone
        self.weights = weights
        self.grid = grid
        self.stages = stages
        self.register_buffer(
            "scale", 1 / (255 * torch.tensor(weights.std)).view(1, 3, 1, 1), persistent=False
        )
        offset = (torch.tensor(weights.mean) / torch.tensor(weights.std)).view(1, 3, 1, 1)
        self.register_buffer("offset", offset, persistent=False)
        self.wider = 2 if grid.margin % 2 == grid.inner % 2 == 0 else 1
        pixels = torch.zeros(1, 3, grid.image_size, grid.image_size)
        half_grid = Grid(grid.image_size, grid.size // self.wider, grid.margin // self.wider)
        with torch.no_grad():
            whole, half = self._maps(pixels)
        for name, maps, common in (("whole", whole, grid), ("half", half, half_grid)):
            for index, each in enumerate(maps):
                matrix = resampling_matrix(each.shape[-1], common, mean=name == "whole")
                self.register_buffer(f"{name}_{index}", matrix, persistent=False)
        own, coarse = (sum(each.shape[1] for each in maps) for maps in (whole, half))
        self.scales = (Scale(0, own), Scale(own, coarse, self.wider)) if half else (Scale(0, own),)

    def forward(self, pixels: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b c g g"]:
        """Features of the inner patches, g = grid.inner. pixels: RGB bytes, h = w = grid.image_size."""
        x = pixels.permute(0, 3, 1, 2).to(self.scale.dtype) * self.scale - self.offset
        whole, half = self._maps(x)
        features = self._resampled("whole", whole)
        if not half:
            return features
        coarse = self._resampled("half", half)
        spare = -coarse.shape[1] % self.wider**2
        padded = F.pad(coarse, (0, 0, 0, 0, 0, spare)) if spare else coarse
        dealt = F.pixel_shuffle(padded, self.wider)
        return torch.cat([features, dealt], dim=1)

    def _resampled(self, name: str, maps: list[Float[Tensor, "b _ gh gw"]]) -> Float[Tensor, "b c g g"]:
        matrices = [self.get_buffer(f"{name}_{index}") for index in range(len(maps))]
        return torch.cat([m @ (each @ m.T) for m, each in zip(matrices, maps, strict=True)], dim=1)

    def _maps(
        self, x: Float[Tensor, "b 3 h w"]
    ) -> tuple[list[Float[Tensor, "b _ gh gw"]], list[Float[Tensor, "b _ gh2 gw2"]]]:
        """The chosen maps of the image, and of it at half its size."""
        whole = self.maps_of(x)
        half = self.maps_of(F.avg_pool2d(x, 2)) if self.stages.half else []
        return [whole[place] for place in self.stages.whole], [half[place] for place in self.stages.half]

    def maps_of(self, x: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ gh gw"]]:
        """All the backbone's maps, the channel second; some transformers (Swin) give it last."""
        channels = self.backbone.feature_info.channels()  # type: ignore[union-attr, operator]
        return [
            stage if stage.shape[1] == count else stage.permute(0, 3, 1, 2)
            for stage, count in zip(self.backbone(x), channels, strict=True)
        ]


def resampling_matrix(size: int, grid: Grid, *, mean: bool = True) -> Float[Tensor, "inner size"]:
    """One axis of «3 × 3 mean, then resize to the common grid, then leave out the margin», as a matrix.

    All three steps are linear and separable, so a stage becomes R · stage · Rᵀ: two small products instead of passes
    over the whole map. Stages at least as fine as the grid: means, at the border over the neighbours that exist, then
    averaged down. Coarser ones: no mean, interpolated up with half-pixel centres. Rows sum to one.
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
def interpolation_matrix(size: int, target: int) -> Float[Tensor, "target size"]:
    """One axis of a linear interpolation with half-pixel centres, as a matrix whose rows sum to one, in float64."""
    centres = (torch.arange(target, dtype=torch.float64) + 0.5) * size / target - 0.5
    place = torch.arange(size, dtype=torch.float64)
    return (1 - (centres.clamp(0, size - 1)[:, None] - place).abs()).clamp_min(0)


def choose_stages(name: str, strides: tuple[int, ...], half_strides: tuple[int, ...] = ()) -> Stages:
    """The stages with these strides, those of the image at half its size, and the grid's stride (the middle one).

    A backbone without them (a plain vision transformer has one stride only) gives its last three stages at their
    finest stride, and none of a smaller image, nor does one that takes images of one size only. Raises BackboneError
    for a model that cannot give feature maps.
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
    if not all(stride in reductions for stride in strides):
        last = tuple(range(max(0, len(reductions) - 3), len(reductions)))
        return Stages(last, tuple(range(len(last))), (), min(reductions[i] for i in last))
    if backbones.takes_one_size(name):
        half_strides = ()
    halves = [stride for stride in half_strides if stride in reductions]
    indices = sorted({reductions.index(stride) for stride in (*strides, *halves)})
    whole, half = (
        tuple(indices.index(reductions.index(stride)) for stride in chosen) for chosen in (strides, halves)
    )
    return Stages(tuple(indices), whole, half, sorted(strides)[(len(strides) - 1) // 2])


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
    half_strides: tuple[int, ...] = (),
    weights_file: Path | None = None,
) -> FeatureExtractor:
    """A frozen extractor with pretrained weights. image_size: pixels a side, a multiple of 32."""
    stages = choose_stages(name, strides, half_strides)
    grid = make_grid(image_size, stages.stride)
    backbone, weights = backbones.load_backbone(
        name, out_indices=stages.indices, image_size=image_size, weights_file=weights_file
    )
    return FeatureExtractor(backbone, weights, grid=grid, stages=stages).eval()


def empty_extractor(
    weights: BackboneWeights, *, image_size: int, strides: tuple[int, ...], half_strides: tuple[int, ...] = ()
) -> FeatureExtractor:
    """The same without pretrained weights, for a saved model to fill."""
    stages = choose_stages(weights.name, strides, half_strides)
    backbone = backbones.empty_backbone(weights.name, out_indices=stages.indices, image_size=image_size)
    grid = make_grid(image_size, stages.stride)
    return FeatureExtractor(backbone, weights, grid=grid, stages=stages).eval()
