"""From latents of good parts to their energy: reconstruction first, then DxMI; and the discriminator's training."""

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
from energyad.dxmi.diagnosis import auroc, measure_health
from energyad.dxmi.objectives import power_mean
from energyad.energy.discriminator import Discriminator
from energyad.energy.latent_energy import LatentEnergy
from energyad.energy.networks import AutoencoderEnergy
from energyad.progress import Progress
from energyad.settings import FitSettings

RECORD_EVERY = 50
"""Steps or iterations between two measurements, of progress and of held-out parts."""

MIN_COMPRESSION = 4
"""Latents for each number of the autoencoder's code. Of few latents, a wider code would let everything through."""

PRETRAINING_PATIENCE, DXMI_PATIENCE = 10, 4
"""Measurements without improvement after which training stops."""

MAX_HELD_OUT = 4096
"""Held-out patches that are measured, about."""

MAX_SCALE_PATCHES = 8192
"""Patches whose mean energy sets the scale, about."""

DISCRIMINATOR_BATCH_SIZE = 256
"""Synthetic patches of a step, beside twice as many good ones."""

DISCRIMINATOR_LR, DISCRIMINATOR_WEIGHT_DECAY = 2e-3, 1e-2

EnergyT = TypeVar("EnergyT", bound=nn.Module)


@dataclass(frozen=True)
class TrainedEnergy:
    """An energy and the record of its training.

    Attributes:
        energy: The one that held-out parts liked best.
        history: DxMI's records.
        health: What the records say of DxMI; None without DxMI.
    """

    energy: LatentEnergy
    history: tuple[TrainingRecord, ...]
    health: TrainingHealth | None = None

    def history_dicts(self) -> list[dict[str, object]]:
        """Return the records as plain values, ready for JSON."""
        return [asdict(record) for record in self.history]


class EarlyStopping(Generic[EnergyT]):
    """Keeps the energy that is best on held-out parts, and says when to stop.

    A few images are memorised in seconds. The energy of other good parts then rises, however low that of the training
    patches falls. With hundreds of images it falls to the end, and nothing is cut short.

    Args:
        held_out: Latents of good parts that are not trained on.
        patience: Measurements without improvement after which training stops.
        synthetic: Latents that synthetic defects cover. Given some, the best energy is the one of the highest AUROC
            between them and the held-out good ones, which no change of scale decides; otherwise the lowest one.

    Attributes:
        best: A copy of the best energy so far; None before the first measurement.
    """

    def __init__(
        self, held_out: Float[Tensor, "m k"], *, patience: int, synthetic: Float[Tensor, "d k"] | None = None
    ) -> None:
        self.latents = _thinned(held_out)
        self.synthetic = None if synthetic is None or len(synthetic) == 0 else _thinned(synthetic)
        self.patience = patience
        self.waited = 0
        self.lowest = float("inf")
        self.best: EnergyT | None = None

    def step(self, energy: EnergyT) -> bool:
        """Measure an energy. Returns whether to go on."""
        with torch.no_grad():
            of_good = energy(self.latents)
            loss = (
                of_good.mean().item() if self.synthetic is None else -auroc(of_good, energy(self.synthetic))
            )
        if loss < self.lowest:
            self.lowest, self.waited, self.best = loss, 0, copy.deepcopy(energy)
        else:
            self.waited += 1
        return self.waited < self.patience


