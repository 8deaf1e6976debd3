"""Patch features of a frozen timm backbone: images in, one feature grid out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import timm
import torch
from torch import nn
from torch.nn import functional as F

from energyad import backbones
from energyad.errors import BackboneError

if TYPE_CHECKING:
    from pathlib import Path

    from jaxtyping import Float, UInt8
    from torch import Tensor

    from energyad.backbones import BackboneWeights

DEFAULT_STRIDES = (4, 8, 16)


class FeatureExtractor(nn.Module):
    """RGB bytes to one grid of patch features: chosen stages, 3 × 3 mean, resized to a common grid, concatenated.

    The 3 × 3 mean makes each patch aware of its neighbours, as in PatchCore (Roth et al., CVPR 2022, eq. 2).
    Normalisation is inside, so that every runtime sees the same bytes.
    """

    def __init__(self, backbone: nn.Module, weights: BackboneWeights, *, grid_size: int, image_size: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.weights = weights
        self.grid_size = grid_size
        self.image_size = image_size
        self.register_buffer("scale", 1 / (255 * torch.tensor(weights.std)).view(1, 3, 1, 1), persistent=False)
        offset = (torch.tensor(weights.mean) / torch.tensor(weights.std)).view(1, 3, 1, 1)
        self.register_buffer("offset", offset, persistent=False)

    def forward(self, pixels: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b c g g"]:
        """Patch features. pixels: RGB bytes, h = w = image_size."""
        x = pixels.permute(0, 3, 1, 2).to(self.scale.dtype) * self.scale - self.offset  # type: ignore[union-attr, operator]
        stages = [
            _to_grid(F.avg_pool2d(stage, 3, stride=1, padding=1, count_include_pad=False), self.grid_size)
            for stage in self.backbone(x)
        ]
        return torch.cat(stages, dim=1)


def _to_grid(x: Float[Tensor, "b c h w"], grid_size: int) -> Float[Tensor, "b c g g"]:
    """Finer stages are averaged down, coarser ones interpolated up."""
    height = x.shape[-2]
    if height == grid_size:
        return x
    if height % grid_size == 0:
        return F.avg_pool2d(x, height // grid_size)
    return F.interpolate(x, size=(grid_size, grid_size), mode="bilinear", align_corners=False)


def choose_stages(name: str, strides: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """The stage indices with these strides, and the grid's stride (the middle one).

    A backbone without them (a plain vision transformer has one stride only) gives its last three stages at
    their finest stride. Raises BackboneError for a model that cannot give feature maps.
    """
    backbones.check_name(name)
    try:
        reductions = list(timm.create_model(name, pretrained=False, features_only=True).feature_info.reduction())
    except (RuntimeError, AttributeError, AssertionError) as error:
        raise BackboneError(f"backbone '{name}' gives no feature maps: choose a convolutional or transformer model") from error
    if all(stride in reductions for stride in strides):
        return tuple(reductions.index(stride) for stride in strides), sorted(strides)[(len(strides) - 1) // 2]
    last = tuple(range(max(0, len(reductions) - 3), len(reductions)))
    return last, min(reductions[i] for i in last)


def load_extractor(
    name: str, *, image_size: int, strides: tuple[int, ...] = DEFAULT_STRIDES, weights_file: Path | None = None
) -> FeatureExtractor:
    """A frozen extractor with pretrained weights. image_size: pixels, a multiple of the backbone's largest stride."""
    out_indices, grid_stride = choose_stages(name, strides)
    backbone, weights = backbones.load_backbone(name, out_indices=out_indices, weights_file=weights_file)
    return FeatureExtractor(backbone, weights, grid_size=image_size // grid_stride, image_size=image_size).eval()
