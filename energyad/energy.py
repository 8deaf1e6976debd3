"""Energy networks: latents in, one energy a latent out. High energy = unlikely = abnormal."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

MAGNITUDE_FLOOR = 2.0
"""Added to a latent's mean square before dividing by it; good latents have a mean square of one."""
SQUARED_DISTANCE_FLOOR = 1e-6
"""Below it rounding is all there is, and a root's slope has no end."""


class AutoencoderEnergy(nn.Module):
    """Energy = scaled reconstruction error of a small autoencoder, relative to the latent's own magnitude.

    E(z) = scale · mean_k (z − decode(encode(z)))_k² / (mean_k z_k² + 2). An autoencoder's error grows with the size
    of what it is shown, and strong patterns of good parts are no defects; Yoon et al. (arXiv 2502.13280, sec. 5) meet
    the same by putting latents on a sphere. The quotient also bounds the energy of points far from everything. The
    bottleneck keeps the energy from being low everywhere even before any negative sample is seen.
    """

    def __init__(
        self, num_latents: int, *, width: int, bottleneck: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        sizes = [num_latents, width, width, bottleneck]
        self.encoder = _mlp(sizes)
        self.decoder = _mlp(sizes[::-1])
        self.log_scale = nn.Parameter(torch.zeros(()))
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                bound = layer.in_features**-0.5
                nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
                nn.init.uniform_(layer.bias, -bound, bound, generator=generator)

    def forward(self, z: Float[Tensor, "*b k"]) -> Float[Tensor, "*b"]:
        """Energies of latents, the latent axis last."""
        error = (z - self.reconstruct(z)).square().mean(dim=-1)
        return self.log_scale.exp() * error / (z.square().mean(dim=-1) + MAGNITUDE_FLOOR)

    def reconstruct(self, z: Float[Tensor, "*b k"]) -> Float[Tensor, "*b k"]:
        """The autoencoder's output."""
        return self.decoder(self.encoder(z))


@dataclass(frozen=True)
class Prototypes:
    """Good latents to measure distances from. stretch: s, a factor for each latent. points: p_m, latents times s."""

    stretch: Float[Tensor, " k"]
    points: Float[Tensor, "m k"]


class PrototypeEnergy(nn.Module):
    """An energy times the distance to the nearest of a few good latents.

    E(z) = E'(z) · min_m ‖s ∘ z − p_m‖. What an autoencoder was not shown it may still reproduce, since it also learns
    what lies between and beyond its examples; a distance knows the examples alone, but not how they vary. A defect
    that one of the two misses the other one often sees.

    energy: E', any module of latents. What is kept of the prototypes is what ‖a − p‖² = ‖a‖² − 2 a·p + ‖p‖² asks for.
    """

    stretch: Float[Tensor, " k"]
    weight: Float[Tensor, "k m"]
    squares: Float[Tensor, " m"]

    def __init__(self, energy: nn.Module, prototypes: Prototypes) -> None:
        super().__init__()
        self.energy = energy
        self.register_buffer("stretch", prototypes.stretch)
        self.register_buffer("weight", -2 * prototypes.points.T.contiguous())
        self.register_buffer("squares", prototypes.points.square().sum(dim=1))

    def forward(self, z: Float[Tensor, "*b k"]) -> Float[Tensor, "*b"]:
        """Energies of latents, the latent axis last."""
        energies: Float[Tensor, "*b"] = self.energy(z)
        return energies * self.distance(z)

    def distance(self, z: Float[Tensor, "*b k"]) -> Float[Tensor, "*b"]:
        """Distance to the nearest prototype."""
        stretched = z * self.stretch
        nearest = (stretched @ self.weight + self.squares).amin(dim=-1)
        return (stretched.square().sum(dim=-1) + nearest).clamp_min(SQUARED_DISTANCE_FLOOR).sqrt()


def _mlp(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), nn.SiLU()]
    return nn.Sequential(*layers[:-1])
