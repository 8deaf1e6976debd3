"""What the sampler's next steps will cost, differentiable in the sampler alone (arXiv 2407.00626, section 4)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from energyad.dxmi.costs import AdaptiveCost, PathCost
from energyad.dxmi.objectives import cost_to_go
from energyad.dxmi.sampler import GaussianSampler
from energyad.dxmi.schedule import Route, TimePairs, time_pairs


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
class CostToGo:
    """Cost to go of a sampler that faces an energy, a value function and a running cost.

    Attributes:
        sampler: The policy, whose steps cost.
        energy: Cost of the last state, [n, *event] -> [n].
        value: Expected cost to go of an earlier state, ([n, *event], [n, 1] times) -> [n].
        value_sees_steps: Whether the value is given times [n, 2] = (t, number of steps of the chain) / T instead.
        running_cost: Cost of a step.
        cost_weight: Factor on the running cost beside the entropy.
        temperature: tau, factor on running cost and entropy.
    """

    sampler: GaussianSampler
    energy: nn.Module
    value: nn.Module
    running_cost: PathCost | AdaptiveCost
    cost_weight: float
    temperature: float
    value_sees_steps: bool = False

    def of(self, sampler: GaussianSampler) -> CostToGo:
        """The same costs for another sampler."""
        return replace(self, sampler=sampler)

    def values(
        self,
        states: Float[Tensor, "steps n *event"],
        times: Float[Tensor, " steps"],
        num_steps: int | None = None,
    ) -> Float[Tensor, "steps n"]:
        """V of states[k] at times[k], whole numbers from 1 to T - 1, of chains of so many steps (T by default)."""
        T = self.sampler.schedule.num_steps
        rows = (times.to(states.dtype) / T).repeat_interleave(states.shape[1]).unsqueeze(1)
        if self.value_sees_steps:
            rows = torch.cat(
                [rows, torch.full_like(rows, 1.0 if num_steps is None else num_steps / T)], dim=1
            )
        return self.value(states.flatten(0, 1), rows).unflatten(0, states.shape[:2])

    def one_step(
        self,
        states: Float[Tensor, "steps n *event"],
        pairs: TimePairs,
        generator: torch.Generator,
        *,
        num_steps: int | None = None,
    ) -> tuple[Float[Tensor, "steps n"], Float[Tensor, "steps n"]]:
        """Draw next states and sum what they cost: the right-hand side of the Bellman equation.

        Energy and value get no gradient of their weights; the sampler, and `states` where they ask for it, do.

        Args:
            states: x_t; states[k] is at pairs.starts[k].
            pairs: Times at which the steps start and end, rising; only the last may end at T.
            generator: Source of the noise.
            num_steps: Of the whole chains; None for T.

        Returns:
            Costs to go, and the running costs in them, both per dimension.
        """
        x_next = self.sampler.step(states, pairs, generator)
        cost = self.running_cost(states, x_next, pairs)
        reaches_data = int(pairs.ends[-1]) == self.sampler.schedule.num_steps
        earlier = len(x_next) - reaches_data
        following = []
        with frozen(self.energy, self.value):
            if earlier > 0:
                following.append(self.values(x_next[:earlier], pairs.ends[:earlier], num_steps))
            if reaches_data:
                following.append(self.energy(x_next[-1]).unsqueeze(0))
        log_sigmas = self.sampler.step_log_sigmas(pairs)
        costs = cost_to_go(
            torch.cat(following), self.cost_weight * cost, log_sigmas, temperature=self.temperature
        )
        return costs, cost

    def through_time(
        self, start: Float[Tensor, "n *event"], route: Route, generator: torch.Generator
    ) -> tuple[Float[Tensor, "1 n"], Float[Tensor, "steps n"]]:
        """Whole chains' costs, differentiable through all their steps, and their running costs."""
        chains = self.sampler.rollout(start, generator=generator, route=route)
        pairs = time_pairs(route, start.device)
        cost = self.running_cost(chains.states[:-1], chains.states[1:], pairs)
        with frozen(self.energy):
            final = self.energy(chains.samples).unsqueeze(0)
        # Summed over steps, since here one term holds the whole path.
        steps = self.cost_weight * cost.sum(dim=0, keepdim=True)
        log_sigma = self.sampler.step_log_sigmas(pairs).sum().unsqueeze(0)
        return cost_to_go(final, steps, log_sigma, temperature=self.temperature), cost
