"""From patches of good parts to what judges them: whitening, prototypes, energy."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float16
from torch import Tensor, nn

from energyad.coreset import greedy_coreset, usual_distances
from energyad.energy import MeanEnergy, PrototypeEnergy, Prototypes
from energyad.experts import Expert
from energyad.features_store import release
from energyad.latents import Whitening, fit_whitening
from energyad.progress import Progress
from energyad.settings import FitSettings
from energyad.training import TrainedEnergy, train_energy

MOST_PATCHES = 1_000_000  # of each kind, in training: 0.7 GB as latents
MOST_CANDIDATES = 100_000  # latents that prototypes are chosen from
MOST_MEASURED = 500  # images whose patches give the radii
CHUNK = 65536
RELEASED_EVERY = 500  # images: 0.14 GB of pages


def gather_patches(
    features: Float16[np.ndarray, "n rows g c"], images: Sequence[int], *, generator: torch.Generator
) -> Float16[Tensor, "n p c"]:
    """All patches of these images, or as many of each as make MOST_PATCHES. Read in order: they may lie on a disk."""
    per_image = int(np.prod(features.shape[1:3]))
    share = MOST_PATCHES // max(1, len(images))
    if share >= per_image:
        return torch.from_numpy(features[list(images)].reshape(len(images), per_image, features.shape[-1]))
    gathered = torch.empty(len(images), share, features.shape[-1], dtype=torch.float16)
    for place, image in enumerate(images):
        drawn = torch.randperm(per_image, generator=generator)[:share].numpy()
        patches = features[image].reshape(per_image, -1)[drawn]
        gathered[place] = torch.from_numpy(patches)
        if place % RELEASED_EVERY == 0:
            release(features)
    return gathered


def fit_expert(
    images: Float16[Tensor, "n p c"],
    relit_images: Float16[Tensor, "r p2 c2"],
    held_out: Float16[Tensor, "m p3 c"],
    settings: FitSettings,
    generator: torch.Generator,
    progress: Progress,
    observe: Callable[[int, Expert], None] | None = None,
) -> tuple[Expert, list[TrainedEnergy]]:
    """Fit what judges patches, on those of each image; also how each energy's training went.

    The latents' axes are those of the patches under their own light; but a few images hardly vary in most directions,
    and the slightest change of light would then lie far outside. observe: called with DxMI's iteration and the expert
    of that time, of each energy in turn.
    """
    patches, relit = images.flatten(0, 1), relit_images.flatten(0, 1)
    seen = torch.cat([patches, relit]) if len(relit) > len(patches) else patches
    whitening = fit_whitening(seen, num_latents=settings.num_latents)
    latents = torch.empty(len(patches) + len(relit), whitening.projection.shape[1])
    _whiten(whitening, patches, latents[: len(patches)])
    _whiten(whitening, relit, latents[len(patches) :])
    own_light = latents[: len(patches)].view(*images.shape[:2], -1)
    unseen = whitening(held_out.flatten(0, 1).float())

    def fit_one() -> tuple[nn.Module, TrainedEnergy]:
        prototypes = None
        if settings.num_prototypes > 0:
            progress.stage("prototypes", settings.num_prototypes)
            prototypes = choose_prototypes(own_light, whitening, settings, generator)
            progress.advance(len(prototypes.points))

        def wrapped(energy: nn.Module) -> nn.Module:
            # Not before: prototypes hold still in the game, and the autoencoder would pay for what they tell already.
            return energy if prototypes is None else PrototypeEnergy(energy, prototypes)

        def look(iteration: int, energy: nn.Module) -> None:
            if observe is not None:
                observe(iteration, Expert(whitening, wrapped(energy)))

        trained = train_energy(
            latents, unseen, settings=settings, generator=generator, progress=progress, observe=look
        )
        return wrapped(trained.energy), trained

    energies, trainings = zip(*(fit_one() for _ in range(settings.num_energies)), strict=True)
    return Expert(whitening, _mean(energies)).eval().requires_grad_(False), list(trainings)


def renew_prototypes(
    expert: Expert,
    images: Float16[Tensor, "n p c"],
    settings: FitSettings,
    generator: torch.Generator,
    progress: Progress,
) -> Expert:
    """The same expert with prototypes of these images, which may be more than it was trained on."""
    whitening = expert.whitening
    latents = torch.empty(*images.shape[:2], whitening.projection.shape[1])
    _whiten(whitening, images.flatten(0, 1), latents.flatten(0, 1))

    def chosen() -> Prototypes:
        prototypes = choose_prototypes(latents, whitening, settings, generator)
        progress.advance(len(prototypes.points))
        return prototypes

    progress.stage("all parts", settings.num_energies * settings.num_prototypes)
    several = expert.energy.energies if isinstance(expert.energy, MeanEnergy) else [expert.energy]
    energies = [PrototypeEnergy(e.energy, chosen()) for e in several if isinstance(e, PrototypeEnergy)]
    return copy.deepcopy(Expert(whitening, _mean(energies))).eval().requires_grad_(False)


def choose_prototypes(
    images: Float[Tensor, "n p k"], whitening: Whitening, settings: FitSettings, generator: torch.Generator
) -> Prototypes:
    """A coreset of the latents, stretched back to the features they come from.

    Whitened, noise has as much to say of what is near as anything. Radii are of the fitted images too: the parts held
    out for the threshold must not have shaped what judges them.
    """
    stretch, per_image = whitening.deviations(), images.shape[1]
    drawn = torch.randperm(len(images) * per_image, generator=generator)[:MOST_CANDIDATES]
    candidates = images[drawn // per_image, drawn % per_image] * stretch
    chosen = greedy_coreset(candidates, settings.num_prototypes, generator)
    measured = range(0, len(images), -(-len(images) // MOST_MEASURED))
    measurable = ((place, images[place] * stretch) for place in measured)
    radii = usual_distances(candidates[chosen], drawn[chosen] // per_image, measurable)
    return Prototypes(stretch, candidates[chosen], radii, settings.prototype_directions)


def _mean(energies: Sequence[nn.Module]) -> nn.Module:
    return energies[0] if len(energies) == 1 else MeanEnergy(energies)


def _whiten(whitening: Whitening, patches: Float16[Tensor, "n c"], latents: Float[Tensor, "n k"]) -> None:
    """Write the patches' latents where they belong, without a second copy of them all."""
    for chunk, target in zip(patches.split(CHUNK), latents.split(CHUNK), strict=True):
        target.copy_(whitening(chunk.float()))
