"""A network of five convolutions with weights from a seed: tracing a real one takes longer than a small fit."""

from __future__ import annotations

import hashlib
from typing import Any

import timm
import torch
from timm.models import generate_default_cfgs, register_model
from timm.models.efficientnet import _create_effnet, decode_arch_def
from torch import nn

from energyad.features import backbones
from energyad.features.backbone_spec import BackboneSpec

NAME = "five_convolutions"
WIDTHS = (16, 24, 32, 48)
default_cfgs = generate_default_cfgs({NAME: {"first_conv": "conv_stem", "classifier": "classifier"}})
from_timm = backbones._from_timm


@register_model
def five_convolutions(pretrained: bool = False, **options: Any) -> nn.Module:
    """Maps of strides 4, 8, 16 and 32, a convolution each, with batch normalisation and ReLU."""
    blocks = decode_arch_def([[f"cn_r1_k3_s2_e1_c{width}"] for width in WIDTHS])
    return _create_effnet(NAME, pretrained, block_args=blocks, stem_size=8, num_features=64, **options)


def drawn_weights(name: str, options: dict[str, Any]) -> tuple[nn.Module, BackboneSpec]:
    """In place of `backbones._from_timm`: the network of this file has the same weights each time."""
    if name != NAME:
        return from_timm(name, options)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = timm.create_model(name)
    model = timm.create_model(name, **options)
    model.load_state_dict(plain.state_dict(), strict=False)
    half = (0.5, 0.5, 0.5)
    return model, BackboneSpec(name, half, half, f"timm:{name}", hashlib.sha256(name.encode()).hexdigest())
