"""From latents of good parts to their energy: a warm start by reconstruction, then DxMI."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from energyad.dxmi import DxMITrainer, TrainingRecord
from energyad.energy import AutoencoderEnergy
from energyad.progress import Progress
from energyad.settings import FitSettings

RECORD_EVERY = 50


@dataclass(frozen=True)
class TrainedEnergy:
    """The energy, and DxMI's records on the way to it."""

    energy: AutoencoderEnergy
    history: tuple[TrainingRecord, ...]

    def history_dicts(self) -> list[dict[str, object]]:
        """Plain values, ready for JSON."""
        return [asdict(record) for record in self.history]


def train_energy(
    latents: Float[Tensor, "n k"], *, settings: FitSettings, generator: torch.Generator, progress: Progress
) -> TrainedEnergy:
    """Train an energy on latents of good patches. Raises TrainingDiverged, naming what left its bounds."""
    energy = AutoencoderEnergy(
        latents.shape[1], width=settings.energy_width, bottleneck=settings.bottleneck, generator=generator
    )
    warm_up(energy, latents, settings=settings, generator=generator, progress=progress)
    set_scale(energy, latents, mean_energy=settings.data_energy)
    if settings.iterations == 0:
        return TrainedEnergy(energy.eval(), ())
    trainer = DxMITrainer(energy=energy, data=latents, settings=settings.dxmi, generator=generator)
    progress.stage("DxMI", settings.iterations)
    history = []
    for record in trainer.run(settings.iterations, record_every=min(RECORD_EVERY, settings.iterations)):
        history.append(record)
        figures = {"E(data)": record.energy_data, "E(samples)": record.energy_samples}
        progress.advance(RECORD_EVERY, figures=figures)
    averaged: AutoencoderEnergy = trainer.averaged_energy  # type: ignore[assignment]
    return TrainedEnergy(averaged.eval(), tuple(history))


def warm_up(
    energy: AutoencoderEnergy,
    latents: Float[Tensor, "n k"],
    *,
    settings: FitSettings,
    generator: torch.Generator,
    progress: Progress,
) -> None:
    """Train the energy's autoencoder by plain reconstruction, so that DxMI starts from a sensible landscape."""
    steps, batch_size = settings.warmup_iterations, settings.warmup_batch_size
    if steps == 0:
        return
    progress.stage("warm-up", steps)
    optimizer = torch.optim.Adam(energy.parameters(), lr=settings.warmup_lr, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(1, steps + 1):
        z = latents[torch.randint(len(latents), (batch_size,), generator=generator)]
        loss = (z - energy.reconstruct(z)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % RECORD_EVERY == 0 or step == steps:
            progress.advance((step - 1) % RECORD_EVERY + 1, figures={"reconstruction": loss.item()})


def set_scale(energy: AutoencoderEnergy, latents: Float[Tensor, "n k"], *, mean_energy: float) -> None:
    """Set the energy's scale so that its mean over (a sample of) the data is `mean_energy`.

    The regularisation γ bounds energies in absolute terms, so DxMI must start with energies of a known size.
    """
    with torch.no_grad():
        mean = energy(latents[:: max(1, len(latents) // 8192)]).mean()
        energy.log_scale.add_((mean_energy / mean.clamp_min(1e-12)).log())
