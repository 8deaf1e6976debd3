"""Energies whose optimal sampler is known in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from energyad.dxmi import NoiseSchedule

CURVATURE = 0.8
UNEQUAL = (0.2, 3.2)  # smallest and largest curvature


class QuadraticEnergy(nn.Module):
    """E(x) = mean(curvatures * x^2) / 2, held fixed; exp(-E / tau) is a Gaussian of variances tau / curvatures."""

    curvatures: Float[Tensor, " d"]

    def __init__(self, curvatures: Float[Tensor, " d"]) -> None:
        super().__init__()
        self.register_buffer("curvatures", curvatures)
        # Optimisers want a weight; as an offset it changes no sample.
        self.offset = nn.Parameter(torch.zeros(()))

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Energies, per dimension."""
        return 0.5 * (self.curvatures * x.square()).mean(dim=1) + self.offset


def curvatures(dims: int, *, equal: bool) -> Float[Tensor, " d"]:
    """Curvatures of all axes: one for all, or evenly spaced in their logarithm."""
    if equal:
        return torch.full((dims,), CURVATURE)
    low, high = (math.log(value) for value in UNEQUAL)
    return torch.linspace(low, high, dims).exp()


@dataclass(frozen=True)
class Optimum:
    """The best that any sampler can do.

    Attributes:
        objective: Cost of a whole chain, per dimension.
        deviations: Standard deviations of its samples along each axis.
    """

    objective: float
    deviations: Float[Tensor, " d"]


def optimal_sampler(
    curvature: Float[Tensor, " d"], schedule: NoiseSchedule, *, temperature: float
) -> Optimum:
    """Solve the control problem of a quadratic energy with the path cost, from x_0 ~ N(0, I).

    The cost to go stays quadratic, V_t(x) = mean(a_t x^2) / 2 + constant, and the best step is linear with one sigma
    for all axes: mu = m x, m = (tau r / beta) / h and sigma^2 = tau / mean(h), where r = sqrt(1 - beta) and
    h = a_{t+1} + tau r^2 / beta. So a_t = a_{t+1} m^2 + tau (1 - r m)^2 / beta: a Riccati recursion.
    """
    tau, a, constant = temperature, curvature.double(), 0.0
    steps = []
    for t in reversed(range(schedule.num_steps)):
        beta = schedule.beta(t, t + 1)
        r = (1 - beta) ** 0.5
        h = a + tau * r * r / beta
        m, variance = tau * r / beta / h, float(tau / h.mean())
        constant += 0.5 * tau * (1 - math.log(variance))
        a = a * m.square() + tau * (1 - r * m).square() / beta
        steps.append((m, variance))
    spread = torch.ones_like(a)
    for m, variance in reversed(steps):
        spread = m.square() * spread + variance
    return Optimum(float(0.5 * a.mean()) + constant, spread.sqrt().float())
