"""The two running costs of the sampler: modules called with the states before and after every step."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from energyad.dxmi.objectives import adaptive_cost, path_cost, per_dimension
from energyad.dxmi.schedule import NoiseSchedule, Route, TimePairs, time_pairs
from energyad.dxmi.settings import RunningCost

DECAY = 0.99


class PathCost(nn.Module):
    """The exact cost: minus the log density of the noising process going back."""

    betas: Float[Tensor, "t s"]

    def __init__(self, schedule: NoiseSchedule) -> None:
        super().__init__()
        T = schedule.num_steps
        betas = [[schedule.beta(t, s) if s > t else 1.0 for s in range(T + 1)] for t in range(T)]
        self.register_buffer("betas", torch.tensor(betas), persistent=False)

    def forward(
        self, x_t: Float[Tensor, "steps n *event"], x_next: Float[Tensor, "steps n *event"], pairs: TimePairs
    ) -> Float[Tensor, "steps n"]:
        """Cost of each step, per dimension."""
        return path_cost(x_t, x_next, self.betas[pairs])

    def observe(self, states: Float[Tensor, "times n *event"], route: Route) -> None:
        """Nothing to adapt."""


class AdaptiveCost(nn.Module):
    """The paper's adaptive velocity regularisation: squared steps over their running mean (memory 0.99)."""

    squared_scales: Float[Tensor, "t s"]

    def __init__(self, schedule: NoiseSchedule) -> None:
        super().__init__()
        self.register_buffer("squared_scales", torch.zeros(schedule.num_steps, schedule.num_steps + 1))

    def forward(
        self, x_t: Float[Tensor, "steps n *event"], x_next: Float[Tensor, "steps n *event"], pairs: TimePairs
    ) -> Float[Tensor, "steps n"]:
        """Cost of each step, per dimension."""
        return adaptive_cost(x_t, x_next, self.squared_scales[pairs])

    def observe(self, states: Float[Tensor, "times n *event"], route: Route) -> None:
        """Move the scales towards the squared steps of these chains; the first chains set them."""
        squared = per_dimension((states[1:] - states[:-1]).square()).mean(dim=1)
        pairs = time_pairs(route, states.device)
        old = self.squared_scales[pairs]
        self.squared_scales[pairs] = torch.where(old == 0, squared, torch.lerp(squared, old, DECAY))


def running_cost(kind: RunningCost, schedule: NoiseSchedule) -> PathCost | AdaptiveCost:
    """The cost of that name."""
    return PathCost(schedule) if kind == "path" else AdaptiveCost(schedule)
