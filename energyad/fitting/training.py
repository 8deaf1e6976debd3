"""From latents of good parts to their energy: a warm start by reconstruction, then DxMI."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Generic, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from energyad.dxmi import DxMITrainer, TrainingHealth, TrainingRecord
from energyad.dxmi.diagnosis import measure_health
from energyad.dxmi.objectives import power_mean
from energyad.energy.discriminator import Discriminator
from energyad.energy.latent_energy import LatentEnergy
from energyad.energy.networks import AutoencoderEnergy
from energyad.progress import Progress
from energyad.settings import FitSettings

RECORD_EVERY = 50
MIN_COMPRESSION = 4
"""Latents for each number in the autoencoder's bottleneck. Of a scale with few, a wider one lets everything through."""
WARM_UP_PATIENCE, DXMI_PATIENCE = 10, 4  # in looks, one every RECORD_EVERY steps
WATCHED = 4096
COMPARED = 256  # planted patches at a time, with twice as many good ones


EnergyT = TypeVar("EnergyT", bound=nn.Module)

OnRecord = Callable[[int, LatentEnergy], None]


def no_callback(iteration: int, energy: LatentEnergy) -> None:
    """OnRecord nothing."""


@dataclass(frozen=True)
class TrainedEnergy:
    """The energy, DxMI's records on the way to it, and how healthy its training was; None without DxMI."""

    energy: LatentEnergy
    history: tuple[TrainingRecord, ...]
    health: TrainingHealth | None = None

    def history_dicts(self) -> list[dict[str, object]]:
        """Plain values, ready for JSON."""
        return [asdict(record) for record in self.history]


