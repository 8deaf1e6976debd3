"""From patches of good parts to their energy: whitening, memory banks, discriminator, training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float16
from torch import Tensor

from energyad.energy.discriminator import Discriminator, DiscriminatorEnergy
from energyad.energy.latent_energy import LatentEnergy, MeanEnergy
from energyad.energy.memory_bank import MemoryBank, MemoryBankEnergy
from energyad.energy.patch_energy import CategoryEnergy, PatchEnergy, combine_scales
from energyad.energy.reranking import match_medians
from energyad.energy.whitening import Whitening, fit_whitening
from energyad.features.grids import Scale
from energyad.fitting.context import FitContext
from energyad.fitting.memory_banks import fit_memory_bank, fit_reranker
from energyad.fitting.patches import TrainingPatches
from energyad.fitting.training import TrainedEnergy, train_discriminator, train_energy
from energyad.settings import FitSettings

CHUNK_SIZE = 65536
"""Patches that are whitened at once."""


def fit_multiscale_energy(
    patches: Sequence[TrainingPatches],
    context: FitContext,
    generator: torch.Generator,
) -> tuple[CategoryEnergy, list[TrainedEnergy]]:
    """Fit the energy of one category: one for each scale, combined.

    Args:
        patches: What to fit on, for each scale of the context.
        context: Of the fit.
        generator: Source of everything random in the finest scale. A coarser one has a generator of its own: what it
            draws does not depend on how long the finest one trains.

    Returns:
        The energy, and how all trainings went.

    Raises:
        TrainingDiverged: Naming the figure that left its bounds.
    """
    energies, trainings = [], []
    for number, (scale, scale_patches) in enumerate(zip(context.scales, patches, strict=True)):
        energy, scale_trainings = fit_patch_energy(
            scale_patches,
            replace(context, settings=for_scale(context.settings, scale)),
            generator if number == 0 else context.generator(),
        )
        energies.append(energy)
        trainings += scale_trainings
    combined = combine_scales(energies, context.scales, context.grid, context.settings.energy.coarse_weight)
    return combined, trainings


def for_scale(settings: FitSettings, scale: Scale) -> FitSettings:
    """Return the settings for a scale with fewer patches: fewer steps of training, and fewer points.

    A scale of patches twice as wide has a quarter of them. It trains for a quarter of the steps, so that each patch is
    seen as often, and has half the points in its memory bank. More of either gained nothing.
    """
    share = scale.factor**2
    decay = settings.dxmi.decay_iterations
    return settings.with_values(
        {
            "memory_bank.size": -(-settings.memory_bank.size // scale.factor),
            "energy.pretrain_steps": -(-settings.energy.pretrain_steps // share),
            "dxmi.iterations": -(-settings.dxmi.iterations // share),
            "dxmi.pretrain_iterations": -(-settings.dxmi.pretrain_iterations // share),
            "dxmi.decay_iterations": decay and -(-decay // share),
        }
    )


def fit_patch_energy(
    patches: TrainingPatches,
    context: FitContext,
    generator: torch.Generator,
) -> tuple[PatchEnergy, list[TrainedEnergy]]:
    """Fit the energy of one scale.

    Args:
        patches: What to fit on.
        context: Of the fit; its settings are those of the scale, see `for_scale`.
        generator: Source of everything random but rerankers and discriminators, which have generators of their own:
            training draws the same numbers with them and without.

    Returns:
        The energy, and how each ensemble member's training went.

    Raises:
        TrainingDiverged: Naming the figure that left its bounds.
    """
    settings, progress = context.settings, context.progress
    whitening = fit_whitening(_whitening_patches(patches), latent_dim=settings.energy.latent_dim)
    latents = to_latents(patches, whitening)
    reranker = fit_reranker(latents.fitted, whitening.deviations(), settings, progress)
    discriminator_generator = context.generator()

    members, trainings = [], []
    for _ in range(settings.energy.ensemble_size):
        factors = _fit_factors(latents, whitening, context, generator, discriminator_generator)
        trained = train_energy(
            latents.training,
            latents.held_out.flatten(0, 1),
            settings=settings,
            generator=generator,
            progress=progress,
            synthetic=latents.synthetic,
        )
        members.append(factors.applied_to(trained.energy))
        trainings.append(trained)
    energy = members[0] if len(members) == 1 else MeanEnergy(members)
    if reranker is not None:
        match_medians(energy, reranker, latents.held_out)
    return PatchEnergy(whitening, energy, reranker).eval().requires_grad_(False), trainings


@dataclass(frozen=True, eq=False)
class Latents:
    """`TrainingPatches`, whitened.

    Attributes:
        training: Of the fitted images and of their copies with photometric jitter.
        fitted: Of the fitted images, image by image.
        held_out: Of other good images.
        synthetic: Of patches that synthetic defects cover.
    """

    training: Float[Tensor, "n_p k"]
    fitted: Float[Tensor, "n p k"]
    held_out: Float[Tensor, "m p2 k"]
    synthetic: Float[Tensor, "d k"]


@dataclass(frozen=True, eq=False)
class _Factors:
    """What an energy is multiplied with after its training.

    Not before: these do not change in DxMI, and the autoencoder would lose what they know already.
    """

    bank: MemoryBank | None
    discriminator: Discriminator | None
    deviations: Float[Tensor, " k"]
    num_directions: int

    def applied_to(self, energy: LatentEnergy) -> LatentEnergy:
        """Return the product."""
        if self.discriminator is not None:
            energy = DiscriminatorEnergy(energy, self.discriminator)
        if self.bank is None:
            return energy
        return MemoryBankEnergy(
            energy, self.bank, deviations=self.deviations, num_directions=self.num_directions
        )


def _fit_factors(
    latents: Latents,
    whitening: Whitening,
    context: FitContext,
    generator: torch.Generator,
    discriminator_generator: torch.Generator,
) -> _Factors:
    settings, progress, deviations = context.settings, context.progress, whitening.deviations()
    bank = discriminator = None
    if settings.memory_bank.size > 0:
        progress.stage("memory bank", settings.memory_bank.size)
        bank = fit_memory_bank(latents.fitted, deviations, settings.memory_bank.size, generator)
        progress.advance(len(bank.points))
    if len(latents.synthetic) > 0:
        discriminator = train_discriminator(
            latents.training,
            latents.synthetic,
            latents.held_out.flatten(0, 1),
            settings=settings,
            generator=discriminator_generator,
            progress=progress,
        )
    return _Factors(bank, discriminator, deviations, settings.memory_bank.directions)


def _whitening_patches(patches: TrainingPatches) -> Float16[Tensor, "n c"]:
    """Return the patches that the latents' axes are fitted on: those of the images as they are.

    A few images hardly vary in most directions, and the slightest change of light would then lie far outside. So where
    there are more patches with photometric jitter, they count too.
    """
    fitted, jittered = patches.fitted.flatten(0, 1), patches.jittered.flatten(0, 1)
    return torch.cat([fitted, jittered]) if len(jittered) > len(fitted) else fitted


def to_latents(patches: TrainingPatches, whitening: Whitening) -> Latents:
    """Whiten the patches of one scale."""
    fitted, jittered = patches.fitted.flatten(0, 1), patches.jittered.flatten(0, 1)
    training = torch.empty(len(fitted) + len(jittered), whitening.projection.shape[1])
    _whiten(whitening, fitted, training[: len(fitted)])
    _whiten(whitening, jittered, training[len(fitted) :])
    held_out = whitening(patches.held_out.flatten(0, 1).float())
    synthetic = patches.synthetic
    return Latents(
        training=training,
        fitted=training[: len(fitted)].view(*patches.fitted.shape[:2], -1),
        held_out=held_out.view(*patches.held_out.shape[:2], -1),
        synthetic=whitening(synthetic.float()) if len(synthetic) > 0 else training[:0],
    )


def _whiten(whitening: Whitening, patches: Float16[Tensor, "n c"], latents: Float[Tensor, "n k"]) -> None:
    """Write the patches' latents where they belong, without a second copy of them all."""
    for chunk, target in zip(patches.split(CHUNK_SIZE), latents.split(CHUNK_SIZE), strict=True):
        target.copy_(whitening(chunk.float()))
