"""A memory bank of good latents, and the energy that measures distances to it."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from energyad.energy.latent_energy import EnergyTerms, LatentEnergy, LatentEnergySizes, PaddableBank

POINTS_PER_PRODUCT = 256
"""Points that latents are multiplied with at once; of more, the products leave the processor's cache before their
minimum is found."""


@dataclass(frozen=True, eq=False)
class MemoryBank:
    """A few good latents that stand for many, as in PatchCore (Roth et al., CVPR 2022).

    Attributes:
        points: Latents p_m in the units of the features, that is whitened latents times their deviations; see
            `Whitening.deviations`.
        local_scales: r_m, the distance at which good patches usually lie from each point; see `fit_local_scales`.
    """

    points: Float[Tensor, "m k"]
    local_scales: Float[Tensor, " m"]


class MemoryBankEnergy(LatentEnergy):
    """An energy times the squared distance to the nearest point of a memory bank, in units of its local scale.

    E(z) = E'(z) · min_m ‖s ∘ z − p_m‖² / r_m². An autoencoder may reproduce what it was never shown, since it also
    learns what lies between and beyond its examples; a distance knows the examples alone. A defect that one of the two
    misses the other one often sees. The local scales let one model hold parts that vary and parts that hardly do.

    With a = s ∘ z, ‖a − p‖² / r² = (‖a‖² − 2 a·p + ‖p‖²) / r² is linear in z and ‖a‖², so all distances are one matrix
    product. In a·p only the leading directions are counted: the others hold little of what points differ in, but a
    defect may be long in them, and ‖a‖² has all of it.

    Args:
        learned: E', any energy of latents.
        bank: The points p_m and their local scales r_m.
        deviations: s, a factor for each latent that brings it to the units of the points.
        num_directions: Leading latents that are counted in a·p.
    """

    metric: Float[Tensor, "k 2"]
    unit: Float[Tensor, "2"]
    weight: Float[Tensor, "d+2 m"]

    def __init__(
        self,
        learned: LatentEnergy,
        bank: MemoryBank,
        *,
        deviations: Float[Tensor, " k"],
        num_directions: int,
    ) -> None:
        super().__init__()
        self.learned = learned
        inverse = bank.local_scales.square().reciprocal()[:, None]
        products = -2 * bank.points[:, :num_directions] * deviations[:num_directions]
        squares = bank.points.square().sum(dim=1, keepdim=True)
        weight = torch.cat([products, torch.ones_like(squares), squares], dim=1) * inverse
        metric = deviations.square()
        self.register_buffer("weight", weight.T.contiguous())
        # z² ↦ (‖a‖², 1), which the products' last two rows are for
        self.register_buffer("metric", torch.stack([metric, torch.zeros_like(metric)], dim=1))
        self.register_buffer("unit", torch.tensor([0.0, 1.0]))

    def forward(self, z: Float[Tensor, "*b k"]) -> Float[Tensor, "*b"]:
        """Return the energies of latents, the latent axis last."""
        return self.terms(z).total

    def terms(self, z: Float[Tensor, "*b k"]) -> EnergyTerms:
        """Return the energies E, and E' of them. See `LatentEnergy.terms`."""
        _, learned, odds = self.learned.terms(z)
        return EnergyTerms(learned * self.squared_distance(z), learned, odds)

    def squared_distance(self, z: Float[Tensor, "*b k"]) -> Float[Tensor, "*b"]:
        """Return the squared distance to the nearest point, in units of its squared local scale."""
        leading = z[..., : self.weight.shape[-2] - 2]
        inputs = torch.cat([leading, z.square() @ self.metric + self.unit], dim=-1)
        nearest = [(inputs @ part).amin(dim=-1) for part in self.weight.split(POINTS_PER_PRODUCT, dim=-1)]
        return functools.reduce(torch.minimum, nearest).clamp_min(0)  # rounding may leave it below

    def scale_distances(self, factor: float) -> None:
        """Multiply all squared distances, as if every local scale had changed alike."""
        self.weight.mul_(factor)

    def memory_banks(self) -> list[PaddableBank]:
        """Return the only one: itself."""
        return [self]

    def sizes(self) -> LatentEnergySizes:
        """Return the sizes of E' and of the memory bank."""
        num_directions = self.weight.shape[-2] - 2  # the last rows are for ‖a‖² and 1
        return replace(
            self.learned.sizes(), memory_bank_size=self.size, memory_bank_directions=num_directions
        )

    @property
    def size(self) -> int:
        """Number of points."""
        return self.weight.shape[-1]

    def pad_to(self, size: int) -> None:
        """Repeat the last point until there are `size` points. No distance changes."""
        self.weight = pad_columns(self.weight, size)


def pad_columns(columns: Tensor, size: int) -> Tensor:
    """Repeat the last column until there are `size` columns."""
    return torch.cat([columns, columns[:, -1:].expand(-1, max(0, size - columns.shape[1]))], dim=1)
