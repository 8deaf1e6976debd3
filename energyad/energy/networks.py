"""Energy networks: latents in, one energy a latent out. High energy = unlikely = abnormal."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from energyad.energy.coreset import Coreset

MAGNITUDE_FLOOR = 2.0
"""Added to a latent's mean square before dividing by it; good latents have a mean square of one."""

COMPARED = 256
"""MemoryBank at once: the products with more of them leave the processor's cache before their least is found."""


class AutoencoderEnergy(nn.Module):
    """Energy = scaled reconstruction error of a small autoencoder, relative to the latent's own magnitude.

    E(z) = scale · mean_k (z − decode(encode(z)))_k² / (mean_k z_k² + 2). An autoencoder's error grows with the size
    of what it is shown, and strong patterns of good parts are no defects; Yoon et al. (arXiv 2502.13280, sec. 5) meet
    the same by putting latents on a sphere. The quotient also bounds the energy of points far from everything. The
    bottleneck keeps the energy from being low everywhere even before any negative sample is seen.
    """

    def __init__(
        self, latent_dim: int, *, width: int, bottleneck: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        sizes = [latent_dim, width, bottleneck]
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
class MemoryBank:
    """Good latents to measure distances from.

    stretch: s, a factor for each latent. coreset: of latents times s, with points p_m and radii r_m. num_directions:
    leading latents in which distances are told one by one, see `MemoryBankEnergy`.
    """

    stretch: Float[Tensor, " k"]
    coreset: Coreset
    num_directions: int


class MemoryBankEnergy(nn.Module):
    """An energy times the squared distance to the nearest of a few good latents, in units of what is usual there.

    E(z) = E'(z) · min_m ‖s ∘ z − p_m‖² / r_m². What an autoencoder was not shown it may still reproduce, since it also
    learns what lies between and beyond its examples; a distance knows the examples alone. A defect that one of the
    two misses the other one often sees. The radii let one model hold parts that vary and parts that hardly do.

    energy: E', any module of latents. With a = s ∘ z, ‖a − p‖² / r² = (‖a‖² − 2 a·p + ‖p‖²) / r² is linear in z and
    ‖a‖². In a·p only the leading directions are counted: the others hold little of what prototypes differ in, but a
    defect may be long in them, and ‖a‖² has all of it.
    """

    metric: Float[Tensor, "k 2"]
    unit: Float[Tensor, "2"]
    weight: Float[Tensor, "d+2 m"]

    def __init__(self, energy: nn.Module, prototypes: MemoryBank) -> None:
        super().__init__()
        self.energy = energy
        d, (points, radii) = prototypes.num_directions, prototypes.coreset
        inverse = radii.square().reciprocal()[:, None]
        products = -2 * points[:, :d] * prototypes.stretch[:d]
        squares = points.square().sum(dim=1, keepdim=True)
        weight = torch.cat([products, torch.ones_like(squares), squares], dim=1) * inverse
        metric = prototypes.stretch.square()
        self.register_buffer("weight", weight.T.contiguous())
        # z² ↦ (‖a‖², 1), which the products' last two rows are for
        self.register_buffer("metric", torch.stack([metric, torch.zeros_like(metric)], dim=1))
        self.register_buffer("unit", torch.tensor([0.0, 1.0]))

    def forward(self, z: Float[Tensor, "*b k"]) -> Float[Tensor, "*b"]:
        """Energies of latents, the latent axis last."""
        return energy_factors(self, z)[0]

    @property
    def size(self) -> int:
        """MemoryBank."""
        return self.weight.shape[-1]

    def repeat_last(self, size: int) -> None:
        """Repeat the last prototype until there are so many; no distance changes."""
        self.weight = pad_columns(self.weight, size)

    def scale_distances(self, factor: float) -> None:
        """Multiply all squared distances, as if every radius had changed alike."""
        self.weight.mul_(factor)

    def squared_distance(self, z: Float[Tensor, "*b k"]) -> Float[Tensor, "*b"]:
        """Squared distance to the nearest prototype, in units of its squared radius."""
        leading = z[..., : self.weight.shape[-2] - 2]
        terms = torch.cat([leading, z.square() @ self.metric + self.unit], dim=-1)
        least = [(terms @ part).amin(dim=-1) for part in self.weight.split(COMPARED, dim=-1)]
        return functools.reduce(torch.minimum, least).clamp_min(0)  # rounding may leave it below


class MeanEnergy(nn.Module):
    """The mean of several energies, each trained from a seed of its own.

    What one of them happens to find unusual the others seldom do, and a defect all of them. The cost is theirs alone:
    they share the backbone and the latents.
    """

    def __init__(self, energies: Iterable[nn.Module]) -> None:
        super().__init__()
        self.energies = nn.ModuleList(energies)

    def forward(self, z: Float[Tensor, "*b k"]) -> Float[Tensor, "*b"]:
        """Energies of latents, the latent axis last."""
        return energy_factors(self, z)[0]


def energy_factors(
    energy: nn.Module, z: Float[Tensor, "*b k"]
) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b"]]:
    """The energies of latents, and what they are without their distances to prototypes."""
    if isinstance(energy, MeanEnergy):
        pairs = [energy_factors(each, z) for each in energy.energies]
        whole, learned = (torch.stack(each).mean(dim=0) for each in zip(*pairs, strict=True))
        return whole, learned
    if isinstance(energy, MemoryBankEnergy):
        learned = energy.energy(z)
        return learned * energy.squared_distance(z), learned
    whole = energy(z)
    return whole, whole


class Affine(nn.Linear):
    """A linear layer that also takes weights of each image, [b out in] and [b 1 out], as `CategoryMixture` gives it."""

    def forward(self, z: Float[Tensor, "*b n"]) -> Float[Tensor, "*b m"]:
        """The layer's output, the channel last."""
        if self.weight.ndim == 2:
            return super().forward(z)
        return z @ self.weight.mT + self.bias


def pad_columns(columns: Tensor, size: int) -> Tensor:
    """With the last column repeated until there are so many."""
    return torch.cat([columns, columns[:, -1:].expand(-1, max(0, size - columns.shape[1]))], dim=1)


def _mlp(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [Affine(n_in, n_out), nn.SiLU()]
    return nn.Sequential(*layers[:-1])