def _thinned(patches: Float[Tensor, "m k"]) -> Float[Tensor, "_ k"]:
    return patches[:: max(1, len(patches) // MAX_HELD_OUT)]


def train_energy(
    latents: Float[Tensor, "n k"],
    held_out: Float[Tensor, "m k"],
    *,
    settings: FitSettings,
    generator: torch.Generator,
    progress: Progress,
    synthetic: Float[Tensor, "d k"] | None = None,
) -> TrainedEnergy:
    """Train an energy on latents of good patches: an autoencoder first by reconstruction, then by DxMI.

    Args:
        latents: Patches to train on.
        held_out: Patches of other good images. They teach nothing, and end the training where it becomes memorising.
        settings: Network, lengths of both trainings, learning rates.
        generator: Source of everything random.
        progress: Called at each step of both trainings.
        synthetic: Patches that synthetic defects cover; they choose between the energy before DxMI and after.

    Raises:
        TrainingDiverged: Naming the figure that left its bounds.
    """
    options, latent_dim = settings.energy, latents.shape[1]
    bottleneck = min(options.bottleneck, max(1, latent_dim // MIN_COMPRESSION))
    initial = AutoencoderEnergy(latent_dim, width=options.width, bottleneck=bottleneck, generator=generator)
    pretrained = pretrain_autoencoder(
        initial, latents, held_out, settings=settings, generator=generator, progress=progress
    )
    set_scale(pretrained, latents, mean_energy=options.initial_energy)
    return train_dxmi(
        pretrained,
        latents,
        held_out,
        settings=settings,
        generator=generator,
        progress=progress,
        synthetic=synthetic,
    )


def train_dxmi(
    energy: LatentEnergy,
    latents: Float[Tensor, "n k"],
    held_out: Float[Tensor, "m k"],
    *,
    settings: FitSettings,
    generator: torch.Generator,
    progress: Progress,
    synthetic: Float[Tensor, "d k"] | None = None,
    new_trainer: Callable[..., DxMITrainer] = DxMITrainer,
) -> TrainedEnergy:
    """Train an energy and a diffusion sampler against each other (DxMI, Yoon et al., NeurIPS 2024).

    Args:
        energy: Where to start.
        latents: Patches to train on.
        held_out: Patches of other good images, for early stopping.
        settings: Of DxMI. No iterations leave the energy as it is.
        generator: Source of everything random.
        progress: Called at each iteration.
        synthetic: Patches that synthetic defects cover, to choose the energy by.
        new_trainer: Makes the trainer, with the arguments of `DxMITrainer`.

    Raises:
        TrainingDiverged: Naming the figure that left its bounds.
    """
    num_iterations = settings.dxmi.iterations
    if num_iterations == 0:
        return TrainedEnergy(energy.eval(), ())
    progress.stage("DxMI", num_iterations)
    stopping = EarlyStopping[LatentEnergy](held_out, patience=DXMI_PATIENCE, synthetic=synthetic)
    stopping.step(energy)
    trainer = new_trainer(energy=energy, data=latents, settings=settings.dxmi, generator=generator)
    if settings.dxmi.pretrain_iterations > 0:
        trainer.pretrain()
    first_sampler = copy.deepcopy(trainer.sampler)
    history: list[TrainingRecord] = []
    for record in trainer.run(num_iterations, record_every=min(RECORD_EVERY, num_iterations)):
        figures = {"E(data)": record.energy_data, "E(samples)": record.energy_samples}
        progress.advance(record.iteration - (history[-1].iteration if history else 0), figures=figures)
        history.append(record)
        if not stopping.step(cast(LatentEnergy, trainer.averaged_energy)):  # a copy of the energy
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
    """Train an autoencoder by plain reconstruction, so that DxMI starts from a sensible landscape.

    The loss is a power mean of the patches' errors: an image's score is a maximum, so a rare good patch that is
    reconstructed badly costs as much as a frequent one.

    Args:
        energy: The network, trained in place.
        latents: Patches to train on.
        held_out: Patches of other good images, for early stopping.
        settings: Steps, batch size, learning rate and power.
        generator: Source of the batches.
        progress: Called at each step.

    Returns:
        The best energy by `EarlyStopping`.
    """
    options = settings.energy
    if options.pretrain_steps == 0:
        return energy
    stopping = EarlyStopping[AutoencoderEnergy](held_out, patience=PRETRAINING_PATIENCE)
    progress.stage("pretraining", options.pretrain_steps)
    optimizer = torch.optim.Adam(energy.parameters(), lr=options.pretrain_lr, fused=True)

    def loss() -> Tensor:
        batch = torch.randint(len(latents), (options.pretrain_batch_size,), generator=generator)
        z = latents[batch]
        return power_mean((z - energy.reconstruct(z)).square().mean(dim=1), options.pretrain_power)

    minimize(
        loss,
        optimizer,
        torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.pretrain_steps),
        steps=options.pretrain_steps,
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
    """Minimise a loss.

    Args:
        loss: Draws a batch and returns its loss.
        optimizer: Of the parameters.
        schedule: Of the learning rate.
        steps: At the most.
        figure: The loss's name in the progress.
        progress: Called at each step.
        keep_going: Asked every `RECORD_EVERY` steps whether to go on.
    """
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
        mean = energy(latents[:: max(1, len(latents) // MAX_SCALE_PATCHES)]).mean()
        energy.log_scale.add_((mean_energy / mean.clamp_min(1e-12)).log())


def train_discriminator(
    good: Float[Tensor, "n k"],
    synthetic: Float[Tensor, "d k"],
    held_out: Float[Tensor, "m k"],
    *,
    settings: FitSettings,
    generator: torch.Generator,
    progress: Progress,
) -> Discriminator:
    """Train a discriminator between good patches and those that synthetic defects cover; both kinds count alike.

    Args:
        good: Latents of good patches.
        synthetic: Latents of patches that defects cover.
        held_out: Latents of other good images, which set mean and deviation of the log-odds: those of a few fitted
            images are memorised.
        settings: Width, iterations and strength.
        generator: Source of weights, batches and dropout.
        progress: Called at each iteration.
    """
    options = settings.synthetic_defects
    discriminator = Discriminator(good.shape[1], width=options.discriminator_width, generator=generator)
    optimizer = torch.optim.AdamW(
        discriminator.parameters(), lr=DISCRIMINATOR_LR, weight_decay=DISCRIMINATOR_WEIGHT_DECAY, fused=True
    )
    steps = options.discriminator_iterations
    progress.stage("discriminator", steps)

    def loss() -> Tensor:
        good_batch = good[torch.randint(len(good), (2 * DISCRIMINATOR_BATCH_SIZE,), generator=generator)]
        drawn = torch.randint(len(synthetic), (DISCRIMINATOR_BATCH_SIZE,), generator=generator)
        synthetic_batch = synthetic[drawn]
        log_odds = discriminator(torch.cat([good_batch, synthetic_batch]), dropout=generator)
        of_good, of_synthetic = log_odds.split([len(good_batch), len(synthetic_batch)])
        return softplus(of_good).mean() + softplus(-of_synthetic).mean()

    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, steps)
    minimize(loss, optimizer, schedule, steps=steps, figure="cross-entropy", progress=progress)
    discriminator.normalise(held_out, strength=options.discriminator_strength)
    return discriminator.eval()
