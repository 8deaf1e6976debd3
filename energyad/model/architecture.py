"""The shapes of a model's networks, as its manifest states them; without torch, which reading a manifest does not need.

`energyad.model.assembly` makes the networks from this, and describes those of a fit with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

MAX_SIZE = 1 << 24
"""Of any one axis; larger networks have no use here and would take all memory before their tensors are looked at."""
Size: TypeAlias = Annotated[int, Field(ge=1, le=MAX_SIZE)]
Count: TypeAlias = Annotated[int, Field(ge=0, le=MAX_SIZE)]
Precision: TypeAlias = Literal["float32", "int8"]


@dataclass(frozen=True, kw_only=True)
class ScaleArchitecture:
    """The energy of one scale of the features: of the image, or of the image at half its size.

    Attributes:
        channels: features of a patch of this scale.
        latent_dim: whitened directions that are kept of them.
        width: hidden units of the autoencoder.
        bottleneck: its code's length.
        discriminator_width: hidden units of the discriminator; 0 for an energy without one.
        memory_bank_size: latents that distances are measured from; 0 for the autoencoder alone.
        memory_bank_directions: leading latents in which these distances are kept one by one.
        rerank_banks: larger memory banks that the strangest patches are compared with; 0 for none.
        rerank_bank_size: latents of each of them.
        is_taught: whether people's marks raise the energy.
    """

    channels: Size
    latent_dim: Size
    width: Size
    bottleneck: Size
    discriminator_width: Count = 0
    memory_bank_size: Count = 0
    memory_bank_directions: Count = 0
    rerank_banks: Count = 0
    rerank_bank_size: Count = 0
    is_taught: bool = False


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """All that decides the shapes of a model's networks, beside its backbone, input and categories.

    Attributes:
        precision: of the backbone's arithmetic; in 8-bit integers only the graph holds it.
        strides: of the backbone's stages whose features are used.
        coarse_strides: of those used of the image at half its size.
        border_margin: pixels at each side whose patches are left out.
        scales: the energy of each scale of the features; every category has energies of these shapes.
        ensemble_size: energies that are averaged, in each scale.
        rerank_fraction: share of an image's patches that are compared with the rerank banks.
        smoothing: standard deviation in pixels of the heatmap's Gaussian.
        contrast: power of a pixel's share of the score in the heatmap.
    """

    precision: Precision = "float32"
    strides: Annotated[tuple[Size, ...], Field(min_length=1)]
    coarse_strides: tuple[Size, ...] = ()
    border_margin: Count
    scales: Annotated[tuple[ScaleArchitecture, ...], Field(min_length=1)]
    ensemble_size: Size = 1
    rerank_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    smoothing: Annotated[float, Field(ge=0, le=MAX_SIZE)]
    contrast: Annotated[float, Field(gt=0, le=MAX_SIZE)] = 1.0
