"""Several categories in one model: each image is judged by the energy of the category that it looks like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from energyad.energy.networks import energy_factors
from energyad.energy.reranking import Reranker
from energyad.energy.whitening import Whitening
from energyad.features.grids import Grid, Scale, interpolation_matrix

ENERGY_EPS = 1e-3
"""Energies below are alike, a hundredth of what is usual for good patches. Of a patch that is the very prototype which
it is compared with nothing but rounding is left, of which the logarithm would make much."""


class PatchEnergy(nn.Module):
    """What judges patches: their latents, these latents' energy, and a closer look at the strangest."""

    def __init__(self, whitening: Whitening, energy: nn.Module, closer_look: Reranker | None = None) -> None:
        super().__init__()
        self.whitening = whitening
        self.energy = energy
        self.closer_look = closer_look

    def forward(
        self, features: Float[Tensor, "b *g c"], per_image: int, judged: Bool[Tensor, " p"] | None = None
    ) -> Float[Tensor, "b *g"]:
        """The energy of each patch, the channel last.

        per_image: patches that an image has. judged: those of them that are worth a closer look, all where None.
        """
        z = self.whitening(features)
        energies, learned = energy_factors(self.energy, z)
        if self.closer_look is None:
            return energies
        closer: Float[Tensor, "b *g"] = self.closer_look(
            z, energies, learned=learned, per_image=per_image, judged=judged
        )
        return closer


class MultiScaleEnergy(nn.Module):
    """An expert of each scale, on that scale's own grid: what they make of a place is multiplied.

    log E = Σ_s w_s · log E_s, E_s the energy of one scale's features, its logarithm interpolated between its patches,
    and Σ w = 1: a logarithmic opinion pool (Heskes 1998), a product of experts (Hinton 2002) as steep as one of them.
    In one energy of all features the scale with most of them has most to say, and what one scale alone finds strange
    is lost among what the others find usual.

    side: patches of the grid, a side. shares: w, of each scale.
    """

    shares: Float[Tensor, "*b n"]

    def __init__(
        self, experts: Sequence[PatchEnergy], scales: Sequence[Scale], *, side: int, shares: Sequence[float]
    ) -> None:
        super().__init__()
        self.experts = nn.ModuleList(experts)
        self.scales, self.side = tuple(scales), side
        self.register_buffer("shares", torch.tensor(shares))

    def forward(
        self, features: Float[Tensor, "b *g c"], per_image: int, judged: Bool[Tensor, " p"] | None = None
    ) -> Float[Tensor, "b *g"]:
        """The energy of each patch; see `PatchEnergy.forward`."""
        total = torch.zeros((), device=features.device)
        for number, (expert, scale) in enumerate(zip(self.experts, self.scales, strict=True)):
            logs = self._log_energies(expert, scale, features, per_image, judged)
            total = total + self.shares[..., number] * logs
        return total.exp()

    def _log_energies(
        self,
        expert: nn.Module,
        scale: Scale,
        features: Float[Tensor, "b *g c"],
        per_image: int,
        judged: Bool[Tensor, " p"] | None,
    ) -> Float[Tensor, "b *g"]:
        """One scale's, at each patch of the grid."""
        if scale.factor == 1:
            energies: Float[Tensor, "b *g"] = expert(scale.of(features), per_image, judged)
            return energies.clamp_min(ENERGY_EPS).log()
        grids = features.reshape(-1, self.side, self.side, features.shape[-1])
        side = scale.side(self.side)
        count = per_image // self.side**2 * side**2
        counted = None if judged is None else scale.any_of(judged.view(-1, *grids.shape[1:3])).flatten()
        # As many to an image as there are of its weights, where experts of several categories lend them.
        own = scale.of(grids).reshape(features.shape[0], -1, scale.num_channels)
        coarse = expert(own, count, counted).reshape(-1, side, side)
        matrix = interpolation_matrix(side, self.side, margin=scale.margin).to(coarse)  # no weight of its own
        return (matrix @ coarse.clamp_min(ENERGY_EPS).log() @ matrix.T).reshape(features.shape[:-1])


PatchEnergyLike: TypeAlias = PatchEnergy | MultiScaleEnergy


def combine_scales(
    experts: Sequence[PatchEnergy], scales: Sequence[Scale], grid: Grid, coarse_weight: float
) -> PatchEnergyLike:
    """One judge of an expert for the image, and where there is one for the image at half its size, of both."""
    if len(experts) == 1:
        return experts[0]
    return MultiScaleEnergy(
        experts, scales, side=grid.inner, shares=(1 - coarse_weight, coarse_weight)
    ).eval()
