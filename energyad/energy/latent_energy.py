"""What every energy of latents has in common, and the mean of several."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn


class EnergyTerms(NamedTuple):
    """Energies of latents, and parts of them.

    Attributes:
        total: The energies.
        learned: The same without their distances to a memory bank.
        odds: The factor that a discriminator of synthetic defects has in both; 1 without one.
    """

    total: Float[Tensor, "*b"]
    learned: Float[Tensor, "*b"]
    odds: Float[Tensor, "*b"]


@dataclass(frozen=True)
class LatentEnergySizes:
    """Sizes of the networks and memory banks that make up an energy of latents; 0 for what it does not have.

    Attributes:
        width: Hidden units of the autoencoder's layers.
        bottleneck: Length of its code.
        discriminator_width: Hidden units of the discriminator.
        memory_bank_size: Points of the memory bank.
        memory_bank_directions: Leading latents in which its distances are measured one by one.
        ensemble_size: Energies of these sizes whose mean is used.
        is_taught: Whether people's marks raise the energy, see `TaughtEnergy`.
    """

    width: int
    bottleneck: int
    discriminator_width: int = 0
    memory_bank_size: int = 0
    memory_bank_directions: int = 0
    ensemble_size: int = 1
    is_taught: bool = False


class PaddableBank(Protocol):
    """A set of good latents that can be brought to the size of another one."""

    @property
    def size(self) -> int:
        """Number of points."""
        ...

    def pad_to(self, size: int) -> None:
        """Repeat the last point until there are `size` points. No distance changes."""
        ...


class LatentEnergy(nn.Module):
    """Base class of the energies E(z) of latents. A high energy means abnormal.

    A subclass defines `forward`. One that measures distances to a memory bank also defines the other methods.
    """

    def terms(self, z: Float[Tensor, "*b k"]) -> EnergyTerms:
        """Return the energies of latents, and parts of them.

        Args:
            z: Latents, the latent axis last.

        Returns:
            One number a latent, of each.
        """
        energies = self(z)
        return EnergyTerms(energies, energies, torch.ones_like(energies))

    def scale_distances(self, factor: float) -> None:
        """Multiply all squared distances to memory banks. Without a memory bank nothing changes."""

    def memory_banks(self) -> list[PaddableBank]:
        """Return the memory banks that distances are measured to."""
        return []

    def sizes(self) -> LatentEnergySizes:
        """Return what an empty energy is made from. Raises NotImplementedError for one that cannot be saved."""
        raise NotImplementedError(f"{type(self).__name__}: cannot be saved")


class MeanEnergy(LatentEnergy):
    """The mean of several energies, each trained from its own seed: an ensemble.

    What is unusual to one energy by chance is seldom unusual to the others; a defect is unusual to all of them. The
    members share the backbone and the latents, so only their own time is added.

    Args:
        members: The energies. All see the same latents.
    """

    def __init__(self, members: Iterable[LatentEnergy]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, z: Float[Tensor, "*b k"]) -> Float[Tensor, "*b"]:
        """Return the energies of latents, the latent axis last."""
        return self.terms(z).total

    def terms(self, z: Float[Tensor, "*b k"]) -> EnergyTerms:
        """Return the means of the members' terms. See `LatentEnergy.terms`."""
        terms = zip(*(member.terms(z) for member in self.energies()), strict=True)
        return EnergyTerms(*(torch.stack(of_members).mean(dim=0) for of_members in terms))

    def scale_distances(self, factor: float) -> None:
        """Multiply all squared distances of all members."""
        for member in self.energies():
            member.scale_distances(factor)

    def memory_banks(self) -> list[PaddableBank]:
        """Return the memory banks of all members."""
        return [bank for member in self.energies() for bank in member.memory_banks()]

    def sizes(self) -> LatentEnergySizes:
        """Return the members' sizes, and how many they are."""
        first, *_ = self.energies()
        return replace(first.sizes(), ensemble_size=len(self.members))

    def energies(self) -> Iterable[LatentEnergy]:
        """Return the members."""
        return self.members  # type: ignore[return-value]  # a ModuleList holds what it was given
