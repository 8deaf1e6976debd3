"""The loop: it owns the players, their optimisers, the randomness and the checkpoints."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from energyad.dxmi import objectives
from energyad.dxmi.costs import running_cost
from energyad.dxmi.policy import Policy
from energyad.dxmi.pretrain import pretrain_denoiser
from energyad.dxmi.record import TrainingRecord, check_health
from energyad.dxmi.sampler import GaussianSampler, Trajectory, default_sampler
from energyad.dxmi.schedule import NoiseSchedule, Route
from energyad.dxmi.settings import DxMISettings
from energyad.dxmi.state import TrainingState, read_checkpoint, write_checkpoint
from energyad.dxmi.value import default_value
from energyad.errors import DataError, TrainingDiverged


class DxMITrainer:
    """Maximum-entropy inverse reinforcement learning of a sampler and an energy (arXiv 2407.00626).

    Args:
        energy: the product, any module [n, *event] -> [n]; trained in place. High = abnormal.
        data: the good data, on the device where everything shall run.
        settings: options.
        generator: the source of all randomness in training, on the data's device.
        sampler: None for an MLP (events that are vectors), else a GaussianSampler with a network of your own.
        value: None for an MLP, else a module (x [n, *event], times [n, 1]) -> [n].

    Attributes:
        averaged_energy: the energy at the running average of its weights: smoother, usually the better score.
        iteration: iterations done.
    """

    def __init__(
        self,
        *,
        energy: nn.Module,
        data: Float[Tensor, "n *event"],
        settings: DxMISettings,
        generator: torch.Generator,
        sampler: GaussianSampler | None = None,
        value: nn.Module | None = None,
    ) -> None:
        if len(data) == 0 or not bool(torch.isfinite(data).all()):
            raise DataError(f"training data of shape {tuple(data.shape)}: needs rows, all of them finite")
        self.settings, self.data, self.generator = settings, data, generator
        self.iteration, self.pretrained = 0, False
        self.energy = energy.to(data.device)
        self.averaged_energy = copy.deepcopy(self.energy).requires_grad_(False)
        self.sampler = default_sampler(data, settings, generator) if sampler is None else sampler
        self.value = default_value(data, settings, generator) if value is None else value
        self.sampler, self.value = self.sampler.to(data.device), self.value.to(data.device)
        self.running_cost = running_cost(settings.running_cost, self.schedule).to(data.device)
        self.policy = Policy(
            sampler=self.sampler,
            energy=self.energy,
            value=self.value,
            running_cost=self.running_cost,
            cost_weight=settings.running_cost_weight,
            temperature=settings.temperature,
        )
        self.optimizers = {
            "energy": adam(self.energy, settings.energy_lr, beta1=settings.energy_beta1),
            "sampler": adam(self.sampler, settings.sampler_lr),
            "value": adam(self.value, settings.value_lr),
        }

    @property
    def schedule(self) -> NoiseSchedule:
        """The noising process."""
        return self.sampler.schedule

    def run(self, iterations: int, *, record_every: int = 100) -> Iterator[TrainingRecord]:
        """Train on, yielding a record every so many iterations and at the end.

        Raises:
            TrainingDiverged: at the record that shows it, all players put back to the last record's state.
        """
        if not self.pretrained and self.settings.pretrain_iterations > 0:
            self.pretrain()
        good, means = self.state(), []
        for done in range(1, iterations + 1):
            means.append(self.update())
            if done % record_every == 0 or done == iterations:
                record = self._record(torch.stack(means).mean(dim=0))
                try:
                    check_health(record, self.settings)
                except TrainingDiverged:
                    self.load_state(good)
                    raise
                good, means = self.state(), []
                yield record

    def pretrain(self) -> float:
        """Fit the sampler as a DDPM for `settings.pretrain_iterations`; returns the loss reached."""
        self.pretrained = True
        return pretrain_denoiser(
            self.sampler,
            self.data,
            iterations=self.settings.pretrain_iterations,
            batch_size=self.settings.batch_size,
            learning_rate=self.settings.pretrain_lr,
            generator=self.generator,
            any_steps=self.settings.any_steps,
        )

    def update(self) -> Float[Tensor, " 6"]:
        """One iteration; means of energy on data and samples, the three losses, and the running cost."""
        self._decay_learning_rates()
        route = self._draw_route()
        with torch.no_grad():
            start = self.start(self.settings.batch_size, generator=self.generator)
            chains = self.sampler.rollout(start, generator=self.generator, route=route)
            self.running_cost.observe(chains.states, route)
        of_energy = self._update_energy(chains.samples)
        for _ in range(self.settings.sampler_steps_per_iteration):
            of_policy = self._update_policy(chains, route)
        self._average_energy()
        self.iteration += 1
        return torch.cat([of_energy, of_policy])

    def start(self, n: int, *, generator: torch.Generator) -> Float[Tensor, "n *event"]:
        """x_0 of so many chains."""
        if self.settings.start == "noised_data":
            return self.schedule.noise(self._draw_data(n, generator), 0, generator)
        shape = (n, *self.data.shape[1:])
        return torch.randn(shape, generator=generator, device=self.data.device, dtype=self.data.dtype)

    @torch.no_grad()
    def trajectory(self, n: int, *, generator: torch.Generator, steps: int | None = None) -> Trajectory:
        """Chains of today's sampler, all T steps or (with `any_steps`) fewer, evenly spaced."""
        route = self.schedule.route(self.schedule.num_steps if steps is None else steps)
        return self.sampler.rollout(self.start(n, generator=generator), generator=generator, route=route)

    def sample(
        self, n: int, *, generator: torch.Generator, steps: int | None = None
    ) -> Float[Tensor, "n *event"]:
        """Final samples of today's sampler."""
        return self.trajectory(n, generator=generator, steps=steps).samples

    def state(self) -> TrainingState:
        """A copy of everything that training changes."""
        return TrainingState.of(
            {"iteration": self.iteration, "pretrained": self.pretrained},
            self._modules(),
            self.optimizers,
            self.generator,
        )

    def load_state(self, state: TrainingState) -> None:
        """Go back, or on, to a state."""
        state.restore(self._modules(), self.optimizers, self.generator)
        self.iteration, self.pretrained = state.counters["iteration"], bool(state.counters["pretrained"])

    def save_checkpoint(self, folder: str | Path) -> None:
        """Write the state and the settings; resuming gives the very bits of an unpaused run.

        Records are means since the last record, so pause where a record was yielded.
        """
        write_checkpoint(folder, self.state(), self.settings)

    @classmethod
    def load_checkpoint(
        cls,
        folder: str | Path,
        *,
        energy: nn.Module,
        data: Float[Tensor, "n *event"],
        sampler: GaussianSampler | None = None,
        value: nn.Module | None = None,
    ) -> DxMITrainer:
        """Resume, given the same data and networks of the same shape; their weights are overwritten.

        Raises:
            ModelError: a checkpoint that is missing, torn, of another format, or of other networks.
        """
        state, settings = read_checkpoint(folder)
        trainer = cls(
            energy=energy,
            data=data,
            settings=settings,
            generator=torch.Generator(device=data.device),
            sampler=sampler,
            value=value,
        )
        trainer.load_state(state)
        return trainer

    def _modules(self) -> dict[str, nn.Module]:
        return {
            "energy": self.energy,
            "averaged_energy": self.averaged_energy,
            "sampler": self.sampler,
            "value": self.value,
            "running_cost": self.running_cost,
        }

    def _update_energy(self, samples: Float[Tensor, "n *event"]) -> Float[Tensor, " 3"]:
        data = self._draw_data(len(samples), self.generator)
        on_data, on_samples = self.energy(torch.cat([data, samples])).chunk(2)
        gamma = self.settings.energy_regularization
        loss = objectives.energy_loss(on_data, on_samples, regularization=gamma)
        descend(self.optimizers["energy"], loss)
        return torch.stack([on_data.mean(), on_samples.mean(), loss]).detach()

    def _update_policy(self, chains: Trajectory, route: Route) -> Float[Tensor, " 3"]:
        states = self._pick_chains(chains.states[:-1])
        if self.settings.sampler_update == "through_time":
            costs, running = self.policy.through_time(states[0], route, self.generator)
            by_value = torch.zeros((), device=self.data.device)
        else:
            costs, running = self.policy.costs_to_go(states, route, self.generator)
            by_value = self._update_value(states[1:], route[1:-1], costs[1:].detach())
        loss = objectives.sampler_loss(costs)
        descend(self.optimizers["sampler"], loss)
        return torch.stack([loss, by_value, running.mean()]).detach()

    def _update_value(
        self, states: Float[Tensor, "steps n *event"], route: Route, targets: Float[Tensor, "steps n"]
    ) -> Float[Tensor, ""]:
        # V at time 0 would be read by nobody, and a single step needs none at all.
        if len(route) == 0:
            return torch.zeros((), device=self.data.device)
        loss = objectives.value_loss(self.policy.values(states, route), targets)
        descend(self.optimizers["value"], loss)
        return loss.detach()

    def _pick_chains(self, states: Float[Tensor, "steps n *event"]) -> Float[Tensor, "steps m *event"]:
        limit, n = self.settings.chains_per_update, states.shape[1]
        if limit is None or limit >= n:
            return states
        return states[:, torch.randperm(n, generator=self.generator, device=states.device)[:limit]]

    def _draw_data(self, n: int, generator: torch.Generator) -> Float[Tensor, "n *event"]:
        return self.data[torch.randint(len(self.data), (n,), generator=generator, device=self.data.device)]

    def _draw_route(self) -> Route:
        T = self.schedule.num_steps
        if not self.settings.any_steps:
            return self.schedule.route(T)
        drawn = torch.randint(1, T + 1, (1,), generator=self.generator, device=self.data.device)
        return self.schedule.route(int(drawn))

    def _average_energy(self) -> None:
        # The young average forgets faster, or the first weights would linger in it.
        decay = min(self.settings.energy_average, (1 + self.iteration) / (10 + self.iteration))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.averaged_energy.parameters()), list(self.energy.parameters()), 1 - decay
            )

    def _decay_learning_rates(self) -> None:
        if self.settings.decay_iterations is None:
            return
        done = min(1.0, self.iteration / self.settings.decay_iterations)
        floor = self.settings.final_lr_fraction
        fraction = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))
        for optimizer in self.optimizers.values():
            optimizer.param_groups[0]["lr"] = optimizer.param_groups[0]["initial_lr"] * fraction

    def _record(self, means: Float[Tensor, " 6"]) -> TrainingRecord:
        data, samples, energy, sampler, value, cost = means.tolist()
        full = self.schedule.route(self.schedule.num_steps)
        return TrainingRecord(
            iteration=self.iteration,
            energy_data=data,
            energy_samples=samples,
            energy_loss=energy,
            sampler_loss=sampler,
            value_loss=value,
            running_cost=cost,
            sigmas=tuple(self.sampler.route_log_sigmas(full).exp().tolist()),
        )


def adam(module: nn.Module, learning_rate: float, *, beta1: float = 0.9) -> torch.optim.Adam:
    """Adam over a module's weights that remembers its first learning rate."""
    groups = [{"params": list(module.parameters()), "initial_lr": learning_rate}]
    return torch.optim.Adam(groups, lr=learning_rate, betas=(beta1, 0.999), fused=True)


def descend(optimizer: torch.optim.Optimizer, loss: Float[Tensor, ""]) -> None:
    """One step down a loss."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
