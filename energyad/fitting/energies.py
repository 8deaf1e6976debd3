"""From patches of good parts to what judges them: whitening, prototypes, energy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16
from torch import Tensor

from energyad.energy.coreset import fit_local_scales, greedy_coreset
from energyad.energy.discriminator import DiscriminatorEnergy
from energyad.energy.latent_energy import LatentEnergy, MeanEnergy
from energyad.energy.memory_bank import MemoryBank, MemoryBankEnergy
from energyad.energy.patch_energy import CategoryEnergy, PatchEnergy, combine_scales
from energyad.energy.reranking import Reranker, match_medians
from energyad.energy.whitening import Whitening, fit_whitening
from energyad.features.grids import Grid, Scale
from energyad.fitting.feature_store import release
from energyad.fitting.roi import patches_in_area
from energyad.fitting.training import TrainedEnergy, train_discriminator, train_energy
from energyad.progress import Progress
from energyad.settings import FitSettings

MAX_PATCHES = 1_000_000  # of each kind, in training: 0.7 GB as latents
MAX_CANDIDATES = 100_000  # latents that the first look's prototypes are chosen from
MAX_SCALE_IMAGES = 500  # images whose patches give the radii
MAX_SCALE_IMAGES_RERANK = 125  # the same for each coreset of the closer look
CHUNK = 65536
RELEASE_EVERY = 500  # images: 0.14 GB of pages


def gather_patches(
    features: Float16[np.ndarray, "n rows g c"],
    images: Sequence[int],
    *,
    scale: Scale,
    generator: torch.Generator,
    area: Bool[Tensor, " p"] | None = None,
) -> Float16[Tensor, "n q k"]:
    """All patches of these images, or as many of each as make MAX_PATCHES. Read in order: they may lie on a disk.

    scale: whose patches. area: those of the grid that count, see `patches_in_area`.
    """
    if len(images) == 0:
        return torch.empty(0, 1, scale.num_channels, dtype=torch.float16)
    counted = scale.any_of(
        torch.from_numpy(patches_in_area(features, area)).view(features.shape[1:3])
    ).flatten()
    eligible = counted.nonzero()[:, 0]
    count = min(MAX_PATCHES // len(images), len(eligible))
    gathered = torch.empty(len(images), count, scale.num_channels, dtype=torch.float16)
    for place, image in enumerate(images):
        patches = scale.of(torch.from_numpy(features[image])).flatten(0, 1)
        if count < len(counted):
            drawn = torch.randperm(len(eligible), generator=generator)[:count]
            patches = patches[eligible[drawn]]
        gathered[place] = patches
        if place % RELEASE_EVERY == 0:
            release(features)
    return gathered


@dataclass(frozen=True, eq=False)
class GoodPatches:
    """What an expert is fitted on, image by image.

    own: patches of the fitted images. relit: of their copies under other light. held_out: of other good images, which
    tell when to stop. planted: those that defects cover.
    """

    own: Float16[Tensor, "n p c"]
    relit: Float16[Tensor, "r p2 c2"]
    held_out: Float16[Tensor, "m p3 c"]
    planted: Float16[Tensor, "d c3"]


def fit_patch_energy(
    good: GoodPatches,
    settings: FitSettings,
    generator: torch.Generator,
    progress: Progress,
    on_record: Callable[[int, PatchEnergy], None] | None = None,
) -> tuple[PatchEnergy, list[TrainedEnergy]]:
    """Fit what judges patches, on those of good parts; also how each energy's training went.

    The latents' axes are those of the patches under their own light; but a few images hardly vary in most directions,
    and the slightest change of light would then lie far outside. on_record: called with DxMI's iteration and the expert
    of that time, of each energy in turn.
    """
    patches, relit = good.own.flatten(0, 1), good.relit.flatten(0, 1)
    seen = torch.cat([patches, relit]) if len(relit) > len(patches) else patches
    whitening = fit_whitening(seen, latent_dim=settings.energy.latent_dim)
    latents = torch.empty(len(patches) + len(relit), whitening.projection.shape[1])
    _whiten(whitening, patches, latents[: len(patches)])
    _whiten(whitening, relit, latents[len(patches) :])
    own_light = latents[: len(patches)].view(*good.own.shape[:2], -1)
    unseen = whitening(good.held_out.flatten(0, 1).float())
    bad = whitening(good.planted.float()) if len(good.planted) else None
    reranker = fit_reranker(own_light, whitening, settings, progress)
    # Ones of their own: the energy's training draws the same numbers with these and without.
    of_discriminators = torch.Generator().manual_seed(settings.seed)

    def finished(energy: LatentEnergy) -> PatchEnergy:
        if reranker is not None:
            match_medians(energy, reranker, unseen.view(*good.held_out.shape[:2], -1))
        return PatchEnergy(whitening, energy, reranker).eval()

    def fit_one() -> tuple[LatentEnergy, TrainedEnergy]:
        bank = None
        if settings.memory_bank.size > 0:
            progress.stage("prototypes", settings.memory_bank.size)
            bank = build_memory_bank(own_light, whitening, settings, generator)
            progress.advance(len(bank.points))

        discriminator = None
        if bad is not None:
            discriminator = train_discriminator(
                latents, bad, unseen, settings=settings, generator=of_discriminators, progress=progress
            )

        def wrapped(energy: LatentEnergy) -> LatentEnergy:
            # Not before: these hold still in the game, and the autoencoder would pay for what they tell already.
            if discriminator is not None:
                energy = DiscriminatorEnergy(energy, discriminator)
            return energy if bank is None else _with_memory_bank(energy, bank, whitening, settings)

        def look(iteration: int, energy: LatentEnergy) -> None:
            if on_record is not None:
                on_record(iteration, finished(wrapped(energy)))

        trained = train_energy(
            latents, unseen, settings=settings, generator=generator, progress=progress, on_record=look
        )
        return wrapped(trained.energy), trained

    energies, trainings = zip(*(fit_one() for _ in range(settings.energy.ensemble_size)), strict=True)
    return finished(_mean(energies)).requires_grad_(False), list(trainings)


def fit_reranker(
    images: Float[Tensor, "n p k"], whitening: Whitening, settings: FitSettings, progress: Progress
) -> Reranker | None:
    """Several coresets of the latents, each from a draw of its own, or None where none are asked for."""
    num_banks = settings.memory_bank.rerank_banks if settings.memory_bank.size > 0 else 0
    if num_banks == 0:
        return None
    progress.stage("reranking", num_banks)
    # A generator for this alone: training draws the same numbers with a reranker and without.
    generator = torch.Generator().manual_seed(settings.seed)
    banks = []
    for _ in range(num_banks):
        # Of all patches: the rarest among good ones are what good parts would be rejected for.
        banks.append(
            _fit_memory_bank(
                images,
                whitening,
                settings.memory_bank.rerank_bank_size,
                generator,
                most_candidates=MAX_PATCHES,
                most_measured=MAX_SCALE_IMAGES_RERANK,
            )
        )
        progress.advance()
    return Reranker.from_banks(
        banks, deviations=whitening.deviations(), fraction=settings.memory_bank.rerank_fraction
    )


def extend_memory_bank(
    energy: PatchEnergy, parts: Float16[Tensor, "n p c"], *, num_fitted: int, settings: FitSettings
) -> PatchEnergy:
    """The same energy, whose reranker knows the patches of these good parts too.

    As many points as is their share are added, and nothing else changes, so that no energy of any image grows: a
    threshold that holds without them holds with them.
    """
    reranker = energy.reranker
    if reranker is None:
        return energy
    generator = torch.Generator().manual_seed(settings.seed)
    patches = parts.flatten(0, 1)
    count = round(reranker.size * len(parts) / num_fitted)
    deviations, added = energy.whitening.deviations(), []
    for points in reranker.bank_points():
        drawn = torch.randperm(len(patches), generator=generator)[:MAX_CANDIDATES]
        candidates = energy.whitening(patches[drawn].float()) * deviations
        chosen = greedy_coreset(candidates, max(1, count), generator, selected=points, thinned=True)
        added.append(candidates[chosen])
    extended = PatchEnergy(energy.whitening, energy.latent_energy, reranker.extended(added))
    return extended.eval().requires_grad_(False)


def build_memory_bank(
    images: Float[Tensor, "n p k"], whitening: Whitening, settings: FitSettings, generator: torch.Generator
) -> MemoryBank:
    """A coreset of the latents, stretched back to the features they come from.

    Whitened, noise has as much to say of what is near as anything. Radii are of the fitted images too: the parts held
    out for the threshold must not have shaped what judges them.
    """
    return _fit_memory_bank(
        images,
        whitening,
        settings.memory_bank.size,
        generator,
        most_candidates=MAX_CANDIDATES,
        most_measured=MAX_SCALE_IMAGES,
    )


def _fit_memory_bank(
    images: Float[Tensor, "n p k"],
    whitening: Whitening,
    size: int,
    generator: torch.Generator,
    *,
    most_candidates: int,
    most_measured: int,
) -> MemoryBank:
    deviations, latents = whitening.deviations(), images.flatten(0, 1)
    candidates, drawn = latents, torch.arange(len(latents))
    if len(latents) > most_candidates:
        drawn = torch.randperm(len(latents), generator=generator)[:most_candidates]
        candidates = latents[drawn]
    chosen = drawn[greedy_coreset(candidates, size, generator, channel_weights=deviations, thinned=True)]
    points = latents[chosen] * deviations
    measured = range(0, len(images), -(-len(images) // most_measured))
    measurable = ((place, images[place] * deviations) for place in measured)
    return MemoryBank(points, fit_local_scales(points, chosen // images.shape[1], measurable))


def _with_memory_bank(
    energy: LatentEnergy, bank: MemoryBank, whitening: Whitening, settings: FitSettings
) -> LatentEnergy:
    deviations = whitening.deviations()
    return MemoryBankEnergy(
        energy, bank, deviations=deviations, num_directions=settings.memory_bank.directions
    )


def _mean(energies: Sequence[LatentEnergy]) -> LatentEnergy:
    return energies[0] if len(energies) == 1 else MeanEnergy(energies)


def _whiten(whitening: Whitening, patches: Float16[Tensor, "n c"], latents: Float[Tensor, "n k"]) -> None:
    """Write the patches' latents where they belong, without a second copy of them all."""
    for chunk, target in zip(patches.split(CHUNK), latents.split(CHUNK), strict=True):
        target.copy_(whitening(chunk.float()))


