"""The patches that energies are fitted on, gathered from the features of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16
from torch import Tensor

from energyad.features.grids import Scale
from energyad.fitting.feature_store import release
from energyad.fitting.roi import eligible_patches

MAX_PATCHES = 1_000_000
"""Of each kind, in training: 0.7 GB as latents."""

RELEASE_EVERY = 500
"""Images between two releases of a memory-mapped file's pages: 0.14 GB of them."""


@dataclass(frozen=True, eq=False)
class TrainingPatches:
    """What the energy of one scale is fitted on.

    Attributes:
        fitted: Patches of the fitted images, image by image.
        jittered: Those of their copies with photometric jitter.
        held_out: Those of other good images. They teach nothing; they say when training becomes memorising.
        synthetic: Patches that synthetic defects cover, of all copies together.
    """

    fitted: Float16[Tensor, "n p c"]
    jittered: Float16[Tensor, "r p2 c2"]
    held_out: Float16[Tensor, "m p3 c"]
    synthetic: Float16[Tensor, "d c3"]


def gather_patches(
    features: Float16[np.ndarray, "n tiles g1 g2 c"],
    indices: Sequence[int],
    *,
    scale: Scale,
    generator: torch.Generator,
    in_roi: Bool[Tensor, " p"] | None = None,
) -> Float16[Tensor, "n q k"]:
    """Gather the patches of some images, or a random choice of them that makes `MAX_PATCHES` together.

    Images are read in order, one at a time: they may lie on a disk.

    Args:
        features: Features of all images.
        indices: Which images.
        scale: Which scale's patches.
        generator: Source of the choice.
        in_roi: Patches of the grid in the region of interest; see `eligible_patches`.

    Returns:
        Equally many patches of each image.
    """
    if len(indices) == 0:
        return torch.empty(0, 1, scale.num_channels, dtype=torch.float16)
    on_grid = torch.from_numpy(eligible_patches(features, in_roi))
    eligible = scale.any_of(on_grid).flatten()
    places = eligible.nonzero()[:, 0]
    count = min(MAX_PATCHES // len(indices), len(places))
    gathered = torch.empty(len(indices), count, scale.num_channels, dtype=torch.float16)
    for row, index in enumerate(indices):
        patches = scale.of(torch.from_numpy(features[index])).flatten(0, 2)
        if count < len(eligible):
            drawn = torch.randperm(len(places), generator=generator)[:count]
            patches = patches[places[drawn]]
        gathered[row] = patches
        if row % RELEASE_EVERY == 0:
            release(features)
    return gathered


def gather_scales(
    features: Float16[np.ndarray, "n tiles g1 g2 c"],
    indices: Sequence[int],
    scales: Sequence[Scale],
    *,
    generator: torch.Generator,
    in_roi: Bool[Tensor, " p"] | None = None,
) -> list[Float16[Tensor, "n q k"]]:
    """Gather the patches of some images, for each scale. See `gather_patches`."""
    return [
        gather_patches(features, indices, scale=scale, generator=generator, in_roi=in_roi) for scale in scales
    ]


def mean_patches(
    features: Float16[np.ndarray, "n tiles g1 g2 c"], indices: Sequence[int]
) -> Float[Tensor, "n c"]:
    """Return the mean patch of each of these images. One is read at a time: they may lie on a disk."""
    means = [features[index].mean(axis=(0, 1, 2), dtype=np.float32) for index in indices]
    return torch.from_numpy(np.stack(means))
