"""Patch features of a frozen timm backbone: images in, one feature grid out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from jaxtyping import Float, UInt8
from timm.layers import Format
from torch import Tensor, nn
from torch.nn import functional as F

from energyad.errors import BackboneError
from energyad.features import backbones
from energyad.features.backbone_spec import BackboneSpec
from energyad.features.defaults import DEFAULT_BORDER_MARGIN, DEFAULT_STRIDES
from energyad.features.grids import MULTIPLE, Grid, Scale, make_grid, resampling_matrix

AXES = ("rows", "columns")


@dataclass(frozen=True)
class Stages:
    """Which feature maps of a backbone are used, and the stride of the grid.

    indices: timm's, of all of them. whole, half: places among these, of the image and of the image at half its size.
    multiple: what an image's side must be a multiple of.
    """

    indices: tuple[int, ...]
    whole: tuple[int, ...]
    half: tuple[int, ...]
    stride: int
    multiple: int = MULTIPLE


class FeatureExtractor(nn.Module):
    """RGB bytes to one grid of patch features: chosen stages, 3 × 3 mean, resized to a common grid, concatenated.

    The 3 × 3 mean makes each patch aware of its neighbours, as in PatchCore (Roth et al., CVPR 2022, eq. 2). Stages
    coarser than the grid are interpolated without it: their patches reach far as they are, and a mean over three of
    them thins out what is smaller.
    Normalisation is inside, so that every runtime sees the same bytes. Patches of the outermost `margin` rings are
    left out: they see little but the zeros that convolutions pad with.

    Of the image at half its size, an image pyramid's next level (Adelson et al. 1984), stages are taken without the
    mean, as features of patches twice as wide. scales: where the image's features lie, and those of its half.
    """

    scale: Float[Tensor, "1 3 1 1"]
    offset: Float[Tensor, "1 3 1 1"]

    def __init__(self, backbone: nn.Module, weights: BackboneSpec, *, grid: Grid, stages: Stages) -> None:
        super().__init__()
        self.backbone = backbone
        self.weights = weights
        self.grid = grid
        self.stages = stages
        self._is_channel_last = getattr(backbone, "output_fmt", Format.NCHW) == Format.NHWC
        self.register_buffer(
            "scale", 1 / (255 * torch.tensor(weights.std)).view(1, 3, 1, 1), persistent=False
        )
        offset = (torch.tensor(weights.mean) / torch.tensor(weights.std)).view(1, 3, 1, 1)
        self.register_buffer("offset", offset, persistent=False)
        pixels = torch.zeros(1, 3, *grid.image_size)
        half_grid = grid.coarser()
        with torch.no_grad():
            whole, half = self._maps(pixels)
        for name, maps, common in (("whole", whole, grid), ("half", half, half_grid)):
            for index, each in enumerate(maps):
                for axis, size, along in zip(
                    AXES, each.shape[-2:], (common.rows, common.columns), strict=True
                ):
                    matrix = resampling_matrix(size, along, mean=name == "whole")
                    self.register_buffer(f"{name}_{axis}_{index}", matrix, persistent=False)
        own, coarse = (sum(each.shape[1] for each in maps) for maps in (whole, half))
        wider = grid.rows.patches // half_grid.rows.patches
        beyond = wider * half_grid.rows.margin - grid.rows.margin
        self.scales: tuple[Scale, ...] = (Scale(0, own),)
        if half:
            self.scales += (Scale(own, coarse, wider, beyond),)

    def forward(self, pixels: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b c g1 g2"]:
        """Features of the inner patches, (g1, g2) = grid.inner. pixels: RGB bytes, (h, w) = grid.image_size."""
        x = pixels.permute(0, 3, 1, 2).to(self.scale.dtype) * self.scale - self.offset
        whole, half = self._maps(x)
        features = self._resampled("whole", whole)
        if not half:
            return features
        coarse = self._resampled("half", half)
        scale = self.scales[1]
        spare, beyond = -coarse.shape[1] % scale.factor**2, scale.margin
        padded = F.pad(coarse, (0, 0, 0, 0, 0, spare)) if spare else coarse
        dealt = F.pixel_shuffle(padded, scale.factor)
        return torch.cat([features, F.pad(dealt, (beyond,) * 4) if beyond else dealt], dim=1)

    def _resampled(self, name: str, maps: list[Float[Tensor, "b _ gh gw"]]) -> Float[Tensor, "b c g1 g2"]:
        resampled = []
        for index, stage in enumerate(maps):
            rows, columns = (self.get_buffer(f"{name}_{axis}_{index}") for axis in AXES)
            resampled.append(rows @ (stage @ columns.T))
        return torch.cat(resampled, dim=1)

    def _maps(
        self, x: Float[Tensor, "b 3 h w"]
    ) -> tuple[list[Float[Tensor, "b _ gh gw"]], list[Float[Tensor, "b _ gh2 gw2"]]]:
        """The chosen maps of the image, and of it at half its size."""
        whole = self.maps_of(x)
        half = self.maps_of(F.avg_pool2d(x, 2)) if self.stages.half else []
        return [whole[index] for index in self.stages.whole], [half[index] for index in self.stages.half]

    def maps_of(self, x: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ gh gw"]]:
        """All the backbone's maps, the channel second; some transformers (Swin) give it last."""
        maps = self.backbone(x)
        return [stage.permute(0, 3, 1, 2) for stage in maps] if self._is_channel_last else maps


