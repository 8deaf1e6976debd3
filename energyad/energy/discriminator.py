"""What synthetic defects teach: a network that tells good patches from those that a defect covers."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from energyad.energy.latent_energy import EnergyTerms, LatentEnergy, LatentEnergySizes
from energyad.energy.networks import Affine, init_uniform

MAX_LOG_ODDS = 1.0
"""Synthetic defects are stand-ins for real ones, so they may at most triple or third an energy."""

DROPOUT = 0.3


class Discriminator(nn.Module):
    """Log-odds of a synthetic defect against a good part, from a patch's latent.

    Trained by logistic regression they are the logarithm of the two densities' ratio (noise-contrastive estimation,
    Gutmann & Hyvärinen 2010). DRAEM (Zavrtanik et al., ICCV 2021) learns from synthetic defects too, SimpleNet (Liu et
    al., CVPR 2023) from noise on the features of good patches.

    Args:
        latent_dim: Length k of a latent.
        width: Units of the hidden layer.
        generator: Source of the initial weights.
    """

    def __init__(self, latent_dim: int, *, width: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.first = Affine(latent_dim, width)
        self.last = Affine(width, 1)
        for layer in (self.first, self.last):
            init_uniform(layer, generator=generator)

    def forward(
        self, z: Float[Tensor, "*b k"], *, dropout: torch.Generator | None = None
    ) -> Float[Tensor, "*b"]:
        """Return the log-odds of latents.

        Args:
            z: Latents, the latent axis last.
            dropout: Source of the hidden units that are left out in training. None leaves none out.
        """
        hidden = functional.silu(self.first(z))
        if dropout is not None:
            mask = torch.empty_like(hidden).bernoulli_(1 - DROPOUT, generator=dropout)
            hidden = hidden * mask / (1 - DROPOUT)
        log_odds: Float[Tensor, "*b"] = self.last(hidden).squeeze(dim=-1)
        return log_odds

    @torch.no_grad()
    def normalise(self, good: Float[Tensor, "n k"], *, strength: float) -> None:
        """Shift and scale the log-odds to mean 0 and standard deviation `strength` on good latents."""
        log_odds = self(good)
        factor = strength / log_odds.std().clamp_min(1e-6)
        self.last.weight.mul_(factor)
        self.last.bias.sub_(log_odds.mean()).mul_(factor)


class DiscriminatorEnergy(LatentEnergy):
    """An energy that is raised where a patch looks like a synthetic defect, and lowered where it does not.

    E(z) = E'(z) · exp(g(z)), g a `Discriminator`'s log-odds: log-energies add up, as in a product of experts (Hinton
    2002). Good patches are unusual in many ways; what defects look like says which of them matter.

    Args:
        energy: E', an energy without a memory bank.
        discriminator: g. Its log-odds count up to `MAX_LOG_ODDS`.
    """

    def __init__(self, energy: LatentEnergy, discriminator: Discriminator) -> None:
        super().__init__()
        self.energy = energy
        self.discriminator = discriminator

    def forward(self, z: Float[Tensor, "*b k"]) -> Float[Tensor, "*b"]:
        """Return the energies of latents, the latent axis last."""
        return self.terms(z).total

    def terms(self, z: Float[Tensor, "*b k"]) -> EnergyTerms:
        """Return the energies, and exp(g) as their odds. See `LatentEnergy.terms`."""
        odds = self.discriminator(z).clamp(-MAX_LOG_ODDS, MAX_LOG_ODDS).exp()
        energies = self.energy(z) * odds
        return EnergyTerms(energies, energies, odds)

    def sizes(self) -> LatentEnergySizes:
        """Return the energy's sizes and the discriminator's."""
        return replace(self.energy.sizes(), discriminator_width=self.discriminator.first.out_features)
