"""Two-dimensional targets whose density is known exactly: each is a mixture of round Gaussians."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from energyad.errors import SettingsError

BOX = 4.0
"""Every target lies in [-BOX, BOX]^2, the box that energies are judged on."""


@dataclass(frozen=True)
class GaussianMixture:
    """sum_k weights[k] N(means[k], sigmas[k]^2 I) in two dimensions."""

    weights: Float[Tensor, " k"]
    means: Float[Tensor, "k 2"]
    sigmas: Float[Tensor, " k"]

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n 2"]:
        """Independent draws."""
        component = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, 2, generator=generator)
        return self.means[component] + self.sigmas[component, None] * noise

    def log_density(self, x: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
        """Exact log density."""
        variances = self.sigmas.square()
        squared = torch.cdist(x, self.means).square()
        logs = self.weights.log() - torch.log(2 * math.pi * variances) - squared / (2 * variances)
        return logs.logsumexp(dim=1)

    def nearest(self, x: Float[Tensor, "n 2"]) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
        """The component nearest to each point, and the distance in that component's sigmas."""
        distance, component = torch.cdist(x, self.means).min(dim=1)
        return component, distance / self.sigmas[component]


def eight_gaussians() -> GaussianMixture:
    """Eight equal modes on a circle of radius 4 with sigma 0.5, all divided by sqrt 2."""
    angles = torch.arange(8) * math.pi / 4
    means = 4 / math.sqrt(2) * torch.stack([angles.cos(), angles.sin()], dim=1)
    return GaussianMixture(torch.full((8,), 1 / 8), means, torch.full((8,), 0.5 / math.sqrt(2)))


def two_spirals() -> GaussianMixture:
    """Two arms of 60 narrow Gaussians each, evenly spaced along the arm."""
    # The length of r = a * angle up to an angle grows as its square, so roots are evenly spaced.
    angles = 3 * math.pi * torch.linspace(0.05, 1, 60).sqrt()
    arm = (3.2 * angles / angles[-1])[:, None] * torch.stack([angles.cos(), angles.sin()], dim=1)
    return GaussianMixture(torch.full((120,), 1 / 120), torch.cat([arm, -arm]), torch.full((120,), 0.15))


def skewed_mixture() -> GaussianMixture:
    """Four modes of unequal weight and width in no symmetric place: a wrong sign or weight must show."""
    return GaussianMixture(
        torch.tensor([0.50, 0.27, 0.15, 0.08]),
        torch.tensor([[-2.0, -1.5], [2.2, -0.6], [0.4, 2.3], [-2.4, 2.0]]),
        torch.tensor([0.60, 0.35, 0.45, 0.25]),
    )


TARGETS = {"eight_gaussians": eight_gaussians, "two_spirals": two_spirals, "skewed_mixture": skewed_mixture}


def target(name: str) -> GaussianMixture:
    """The target of that name."""
    if name not in TARGETS:
        raise SettingsError(f"target {name!r}: must be one of {sorted(TARGETS)}")
    return TARGETS[name]()
