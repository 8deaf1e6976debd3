"""The players with their optimisers, and one move of each."""

from __future__ import annotations

import copy
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from energyad.dxmi import objectives
from energyad.dxmi.costs import running_cost
from energyad.dxmi.policy import Policy
from energyad.dxmi.sampler import GaussianSampler
from energyad.dxmi.schedule import Route
from energyad.dxmi.settings import DxMISettings


class Game:
    """Energy, sampler and value function of one training; its moves change them in place.

    Attributes:
        averaged_energy: the energy at the running average of its weights.
        modules, optimizers: all that training changes, by name.
    """

    def __init__(
        self, *, energy: nn.Module, sampler: GaussianSampler, value: nn.Module, settings: DxMISettings
    ) -> None:
        self.settings, self.energy, self.sampler, self.value = settings, energy, sampler, value
        self.averaged_energy = copy.deepcopy(energy).requires_grad_(False)
        self.running_cost = running_cost(settings.running_cost, sampler.schedule).to(
            sampler.log_sigmas.device
        )
        self.policy = Policy(
            sampler=sampler,
            energy=energy,
            value=value,
            running_cost=self.running_cost,
            cost_weight=settings.running_cost_weight,
            temperature=settings.temperature,
        )
        self.modules: dict[str, nn.Module] = {
            "energy": energy,
            "averaged_energy": self.averaged_energy,
            "sampler": sampler,
            "value": value,
            "running_cost": self.running_cost,
        }
        self.optimizers = {
            "energy": adam(energy, settings.energy_lr, beta1=settings.energy_beta1),
            "sampler": adam(sampler, settings.sampler_lr),
            "value": adam(value, settings.value_lr),
        }

    def move_energy(
        self, data: Float[Tensor, "n *event"], samples: Float[Tensor, "n *event"]
    ) -> Float[Tensor, " 3"]:
        """Lower the energy of data, raise that of samples; both mean energies, and the loss."""
        on_data, on_samples = self.energy(torch.cat([data, samples])).chunk(2)
        gamma, power = self.settings.energy_regularization, self.settings.data_power
        loss = objectives.energy_loss(on_data, on_samples, regularization=gamma, data_power=power)
        minimize(self.optimizers["energy"], loss)
        return torch.stack([on_data.mean(), on_samples.mean(), loss]).detach()

    def move_policy(
        self, states: Float[Tensor, "steps n *event"], route: Route, generator: torch.Generator
    ) -> Float[Tensor, " 3"]:
        """DxDP: value and sampler from one draw of next states; both losses, and the mean running cost."""
        costs, running = self.policy.costs_to_go(states, route, generator)
        loss = objectives.sampler_loss(costs)
        # The value moves second: the sampler's gradient has to flow through the value that gave the costs.
        minimize(self.optimizers["sampler"], loss)
        by_value = self._move_value(states[1:], route[1:-1], costs[1:])
        return torch.stack([loss, by_value, running.mean()]).detach()

    def move_policy_through_time(
        self, start: Float[Tensor, "n *event"], route: Route, generator: torch.Generator
    ) -> Float[Tensor, " 3"]:
        """The sampler alone, by back-propagation through whole chains: the baseline that DxDP replaces."""
        costs, running = self.policy.through_time(start, route, generator)
        loss = objectives.sampler_loss(costs)
        minimize(self.optimizers["sampler"], loss)
        return torch.stack([loss, torch.zeros_like(loss), running.mean()]).detach()

    def set_learning_rates(self, iteration: int) -> None:
        """Cosine decay to the settings' fraction, where they ask for it."""
        if self.settings.decay_iterations is None:
            return
        done = min(1.0, iteration / self.settings.decay_iterations)
        floor = self.settings.final_lr_fraction
        fraction = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))
        for optimizer in self.optimizers.values():
            group = optimizer.param_groups[0]
            group["lr"] = group["initial_lr"] * fraction

    def _move_value(
        self, states: Float[Tensor, "steps n *event"], route: Route, costs: Float[Tensor, "steps n"]
    ) -> Float[Tensor, ""]:
        # V at time 0 would be read by nobody, and a single step needs none at all.
        if len(route) == 0:
            return torch.zeros((), device=states.device)
        loss = objectives.value_loss(self.policy.values(states, route), costs)
        minimize(self.optimizers["value"], loss)
        return loss

    def average_energy(self, iteration: int) -> None:
        """Move the averaged energy's weights towards the energy's."""
        # The young average forgets faster, or the first weights would linger in it.
        decay = min(self.settings.energy_average, (1 + iteration) / (10 + iteration))
        with torch.no_grad():
            averages, weights = self.averaged_energy.parameters(), self.energy.parameters()
            torch._foreach_lerp_(list(averages), list(weights), 1 - decay)


def adam(module: nn.Module, learning_rate: float, *, beta1: float = 0.9) -> torch.optim.Adam:
    """Adam over a module's weights that remembers its first learning rate."""
    groups = [{"params": list(module.parameters()), "initial_lr": learning_rate}]
    return torch.optim.Adam(groups, lr=learning_rate, betas=(beta1, 0.999), fused=True)


def minimize(optimizer: torch.optim.Optimizer, loss: Float[Tensor, ""]) -> None:
    """One step down a loss."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