class EarlyStopping(Generic[EnergyT]):
    """Keeps the energy that held-out good parts like best, and says when it is time to stop.

    A few images are learned by heart in seconds; the energy of good parts never seen then rises, however low that of
    the training patches falls. With hundreds of images it falls to the end and nothing is cut short.
    """

    def __init__(self, held_out: Float[Tensor, "m k"], *, patience: int) -> None:
        self.latents = held_out[:: max(1, len(held_out) // WATCHED)]
        self.patience = patience
        self.waited = 0
        self.lowest = float("inf")
        self.best: EnergyT | None = None

    def step(self, energy: EnergyT) -> bool:
        """Measure the energy. Returns whether to go on."""
        with torch.no_grad():
            mean = float(energy(self.latents).mean())
        if mean < self.lowest:
            self.lowest, self.waited, self.best = mean, 0, copy.deepcopy(energy)
        else:
            self.waited += 1
        return self.waited < self.patience


def train_energy(
    latents: Float[Tensor, "n k"],
    held_out: Float[Tensor, "m k"],
    *,
    settings: FitSettings,
    generator: torch.Generator,
    progress: Progress,
    on_record: OnRecord = no_callback,
) -> TrainedEnergy:
    """Train an energy on latents of good patches. Raises TrainingDiverged, naming what left its bounds.

    held_out: patches of other good images; they teach nothing, and end the training where it has become memorising.
    on_record: called with DxMI's iteration and the energy of that time, first before the game.
    """
    latent_dim = latents.shape[1]
    bottleneck = min(settings.energy.bottleneck, max(1, latent_dim // MIN_COMPRESSION))
    autoencoder = AutoencoderEnergy(
        latent_dim, width=settings.energy.width, bottleneck=bottleneck, generator=generator
    )
    best = pretrain_autoencoder(
        autoencoder, latents, held_out, settings=settings, generator=generator, progress=progress
    )
    set_scale(best, latents, mean_energy=settings.energy.initial_energy)
    on_record(0, best)
    return train_dxmi(
        best,
        latents,
        held_out,
        settings=settings,
        generator=generator,
        progress=progress,
        on_record=on_record,
    )


def train_dxmi(
    energy: LatentEnergy,
    latents: Float[Tensor, "n k"],
    held_out: Float[Tensor, "m k"],
    *,
    settings: FitSettings,
    generator: torch.Generator,
    progress: Progress,
    on_record: OnRecord = no_callback,
) -> TrainedEnergy:
    """DxMI: the energy against a sampler, for `settings.dxmi.iterations`."""
    if settings.dxmi.iterations == 0:
        return TrainedEnergy(energy.eval(), ())
    progress.stage("DxMI", settings.dxmi.iterations)
    stopping = EarlyStopping[LatentEnergy](held_out, patience=DXMI_PATIENCE)
    stopping.step(energy)
    trainer = DxMITrainer(energy=energy, data=latents, settings=settings.dxmi, generator=generator)
    if settings.dxmi.pretrain_iterations > 0:
        trainer.pretrain()
    first_sampler = copy.deepcopy(trainer.sampler)
    history: list[TrainingRecord] = []
    for record in trainer.run(
        settings.dxmi.iterations, record_every=min(RECORD_EVERY, settings.dxmi.iterations)
    ):
        figures = {"E(data)": record.energy_data, "E(samples)": record.energy_samples}
        progress.advance(record.iteration - (history[-1].iteration if history else 0), figures=figures)
        history.append(record)
        averaged = cast(LatentEnergy, trainer.averaged_energy)  # a copy of the energy
        on_record(record.iteration, averaged)
        if not stopping.step(averaged):
            break
    health = measure_health(trainer, history, first_sampler=first_sampler)
    return TrainedEnergy((stopping.best or energy).eval(), tuple(history), health)


def pretrain_autoencoder(
    energy: AutoencoderEnergy,
    latents: Float[Tensor, "n k"],
    held_out: Float[Tensor, "m k"],
    *,
    settings: FitSettings,
    generator: torch.Generator,
    progress: Progress,
) -> AutoencoderEnergy:
    """Train an autoencoder by plain reconstruction, so that DxMI starts from a sensible landscape; returns its best.

    What is lowered is a power mean of the patches' errors: the maximum over an image makes its score, so a rare good
    patch that is reproduced badly costs as much as a frequent one.
    """
    steps, batch_size, power = (
        settings.energy.pretrain_steps,
        settings.energy.pretrain_batch_size,
        settings.energy.pretrain_power,
    )
    if steps == 0:
        return energy
    stopping = EarlyStopping[AutoencoderEnergy](held_out, patience=WARM_UP_PATIENCE)
    progress.stage("warm-up", steps)
    optimizer = torch.optim.Adam(energy.parameters(), lr=settings.energy.pretrain_lr, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def loss() -> Tensor:
        z = latents[torch.randint(len(latents), (batch_size,), generator=generator)]
        return power_mean((z - energy.reconstruct(z)).square().mean(dim=1), power)

    minimize(
        loss,
        optimizer,
        schedule,
        steps=steps,
        figure="reconstruction",
        progress=progress,
        keep_going=lambda: stopping.step(energy),
    )
    return stopping.best or energy


def minimize(
    loss: Callable[[], Float[Tensor, ""]],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    *,
    steps: int,
    figure: str,
    progress: Progress,
    keep_going: Callable[[], bool] = lambda: True,
) -> None:
    """Lower a loss for so many steps, or until `keep_going` says no. figure: its name."""
    for step in range(1, steps + 1):
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        if step % RECORD_EVERY == 0 or step == steps:
            progress.advance((step - 1) % RECORD_EVERY + 1, figures={figure: value.item()})
            if not keep_going():
                break


def set_scale(energy: AutoencoderEnergy, latents: Float[Tensor, "n k"], *, mean_energy: float) -> None:
    """Set the energy's scale so that its mean over (a sample of) the data is `mean_energy`.

    The regularisation γ bounds energies in absolute terms, so DxMI must start with energies of a known size.
    """
    with torch.no_grad():
        mean = energy(latents[:: max(1, len(latents) // 8192)]).mean()
        energy.log_scale.add_((mean_energy / mean.clamp_min(1e-12)).log())


def train_discriminator(
    good: Float[Tensor, "n k"],
    planted: Float[Tensor, "d k"],
    held_out: Float[Tensor, "m k"],
    *,
    settings: FitSettings,
    generator: torch.Generator,
    progress: Progress,
) -> Discriminator:
    """Train on latents of good patches and of patches that planted defects cover; both kinds count alike.

    held_out: patches of other good images, whose log-odds set the unit: those of few fitted images are known by heart.
    """
    discriminator = Discriminator(
        good.shape[1], width=settings.synthetic_defects.discriminator_width, generator=generator
    )
    optimizer = torch.optim.AdamW(discriminator.parameters(), lr=2e-3, weight_decay=1e-2, fused=True)
    steps = settings.synthetic_defects.discriminator_iterations
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, steps)
    progress.stage("log-odds", steps)

    def loss() -> Tensor:
        some_good = good[torch.randint(len(good), (2 * COMPARED,), generator=generator)]
        some_planted = planted[torch.randint(len(planted), (COMPARED,), generator=generator)]
        odds = discriminator(torch.cat([some_good, some_planted]), dropout=generator)
        of_good, of_planted = odds.split([len(some_good), len(some_planted)])
        return softplus(of_good).mean() + softplus(-of_planted).mean()

    minimize(loss, optimizer, schedule, steps=steps, figure="cross-entropy", progress=progress)
    discriminator.normalise(held_out, strength=settings.synthetic_defects.discriminator_strength)
    return discriminator.eval()