OnRecord = Callable[[int, int, PatchEnergy], None]
"""Called with the number of a scale, DxMI's iteration and that scale's expert of that time."""


def gather_scales(
    features: Float16[np.ndarray, "n rows g c"],
    images: Sequence[int],
    scales: Sequence[Scale],
    *,
    generator: torch.Generator,
    area: Bool[Tensor, " p"] | None = None,
) -> list[Float16[Tensor, "n q k"]]:
    """Patches of these images, of each scale; see `gather_patches`."""
    return [gather_patches(features, images, scale=each, generator=generator, area=area) for each in scales]


def for_scale(settings: FitSettings, scale: Scale) -> FitSettings:
    """The same for a scale with fewer patches: fewer steps of training, and fewer prototypes.

    A scale of patches twice as wide has a quarter of them. It trains for a quarter of the steps, so that each is seen
    as often as one of the grid, and has half the prototypes. Of more of either nothing was gained.
    """
    share = scale.factor**2
    decay = settings.dxmi.decay_iterations
    return settings.with_values(
        {
            "memory_bank.size": -(-settings.memory_bank.size // scale.factor),
            "energy.pretrain_steps": -(-settings.energy.pretrain_steps // share),
            "dxmi.iterations": -(-settings.dxmi.iterations // share),
            "dxmi.decay_iterations": decay and -(-decay // share),
        }
    )


def fit_multiscale_energy(
    good: Sequence[GoodPatches],
    scales: Sequence[Scale],
    grid: Grid,
    settings: FitSettings,
    generator: torch.Generator,
    progress: Progress,
    on_record: OnRecord | None = None,
) -> tuple[CategoryEnergy, list[TrainedEnergy]]:
    """Fit what judges patches, an expert for each scale; also how all their trainings went. good: patches of each."""
    experts, trainings = [], []
    for number, patches in enumerate(good):
        look = None if on_record is None else functools.partial(on_record, number)
        own_settings = for_scale(settings, scales[number])
        # One of its own: what a scale draws does not depend on how long another one trains.
        drawing = generator if number == 0 else torch.Generator().manual_seed(settings.seed)
        expert, own = fit_patch_energy(patches, own_settings, drawing, progress, look)
        experts.append(expert)
        trainings += own
    return combine_scales(experts, scales, grid, settings.energy.coarse_weight), trainings


def extend_memory_banks(
    energy: CategoryEnergy,
    parts: Sequence[Float16[Tensor, "n p c"]],
    *,
    num_fitted: int,
    settings: FitSettings,
) -> CategoryEnergy:
    """The same, with these good parts' patches in each reranker; see `extend_memory_bank`. parts: of each scale."""
    extended = [
        extend_memory_bank(scale_energy, patches, num_fitted=num_fitted, settings=settings)
        for scale_energy, patches in zip(energy.by_scale(), parts, strict=True)
    ]
    return energy.with_scales(extended)
