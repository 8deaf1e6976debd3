"""The sampler's side of the game: what its next steps will cost, differentiable in the sampler alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from energyad.dxmi.costs import AdaptiveCost, PathCost
from energyad.dxmi.objectives import cost_to_go
from energyad.dxmi.sampler import GaussianSampler
from energyad.dxmi.schedule import Route


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Let gradients pass through modules to their inputs without computing those of their weights."""
    weights = [weight for module in modules for weight in module.parameters() if weight.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A sampler facing an energy, a value function and a running cost."""

    sampler: GaussianSampler
    energy: nn.Module
    value: nn.Module
    running_cost: PathCost | AdaptiveCost
    cost_weight: float
    temperature: float

    def values(self, states: Float[Tensor, "steps n *event"], route: Route) -> Float[Tensor, "steps n"]:
        """V of states[k] at time route[k]."""
        T = self.sampler.schedule.num_steps
        times = torch.tensor(route, device=states.device, dtype=states.dtype) / T
        rows = times.repeat_interleave(states.shape[1]).unsqueeze(1)
        return self.value(states.flatten(0, 1), rows).unflatten(0, states.shape[:2])

    def costs_to_go(
        self, states: Float[Tensor, "steps n *event"], route: Route, generator: torch.Generator
    ) -> tuple[Float[Tensor, "steps n"], Float[Tensor, "steps n"]]:
        """Costs to go of freshly drawn next states, and their running costs; E and V get no gradient."""
        x_next = self.sampler.step(states, route, generator)
        cost = self.running_cost(states, x_next, route)
        with frozen(self.energy, self.value):
            following = self.energy(x_next[-1]).unsqueeze(0)
            if len(route) > 2:
                following = torch.cat([self.values(x_next[:-1], route[1:-1]), following])
        log_sigmas = self.sampler.route_log_sigmas(route)
        return cost_to_go(following, self.cost_weight * cost, log_sigmas, temperature=self.temperature), cost

    def through_time(
        self, start: Float[Tensor, "n *event"], route: Route, generator: torch.Generator
    ) -> tuple[Float[Tensor, "1 n"], Float[Tensor, "steps n"]]:
        """The whole chain's cost, differentiable through all its steps, and its running costs."""
        chains = self.sampler.rollout(start, generator=generator, route=route)
        cost = self.running_cost(chains.states[:-1], chains.states[1:], route)
        with frozen(self.energy):
            final = self.energy(chains.samples).unsqueeze(0)
        # Summed over steps, since here one term holds the whole path.
        steps = self.cost_weight * cost.sum(dim=0, keepdim=True)
        log_sigma = self.sampler.route_log_sigmas(route).sum().unsqueeze(0)
        return cost_to_go(final, steps, log_sigma, temperature=self.temperature), cost
