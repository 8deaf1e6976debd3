"""From patches of good parts to what judges them: whitening, prototypes, energy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16
from torch import Tensor, nn

from energyad.energy.coreset import Coreset, fit_local_scales, greedy_coreset
from energyad.energy.discriminator import DiscriminatorEnergy
from energyad.energy.networks import MeanEnergy, MemoryBank, MemoryBankEnergy
from energyad.energy.patch_energy import MultiScaleEnergy, PatchEnergy, PatchEnergyLike, combine_scales
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
    closer_look = fit_reranker(own_light, whitening, settings, progress)
    # Ones of their own: the energy's training draws the same numbers with these and without.
    of_discriminators = torch.Generator().manual_seed(settings.seed)

    def finished(energy: nn.Module) -> PatchEnergy:
        if closer_look is not None:
            match_medians(energy, closer_look, unseen.view(*good.held_out.shape[:2], -1))
        return PatchEnergy(whitening, energy, closer_look).eval()

    def fit_one() -> tuple[nn.Module, TrainedEnergy]:
        prototypes = None
        if settings.memory_bank.size > 0:
            progress.stage("prototypes", settings.memory_bank.size)
            prototypes = build_memory_bank(own_light, whitening, settings, generator)
            progress.advance(len(prototypes.coreset.points))

        discriminator = None
        if bad is not None:
            discriminator = train_discriminator(
                latents, bad, unseen, settings=settings, generator=of_discriminators, progress=progress
            )

        def wrapped(energy: nn.Module) -> nn.Module:
            # Not before: these hold still in the game, and the autoencoder would pay for what they tell already.
            if discriminator is not None:
                energy = DiscriminatorEnergy(energy, discriminator)
            return energy if prototypes is None else MemoryBankEnergy(energy, prototypes)

        def look(iteration: int, energy: nn.Module) -> None:
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
    looks = settings.memory_bank.rerank_banks if settings.memory_bank.size > 0 else 0
    if looks == 0:
        return None
    progress.stage("closer look", looks)
    # One of its own: training draws the same numbers with a closer look and without.
    generator = torch.Generator().manual_seed(settings.seed)
    coresets = []
    for _ in range(looks):
        # Of all patches: the rarest among good ones are what good parts would be rejected for.
        coresets.append(
            _fit_coreset(
                images,
                whitening,
                settings.memory_bank.rerank_bank_size,
                generator,
                most_candidates=MAX_PATCHES,
                most_measured=MAX_SCALE_IMAGES_RERANK,
            )
        )
        progress.advance()
    return Reranker.of(whitening.deviations(), coresets, share=settings.memory_bank.rerank_fraction)


def extend_memory_bank(
    expert: PatchEnergy, parts: Float16[Tensor, "n p c"], *, num_fitted: int, settings: FitSettings
) -> PatchEnergy:
    """The same expert, whose closer look knows the patches of these good parts too.

    As many prototypes as is their share are added, and nothing else changes, so that no energy of any image grows: a
    threshold that the expert keeps without them it keeps with them.
    """
    look = expert.closer_look
    if look is None:
        return expert
    generator = torch.Generator().manual_seed(settings.seed)
    patches = parts.flatten(0, 1)
    count = round(look.size * len(parts) / num_fitted)
    stretch, added = expert.whitening.deviations(), []
    for own in look.stretched():
        drawn = torch.randperm(len(patches), generator=generator)[:MAX_CANDIDATES]
        candidates = expert.whitening(patches[drawn].float()) * stretch
        chosen = greedy_coreset(candidates, max(1, count), generator, beside=own, thinned=True)
        added.append(candidates[chosen])
    return PatchEnergy(expert.whitening, expert.energy, look.extended(added)).eval().requires_grad_(False)


def build_memory_bank(
    images: Float[Tensor, "n p k"], whitening: Whitening, settings: FitSettings, generator: torch.Generator
) -> MemoryBank:
    """A coreset of the latents, stretched back to the features they come from.

    Whitened, noise has as much to say of what is near as anything. Radii are of the fitted images too: the parts held
    out for the threshold must not have shaped what judges them.
    """
    coreset = _fit_coreset(
        images,
        whitening,
        settings.memory_bank.size,
        generator,
        most_candidates=MAX_CANDIDATES,
        most_measured=MAX_SCALE_IMAGES,
    )
    return MemoryBank(whitening.deviations(), coreset, settings.memory_bank.directions)


def _fit_coreset(
    images: Float[Tensor, "n p k"],
    whitening: Whitening,
    size: int,
    generator: torch.Generator,
    *,
    most_candidates: int,
    most_measured: int,
) -> Coreset:
    stretch, latents = whitening.deviations(), images.flatten(0, 1)
    candidates, drawn = latents, torch.arange(len(latents))
    if len(latents) > most_candidates:
        drawn = torch.randperm(len(latents), generator=generator)[:most_candidates]
        candidates = latents[drawn]
    chosen = drawn[greedy_coreset(candidates, size, generator, stretch=stretch, thinned=True)]
    points = latents[chosen] * stretch
    measured = range(0, len(images), -(-len(images) // most_measured))
    measurable = ((place, images[place] * stretch) for place in measured)
    return Coreset(points, fit_local_scales(points, chosen // images.shape[1], measurable))


def _mean(energies: Sequence[nn.Module]) -> nn.Module:
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
) -> tuple[PatchEnergyLike, list[TrainedEnergy]]:
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
    judge: PatchEnergyLike,
    parts: Sequence[Float16[Tensor, "n p c"]],
    *,
    num_fitted: int,
    settings: FitSettings,
) -> PatchEnergyLike:
    """The same, with these good parts' patches in each reranker; see `extend_memory_bank`. parts: of each scale."""
    add = functools.partial(extend_memory_bank, num_fitted=num_fitted, settings=settings)
    if isinstance(judge, PatchEnergy):
        return add(judge, parts[0])
    held = [each for each in judge.experts if isinstance(each, PatchEnergy)]
    experts = [add(expert, own) for expert, own in zip(held, parts, strict=True)]
    return MultiScaleEnergy(experts, judge.scales, side=judge.side, shares=judge.shares.tolist()).eval()
