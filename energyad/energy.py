"""Energy networks: latents in, one energy a latent out. High energy = unlikely = abnormal."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

MAGNITUDE_FLOOR = 2.0
"""Added to a latent's mean square before dividing by it; good latents have a mean square of one."""


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
        sizes = [num_latents, width, bottleneck]
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
    """Good patches to measure distances from, as one stage of the backbone sees them.

    basis: B, from latents to that stage's features, in axes of which the first vary most. points: p_m, patches in
    these axes. radii: r_m, how far from its prototype a good patch usually lies. num_directions: leading axes in
    which distances are told one by one, see `PrototypeEnergy`.
    """

    basis: Float[Tensor, "k c"]
    points: Float[Tensor, "m c"]
    radii: Float[Tensor, " m"]
    num_directions: int


class PrototypeEnergy(nn.Module):
    """An energy times the squared distance to the nearest of a few good patches, in units of what is usual there.

    E(z) = E'(z) · mean_s min_m ‖z B_s − p_sm‖² / r_sm², s some of the backbone's stages. What an autoencoder was not
    shown it may still reproduce, since it also learns what lies between and beyond its examples; a distance knows the
    examples alone. A defect that one of the two misses the other one often sees. Each stage has its own nearest
    prototype: a good patch may look like one example closely and like another from afar. The radii let one model hold
    parts that vary and parts that hardly do.

    energy: E', any module of latents. With a = z B, ‖a − p‖² / r² = (‖a‖² − 2 a·p + ‖p‖²) / r² is linear in a and
    ‖a‖². In a·p only the leading axes are counted: the others hold little of what prototypes differ in, but a defect
    may be long in them, and ‖a‖² has all of it.
    """

    basis: Float[Tensor, "k c"]
    metric: Float[Tensor, "c 2*s"]
    unit: Float[Tensor, "2*s"]

    def __init__(self, energy: nn.Module, stages: Sequence[Prototypes]) -> None:
        super().__init__()
        self.energy = energy
        channels = [stage.points.shape[1] for stage in stages]
        self.starts = [sum(channels[:place]) for place in range(len(stages))]
        self.register_buffer("basis", torch.cat([stage.basis for stage in stages], dim=1))
        # a² ↦ (‖a_s‖², 1) of each stage, which the last two rows of its weight are for
        owner = torch.repeat_interleave(torch.arange(len(stages)), torch.tensor(channels))
        metric = torch.nn.functional.one_hot(owner, len(stages)).float()
        self.register_buffer("metric", torch.stack([metric, torch.zeros_like(metric)], dim=2).flatten(1))
        self.register_buffer("unit", torch.tensor([0.0, 1.0]).repeat(len(stages)))
        for place, stage in enumerate(stages):
            self.register_buffer(f"weight_{place}", _terms_to_distances(stage))

    def forward(self, z: Float[Tensor, "*b k"]) -> Float[Tensor, "*b"]:
        """Energies of latents, the latent axis last."""
        energies: Float[Tensor, "*b"] = self.energy(z)
        return energies * self.squared_distance(z)

    def squared_distance(self, z: Float[Tensor, "*b k"]) -> Float[Tensor, "*b"]:
        """Mean over the stages of the squared distance to the nearest prototype, in units of its squared radius."""
        axes = z @ self.basis
        lengths = axes.square() @ self.metric + self.unit
        nearest = []
        for place, start in enumerate(self.starts):
            weight = self.get_buffer(f"weight_{place}")
            leading = axes[..., start : start + len(weight) - 2]
            terms = torch.cat([leading, lengths[..., 2 * place : 2 * place + 2]], dim=-1)
            nearest.append((terms @ weight).amin(dim=-1).clamp_min(0))  # rounding may leave it below
        return functools.reduce(torch.add, nearest) / len(nearest)


def _terms_to_distances(stage: Prototypes) -> Float[Tensor, "d+2 m"]:
    """(leading axes, ‖a‖², 1) ↦ squared distances in units of squared radii."""
    products = -2 * stage.points[:, : stage.num_directions]
    squares = stage.points.square().sum(dim=1, keepdim=True)
    weight = torch.cat([products, torch.ones_like(squares), squares], dim=1)
    return (weight / stage.radii.square()[:, None]).T.contiguous()


def _mlp(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), nn.SiLU()]
    return nn.Sequential(*layers[:-1])
