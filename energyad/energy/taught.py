"""What people teach: a classifier of patches that raises the energy of those like the defects that were marked."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from energyad.energy.latent_energy import EnergyTerms, LatentEnergy, LatentEnergySizes
from energyad.energy.networks import Affine


class TaughtEnergy(LatentEnergy):
    """An energy that is raised where a patch is like marked defects, and nowhere lowered.

    E(z) = E'(z) · exp(r · σ(w·z + b)), σ the logistic function: a logistic regression says how likely a patch is one of
    the marked defects, and the most that it can do is to multiply the energy by exp(r). Defects of other kinds keep
    theirs.

    Args:
        energy: E', an energy without a memory bank.
        classifier: w and b.
        raise_limit: r, in logarithms of the energy.
    """

    raise_limit: Float[Tensor, ""]

    def __init__(self, energy: LatentEnergy, classifier: Affine, *, raise_limit: float = 0.0) -> None:
        super().__init__()
        self.energy = energy
        self.classifier = classifier
        self.register_buffer("raise_limit", torch.tensor(raise_limit))

    def forward(self, z: Float[Tensor, "*b k"]) -> Float[Tensor, "*b"]:
        """Return the energies of latents, the latent axis last."""
        return self.terms(z).total

    def terms(self, z: Float[Tensor, "*b k"]) -> EnergyTerms:
        """Return the raised energies, and the odds of E'. See `LatentEnergy.terms`."""
        total, learned, odds = self.energy.terms(z)
        factor = (self.raise_limit * self.classifier(z).squeeze(dim=-1).sigmoid()).exp()
        return EnergyTerms(total * factor, learned * factor, odds)

    def sizes(self) -> LatentEnergySizes:
        """Return the energy's sizes, and that it is taught."""
        return replace(self.energy.sizes(), is_taught=True)
