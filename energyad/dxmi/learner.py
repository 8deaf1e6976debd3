"""Energy, sampler and value function with their optimisers, and one update of each."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from energyad.dxmi import objectives
from energyad.dxmi.cost_to_go import CostToGo
from energyad.dxmi.costs import running_cost
from energyad.dxmi.sampler import GaussianSampler
from energyad.dxmi.schedule import Route, TimePairs
from energyad.dxmi.settings import DxMISettings


class Learner:
    """The networks of one training; its updates change them in place.

    Attributes:
        averaged_energy, averaged_sampler: At the running averages of their weights.
        modules, optimizers: All that training changes, by name.
    """

    def __init__(
        self, *, energy: nn.Module, sampler: GaussianSampler, value: nn.Module, settings: DxMISettings
    ) -> None:
        self.settings, self.energy, self.sampler, self.value = settings, energy, sampler, value
        if settings.last_sigma is not None:
            sampler.fix_last_sigma(settings.last_sigma)
        self.averaged_energy = copy.deepcopy(energy).requires_grad_(False)
        self.averaged_sampler = copy.deepcopy(sampler).requires_grad_(False)
        self.running_cost = running_cost(settings.running_cost, sampler.schedule).to(
            sampler.log_sigmas.device
        )
        self.cost_to_go = CostToGo(
            sampler=sampler,
            energy=energy,
            value=value,
            running_cost=self.running_cost,
            cost_weight=settings.running_cost_weight,
            temperature=settings.temperature,
            value_sees_steps=settings.trained_steps is not None,
        )
        self.modules: dict[str, nn.Module] = {
            "energy": energy,
            "averaged_energy": self.averaged_energy,
            "sampler": sampler,
            "averaged_sampler": self.averaged_sampler,
            "value": value,
            "running_cost": self.running_cost,
        }
        self.optimizers = {
            "energy": adam(energy.parameters(), settings.energy_lr, beta1=settings.energy_beta1),
            "sampler": adam(sampler.parameters(), settings.sampler_lr),
            "value": adam(value.parameters(), settings.value_lr),
        }
        if settings.sigma_lr is not None:
            self.optimizers["sampler"] = adam(sampler.network.parameters(), settings.sampler_lr)
            self.optimizers["sigmas"] = adam([sampler.log_sigmas], settings.sigma_lr)

    def update_energy(
        self, data: Float[Tensor, "n *event"], samples: Float[Tensor, "n *event"]
    ) -> Float[Tensor, " 3"]:
        """Lower the energy of data, raise that of samples; both mean energies, and the loss."""
        on_data, on_samples = self.energy(torch.cat([data, samples])).chunk(2)
        gamma, power = self.settings.energy_regularization, self.settings.data_power
        loss = objectives.energy_loss(on_data, on_samples, regularization=gamma, data_power=power)
        minimize(self.optimizers["energy"], loss)
        return torch.stack([on_data.mean(), on_samples.mean(), loss]).detach()

    def update_sampler_and_value(
        self,
        states: Float[Tensor, "steps n *event"],
        pairs: TimePairs,
        generator: torch.Generator,
        *,
        num_steps: int | None = None,
        freeze_sampler: bool = False,
    ) -> Float[Tensor, " 3"]:
        """DxDP: update value and sampler from one draw of next states.

        Args:
            states: x_t of chains; states[k] is at pairs.starts[k].
            pairs: Times at which the steps start and end.
            generator: Source of the noise.
            num_steps: Of the whole chains; None for T.
            freeze_sampler: Whether the value alone is updated.

        Returns:
            Losses of sampler and value, and the mean running cost.
        """
        gradient_taught = self.settings.value_gradient_weight > 0
        states = states.detach().requires_grad_(gradient_taught)
        costs, running = self.cost_to_go.one_step(states, pairs, generator, num_steps=num_steps)
        loss = objectives.sampler_loss(costs)
        # The value is updated second: the sampler's gradient has to flow through the value that gave the costs.
        if not freeze_sampler:
            # The same backward pass leaves the pathwise gradient of the cost to go in `states.grad`.
            self._update_sampler(loss)
        elif gradient_taught:
            (states.grad,) = torch.autograd.grad(loss, states)
        gradients = None if states.grad is None else states.grad * costs.numel()
        of_value = self._update_value(states, pairs.starts, costs, gradients, num_steps)
        return torch.stack([loss, of_value, running.mean()]).detach()

    def update_sampler_through_time(
        self, start: Float[Tensor, "n *event"], route: Route, generator: torch.Generator
    ) -> Float[Tensor, " 3"]:
        """Update the sampler alone, by back-propagation through whole chains: the baseline that DxDP replaces."""
        costs, running = self.cost_to_go.through_time(start, route, generator)
        loss = objectives.sampler_loss(costs)
        self._update_sampler(loss)
        return torch.stack([loss, torch.zeros_like(loss), running.mean()]).detach()

    def set_learning_rates(self, iteration: int) -> None:
        """Set the cosine decay to the settings' fraction, where they ask for it."""
        if self.settings.decay_iterations is None:
            return
        done = min(1.0, iteration / self.settings.decay_iterations)
        floor = self.settings.final_lr_fraction
        fraction = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))
        for optimizer in self.optimizers.values():
            group = optimizer.param_groups[0]
            group["lr"] = group["initial_lr"] * fraction

    def update_averages(self, iteration: int) -> None:
        """Move the averaged energy's and sampler's weights towards those of today."""
        move_average(self.averaged_energy, self.energy, self.settings.energy_average, iteration)
        move_average(self.averaged_sampler, self.sampler, self.settings.sampler_average, iteration)

    def _update_sampler(self, loss: Float[Tensor, ""]) -> None:
        optimizers = [self.optimizers[name] for name in ("sampler", "sigmas") if name in self.optimizers]
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.settings.sampler_gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.sampler.parameters(), self.settings.sampler_gradient_clip)
        for optimizer in optimizers:
            optimizer.step()

    def _update_value(
        self,
        states: Float[Tensor, "steps n *event"],
        times: Float[Tensor, " steps"],
        costs: Float[Tensor, "steps n"],
        gradients: Float[Tensor, "steps n *event"] | None,
        num_steps: int | None,
    ) -> Float[Tensor, ""]:
        # V at time 0 would be read by nobody, and a single step needs none at all.
        first = int(times[0] == 0)
        if len(states) == first:
            return torch.zeros((), device=states.device)
        states = states[first:].detach().requires_grad_(gradients is not None)
        values = self.cost_to_go.values(states, times[first:], num_steps)
        loss = objectives.value_loss(values, costs[first:])
        if gradients is not None:
            (slopes,) = torch.autograd.grad(values.sum(), states, create_graph=True)
            weight = self.settings.value_gradient_weight
            loss = loss + weight * objectives.value_gradient_loss(slopes, gradients[first:])
        minimize(self.optimizers["value"], loss)
        return loss


def adam(parameters: Iterable[Tensor], learning_rate: float, *, beta1: float = 0.9) -> torch.optim.Adam:
    """Adam that remembers its first learning rate."""
    groups = [{"params": list(parameters), "initial_lr": learning_rate}]
    return torch.optim.Adam(groups, lr=learning_rate, betas=(beta1, 0.999), fused=True)


def minimize(optimizer: torch.optim.Optimizer, loss: Float[Tensor, ""]) -> None:
    """Take one step down a loss."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


@torch.no_grad()
def move_average(average: nn.Module, module: nn.Module, decay: float, iteration: int) -> None:
    """Move an average's weights towards a module's; a young average forgets faster, so first weights do not linger."""
    decay = min(decay, (1 + iteration) / (10 + iteration))
    torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), 1 - decay)