def choose_stages(name: str, strides: tuple[int, ...], coarse_strides: tuple[int, ...] = ()) -> Stages:
    """The stages with these strides, those of the image at half its size, and the grid's stride (the middle one).

    A plain vision transformer has one stride only: it gives the maps of blocks at a half, three quarters and the end of
    its depth. Another backbone without these strides gives its last three stages at their finest stride. Neither is
    given a smaller image, nor is one that takes images of one size only. Raises BackboneError for a model that cannot
    give feature maps.
    """
    reductions = _reductions(name)
    if len(set(reductions)) == 1:
        depth = len(reductions)
        blocks = tuple(sorted({depth - 1 - depth // 2, depth - 1 - depth // 4, depth - 1}))
        return Stages(blocks, tuple(range(len(blocks))), (), reductions[0], multiple=reductions[0])
    if not all(stride in reductions for stride in strides):
        last = tuple(range(max(0, len(reductions) - 3), len(reductions)))
        return Stages(last, tuple(range(len(last))), (), min(reductions[i] for i in last))
    if backbones.takes_one_size(name):
        coarse_strides = ()
    halves = [stride for stride in coarse_strides if stride in reductions]
    indices = sorted({reductions.index(stride) for stride in (*strides, *halves)})
    whole, half = (
        tuple(indices.index(reductions.index(stride)) for stride in chosen) for chosen in (strides, halves)
    )
    return Stages(tuple(indices), whole, half, sorted(strides)[(len(strides) - 1) // 2])


def _reductions(name: str) -> list[int]:
    """The strides of all maps that a backbone can give, first ones first."""
    backbones.check_name(name)
    try:
        info = timm.create_model(name, pretrained=False, features_only=True).feature_info
    except (RuntimeError, AttributeError, AssertionError) as error:
        raise BackboneError(
            f"backbone '{name}' gives no feature maps: choose a convolutional or transformer model"
        ) from error
    return [entry["reduction"] for entry in info.info]


def load_extractor(
    name: str,
    *,
    image_size: tuple[int, int],
    strides: tuple[int, ...] = DEFAULT_STRIDES,
    coarse_strides: tuple[int, ...] = (),
    border: int = DEFAULT_BORDER_MARGIN,
    weights_file: Path | None = None,
) -> FeatureExtractor:
    """A frozen extractor with pretrained weights. border: pixels.

    image_size: height and width in pixels, multiples of 32, or of the patch size of a plain vision transformer.
    """
    stages = choose_stages(name, strides, coarse_strides)
    grid = make_grid(image_size, stages.stride, border=border, multiple=stages.multiple)
    backbone, weights = backbones.load_backbone(
        name, out_indices=stages.indices, image_size=image_size, weights_file=weights_file
    )
    return FeatureExtractor(backbone, weights, grid=grid, stages=stages).eval()


def empty_extractor(
    weights: BackboneSpec,
    *,
    image_size: tuple[int, int],
    strides: tuple[int, ...],
    coarse_strides: tuple[int, ...] = (),
    border: int = DEFAULT_BORDER_MARGIN,
) -> FeatureExtractor:
    """The same without pretrained weights, for a saved model to fill."""
    stages = choose_stages(weights.name, strides, coarse_strides)
    backbone = backbones.empty_backbone(weights.name, out_indices=stages.indices, image_size=image_size)
    grid = make_grid(image_size, stages.stride, border=border, multiple=stages.multiple)
    return FeatureExtractor(backbone, weights, grid=grid, stages=stages).eval()
