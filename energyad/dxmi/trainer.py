"""The loop: it owns the networks, the randomness, the records and the checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from energyad.dxmi.learner import Learner
from energyad.dxmi.networks import default_value
from energyad.dxmi.pretrain import pretrain_denoiser
from energyad.dxmi.record import TrainingRecord, at_bound, check_health
from energyad.dxmi.sampler import GaussianSampler, Trajectory, default_sampler
from energyad.dxmi.schedule import NoiseSchedule, Route, TimePairs, time_pairs
from energyad.dxmi.settings import DxMISettings
from energyad.dxmi.state import TrainingState, read_checkpoint, write_checkpoint
from energyad.errors import DataError, TrainingDiverged

ROWS_AT_ONCE = 65536  # rows; what looks at all data at once would double them


class DxMITrainer:
    """Maximum-entropy inverse reinforcement learning of a sampler and an energy (arXiv 2407.00626).

    Args:
        energy: the product, any module [n, *event] -> [n]; trained in place. High = abnormal.
        data: the good data, on the device where everything shall run.
        settings: options.
        generator: the source of all randomness in training, on the data's device.
        sampler: None for an MLP (events that are vectors), else a GaussianSampler with a network of your own.
        value: None for an MLP, else a module (x [n, *event], times [n, 1]) -> [n]; with `trained_steps` times are
            [n, 2], see `CostToGo`.

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
        if len(data) == 0 or not all(bool(torch.isfinite(part).all()) for part in data.split(ROWS_AT_ONCE)):
            raise DataError(f"training data of shape {tuple(data.shape)}: needs rows, all of them finite")
        self.settings, self.data, self.generator = settings, data, generator
        self.iteration, self.pretrained = 0, False
        sampler = default_sampler(data, settings, generator) if sampler is None else sampler
        value = default_value(data, settings, generator) if value is None else value
        self.learner = Learner(
            energy=energy.to(data.device),
            sampler=sampler.to(data.device),
            value=value.to(data.device),
            settings=settings,
        )
        self.energy, self.averaged_energy = self.learner.energy, self.learner.averaged_energy
        self.averaged_sampler = self.learner.averaged_sampler
        self.sampler, self.value = self.learner.sampler, self.learner.value

    @property
    def schedule(self) -> NoiseSchedule:
        """The noising process."""
        return self.sampler.schedule

    def run(self, iterations: int, *, record_every: int = 100) -> Iterator[TrainingRecord]:
        """Train on, pretraining first if the settings ask for it; a record every so often and at the end.

        Raises:
            TrainingDiverged: at the record that shows it, everything put back to the last record's state.
        """
        if not self.pretrained and self.settings.pretrain_iterations > 0:
            self.pretrain()
        good, means = self.state(), []
        for done in range(1, iterations + 1):
            means.append(self.update())
            if done % record_every == 0 or done == iterations:
                record = self._record(torch.stack(means))
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
        loss = pretrain_denoiser(
            self.sampler,
            self.data,
            iterations=self.settings.pretrain_iterations,
            batch_size=self.settings.batch_size,
            learning_rate=self.settings.pretrain_lr,
            generator=self.generator,
            any_steps=self.settings.trained_steps is not None,
        )
        self.averaged_sampler.load_state_dict(self.sampler.state_dict())
        return loss

    def update(self) -> Float[Tensor, " 6"]:
        """One iteration; means of energy on data and samples, the three losses, and the running cost."""
        settings, learner = self.settings, self.learner
        learner.set_learning_rates(self.iteration)
        route = self._draw_route()
        with torch.no_grad():
            start = self.start(settings.batch_size, generator=self.generator)
            chains = self.sampler.rollout(start, generator=self.generator, route=route)
            learner.running_cost.observe(chains.states, route)
        data = self.draw_data(settings.batch_size, generator=self.generator)
        of_energy = learner.update_energy(data, chains.samples)
        for _ in range(settings.sampler_steps_per_iteration):
            of_sampler = self.update_sampler_and_value(chains)
        learner.update_averages(self.iteration)
        self.iteration += 1
        return torch.cat([of_energy, of_sampler])

    def start(self, n: int, *, generator: torch.Generator) -> Float[Tensor, "n *event"]:
        """x_0 of so many chains."""
        if self.settings.start == "noised_data":
            return self.schedule.noise(self.draw_data(n, generator=generator), 0, generator)
        shape = (n, *self.data.shape[1:])
        return torch.randn(shape, generator=generator, device=self.data.device, dtype=self.data.dtype)

    @torch.no_grad()
    def trajectory(
        self, n: int, *, generator: torch.Generator, steps: int | None = None, averaged: bool = False
    ) -> Trajectory:
        """Draw chains of today's sampler or, if `averaged`, of the running average of its weights.

        Args:
            n: Number of chains.
            generator: Source of the randomness.
            steps: Number of steps, evenly spaced; None for all T. Fewer need `trained_steps`.
            averaged: Whether the sampler of the averaged weights is used.
        """
        route = self.schedule.route(self.schedule.num_steps if steps is None else steps)
        sampler = self.averaged_sampler if averaged else self.sampler
        return sampler.rollout(self.start(n, generator=generator), generator=generator, route=route)

    def sample(
        self, n: int, *, generator: torch.Generator, steps: int | None = None, averaged: bool = False
    ) -> Float[Tensor, "n *event"]:
        """Draw final samples; see `trajectory`."""
        return self.trajectory(n, generator=generator, steps=steps, averaged=averaged).samples

    def state(self) -> TrainingState:
        """A copy of everything that training changes."""
        counters = {"iteration": self.iteration, "pretrained": int(self.pretrained)}
        return TrainingState.of(counters, self.learner.modules, self.learner.optimizers, self.generator)

    def load_state(self, state: TrainingState) -> None:
        """Go back, or on, to a state."""
        state.restore(self.learner.modules, self.learner.optimizers, self.generator)
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

    def update_sampler_and_value(self, chains: Trajectory) -> Float[Tensor, " 3"]:
        """Update sampler and value on some of these chains, as the settings say.

        Returns:
            Losses of sampler and value, and the mean running cost.
        """
        settings, learner = self.settings, self.learner
        freeze = self.iteration < settings.frozen_sampler_iterations
        states = self._pick_chains(chains.states[:-1])
        if settings.sampler_update == "through_time":
            if freeze:
                return torch.zeros(3, device=states.device)
            return learner.update_sampler_through_time(states[0], chains.route, self.generator)
        states, pairs = self._pick_steps(states, time_pairs(chains.route, states.device))
        num_steps = len(chains.route) - 1
        # Before the sampler's: what it follows should be of the sampler as it is.
        for _ in range(settings.value_updates_per_sampler_update - 1):
            learner.update_sampler_and_value(
                states, pairs, self.generator, num_steps=num_steps, freeze_sampler=True
            )
        return learner.update_sampler_and_value(
            states, pairs, self.generator, num_steps=num_steps, freeze_sampler=freeze
        )

    def _pick_steps(
        self, states: Float[Tensor, "steps n *event"], pairs: TimePairs
    ) -> tuple[Float[Tensor, "some n *event"], TimePairs]:
        limit = self.settings.steps_per_update
        if limit is None or limit >= len(states):
            return states, pairs
        drawn = torch.randperm(len(states), generator=self.generator, device=states.device)[:limit]
        steps = drawn.sort().values
        return states[steps], pairs.some(steps)

    def _pick_chains(self, states: Float[Tensor, "steps n *event"]) -> Float[Tensor, "steps m *event"]:
        limit, n = self.settings.chains_per_update, states.shape[1]
        if limit is None or limit >= n:
            return states
        return states[:, torch.randperm(n, generator=self.generator, device=states.device)[:limit]]

    def draw_data(self, n: int, *, generator: torch.Generator) -> Float[Tensor, "n *event"]:
        """Draw so many of the data, with replacement."""
        return self.data[torch.randint(len(self.data), (n,), generator=generator, device=self.data.device)]

    def _draw_route(self) -> Route:
        choices = self.settings.trained_steps
        if choices is None:
            return self.schedule.route(self.schedule.num_steps)
        chances = 1 / torch.tensor(choices, device=self.data.device)
        return self.schedule.route(choices[int(torch.multinomial(chances, 1, generator=self.generator))])

    def _record(self, iterations: Float[Tensor, "n 6"]) -> TrainingRecord:
        data, samples, energy, sampler, value, cost = iterations.mean(dim=0).tolist()
        full = self.schedule.route(self.schedule.num_steps)
        return TrainingRecord(
            iteration=self.iteration,
            energy_data=data,
            energy_samples=samples,
            energy_loss=energy,
            sampler_loss=sampler,
            value_loss=value,
            running_cost=cost,
            bound_share=float(at_bound(iterations[:, 1], self.settings).mean()),
            sigmas=tuple(self.sampler.step_log_sigmas(time_pairs(full, self.data.device)).exp().tolist()),
        )
