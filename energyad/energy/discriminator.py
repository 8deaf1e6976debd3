"""What planted defects teach: a network that tells good patches from those that a defect covers."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from energyad.energy.networks import Affine

LARGEST = 1.0
"""Of log-odds: planted defects are stand-ins, so what they teach may at most triple or third an energy."""

DROPOUT = 0.3


class Discriminator(nn.Module):
    """Log-odds of a planted defect against a good part, from a patch's latent.

    Trained by logistic regression they are the logarithm of the two densities' ratio (noise-contrastive estimation,
    Gutmann & Hyvärinen 2010). DRAEM (Zavrtanik et al., ICCV 2021) learns from planted defects too, SimpleNet (Liu et
    al., CVPR 2023) from noise on the features of good patches.
    """

    def __init__(self, latent_dim: int, *, width: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.first = Affine(latent_dim, width)
        self.last = Affine(width, 1)
        for layer in (self.first, self.last):
            bound = layer.in_features**-0.5
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)

    def forward(
        self, z: Float[Tensor, "*b k"], *, dropout: torch.Generator | None = None
    ) -> Float[Tensor, "*b"]:
        """Log-odds of latents, the latent axis last. dropout: for training, what draws the hidden units left out."""
        hidden = functional.silu(self.first(z))
        if dropout is not None:
            kept = torch.empty_like(hidden).bernoulli_(1 - DROPOUT, generator=dropout)
            hidden = hidden * kept / (1 - DROPOUT)
        odds: Float[Tensor, "*b"] = self.last(hidden).squeeze(dim=-1)
        return odds

    @torch.no_grad()
    def set_unit(self, good: Float[Tensor, "n k"], *, strength: float) -> None:
        """Let the log-odds of these good latents have mean 0 and standard deviation `strength`."""
        odds = self(good)
        factor = strength / odds.std().clamp_min(1e-6)
        self.last.weight.mul_(factor)
        self.last.bias.sub_(odds.mean()).mul_(factor)


class DiscriminatorEnergy(nn.Module):
    """An energy raised where a patch looks like a planted defect's, and lowered where it does not.

    E(z) = E'(z) · exp(g(z)), g a `Discriminator`'s log-odds: log-energies add up, as in a product of experts. Good
    patches are unusual in many ways; what defects look like says which of them matter.
    """

    def __init__(self, energy: nn.Module, discriminator: Discriminator) -> None:
        super().__init__()
        self.energy = energy
        self.discriminator = discriminator

    def forward(self, z: Float[Tensor, "*b k"]) -> Float[Tensor, "*b"]:
        """Energies of latents, the latent axis last."""
        energies: Float[Tensor, "*b"] = self.energy(z)
        return energies * self.discriminator(z).clamp(-LARGEST, LARGEST).exp()
