"""From patches of good parts to what judges them: whitening, prototypes, energy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16
from torch import Tensor, nn

from energyad.closer_look import CloserLook, level_looks
from energyad.coreset import Coreset, greedy_coreset, usual_distances
from energyad.discriminator import DiscriminatedEnergy
from energyad.energy import MeanEnergy, PrototypeEnergy, Prototypes
from energyad.experts import Expert
from energyad.extraction import in_area
from energyad.features_store import release
from energyad.grids import Scale
from energyad.latents import Whitening, fit_whitening
from energyad.progress import Progress
from energyad.settings import FitSettings
from energyad.training import TrainedEnergy, train_discriminator, train_energy

MOST_PATCHES = 1_000_000  # of each kind, in training: 0.7 GB as latents
MOST_CANDIDATES = 100_000  # latents that the first look's prototypes are chosen from
MOST_MEASURED = 500  # images whose patches give the radii
MOST_MEASURED_CLOSER = 125  # the same for each coreset of the closer look
CHUNK = 65536
RELEASED_EVERY = 500  # images: 0.14 GB of pages


def gather_patches(
    features: Float16[np.ndarray, "n rows g c"],
    images: Sequence[int],
    *,
    scale: Scale,
    generator: torch.Generator,
    area: Bool[Tensor, " p"] | None = None,
) -> Float16[Tensor, "n q k"]:
    """All patches of these images, or as many of each as make MOST_PATCHES. Read in order: they may lie on a disk.

    scale: whose patches. area: those of the grid that count, see `in_area`.
    """
    if len(images) == 0:
        return torch.empty(0, 1, scale.num_channels, dtype=torch.float16)
    counted = scale.any_of(torch.from_numpy(in_area(features, area)).view(features.shape[1:3])).flatten()
    eligible = counted.nonzero()[:, 0]
    count = min(MOST_PATCHES // len(images), len(eligible))
    gathered = torch.empty(len(images), count, scale.num_channels, dtype=torch.float16)
    for place, image in enumerate(images):
        patches = scale.of(torch.from_numpy(features[image])).flatten(0, 1)
        if count < len(counted):
            drawn = torch.randperm(len(eligible), generator=generator)[:count]
            patches = patches[eligible[drawn]]
        gathered[place] = patches
        if place % RELEASED_EVERY == 0:
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


def fit_expert(
    good: GoodPatches,
    settings: FitSettings,
    generator: torch.Generator,
    progress: Progress,
    observe: Callable[[int, Expert], None] | None = None,
) -> tuple[Expert, list[TrainedEnergy]]:
    """Fit what judges patches, on those of good parts; also how each energy's training went.

    The latents' axes are those of the patches under their own light; but a few images hardly vary in most directions,
    and the slightest change of light would then lie far outside. observe: called with DxMI's iteration and the expert
    of that time, of each energy in turn.
    """
    patches, relit = good.own.flatten(0, 1), good.relit.flatten(0, 1)
    seen = torch.cat([patches, relit]) if len(relit) > len(patches) else patches
    whitening = fit_whitening(seen, num_latents=settings.num_latents)
    latents = torch.empty(len(patches) + len(relit), whitening.projection.shape[1])
    _whiten(whitening, patches, latents[: len(patches)])
    _whiten(whitening, relit, latents[len(patches) :])
    own_light = latents[: len(patches)].view(*good.own.shape[:2], -1)
    unseen = whitening(good.held_out.flatten(0, 1).float())
    bad = whitening(good.planted.float()) if len(good.planted) else None
    closer_look = fit_closer_look(own_light, whitening, settings, progress)
    # Ones of their own: the energy's training draws the same numbers with these and without.
    of_discriminators = torch.Generator().manual_seed(settings.seed)

    def finished(energy: nn.Module) -> Expert:
        if closer_look is not None:
            level_looks(energy, closer_look, unseen.view(*good.held_out.shape[:2], -1))
        return Expert(whitening, energy, closer_look).eval()

    def fit_one() -> tuple[nn.Module, TrainedEnergy]:
        prototypes = None
        if settings.num_prototypes > 0:
            progress.stage("prototypes", settings.num_prototypes)
            prototypes = choose_prototypes(own_light, whitening, settings, generator)
            progress.advance(len(prototypes.coreset.points))

        discriminator = None
        if bad is not None:
            discriminator = train_discriminator(
                latents, bad, unseen, settings=settings, generator=of_discriminators, progress=progress
            )

        def wrapped(energy: nn.Module) -> nn.Module:
            # Not before: these hold still in the game, and the autoencoder would pay for what they tell already.
            if discriminator is not None:
                energy = DiscriminatedEnergy(energy, discriminator)
            return energy if prototypes is None else PrototypeEnergy(energy, prototypes)

        def look(iteration: int, energy: nn.Module) -> None:
            if observe is not None:
                observe(iteration, finished(wrapped(energy)))

        trained = train_energy(
            latents, unseen, settings=settings, generator=generator, progress=progress, observe=look
        )
        return wrapped(trained.energy), trained

    energies, trainings = zip(*(fit_one() for _ in range(settings.num_energies)), strict=True)
    return finished(_mean(energies)).requires_grad_(False), list(trainings)


def fit_closer_look(
    images: Float[Tensor, "n p k"], whitening: Whitening, settings: FitSettings, progress: Progress
) -> CloserLook | None:
    """Several coresets of the latents, each from a draw of its own, or None where none are asked for."""
    looks = settings.num_closer_looks if settings.num_prototypes > 0 else 0
    if looks == 0:
        return None
    progress.stage("closer look", looks)
    # One of its own: training draws the same numbers with a closer look and without.
    generator = torch.Generator().manual_seed(settings.seed)
    coresets = []
    for _ in range(looks):
        # Of all patches: the rarest among good ones are what good parts would be rejected for.
        coresets.append(
            _draw_coreset(
                images,
                whitening,
                settings.closer_prototypes,
                generator,
                most_candidates=MOST_PATCHES,
                most_measured=MOST_MEASURED_CLOSER,
            )
        )
        progress.advance()
    return CloserLook.of(whitening.deviations(), coresets, share=settings.closer_share)


def add_parts(
    expert: Expert, parts: Float16[Tensor, "n p c"], *, num_fitted: int, settings: FitSettings
) -> Expert:
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
        drawn = torch.randperm(len(patches), generator=generator)[:MOST_CANDIDATES]
        candidates = expert.whitening(patches[drawn].float()) * stretch
        chosen = greedy_coreset(candidates, max(1, count), generator, beside=own, thinned=True)
        added.append(candidates[chosen])
    return Expert(expert.whitening, expert.energy, look.extended(added)).eval().requires_grad_(False)


def choose_prototypes(
    images: Float[Tensor, "n p k"], whitening: Whitening, settings: FitSettings, generator: torch.Generator
) -> Prototypes:
    """A coreset of the latents, stretched back to the features they come from.

    Whitened, noise has as much to say of what is near as anything. Radii are of the fitted images too: the parts held
    out for the threshold must not have shaped what judges them.
    """
    coreset = _draw_coreset(
        images,
        whitening,
        settings.num_prototypes,
        generator,
        most_candidates=MOST_CANDIDATES,
        most_measured=MOST_MEASURED,
    )
    return Prototypes(whitening.deviations(), coreset, settings.prototype_directions)


def _draw_coreset(
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
    return Coreset(points, usual_distances(points, chosen // images.shape[1], measurable))


def _mean(energies: Sequence[nn.Module]) -> nn.Module:
    return energies[0] if len(energies) == 1 else MeanEnergy(energies)


def _whiten(whitening: Whitening, patches: Float16[Tensor, "n c"], latents: Float[Tensor, "n k"]) -> None:
    """Write the patches' latents where they belong, without a second copy of them all."""
    for chunk, target in zip(patches.split(CHUNK), latents.split(CHUNK), strict=True):
        target.copy_(whitening(chunk.float()))
