"""The memory banks of a fit: of the first stage, of reranking, and the points that held-out parts add."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float16
from torch import Tensor

from energyad.energy.coreset import fit_local_scales, greedy_coreset
from energyad.energy.memory_bank import MemoryBank
from energyad.energy.patch_energy import CategoryEnergy, PatchEnergy
from energyad.energy.reranking import Reranker
from energyad.fitting.patches import MAX_PATCHES
from energyad.progress import Progress
from energyad.settings import FitSettings

MAX_CANDIDATES = 100_000
"""Latents that the first stage's points, and added ones, are chosen from."""

MAX_SCALE_IMAGES = 500
"""Images that the first stage's local scales are measured on."""

MAX_SCALE_IMAGES_RERANK = 125
"""Images that the local scales of each bank of the reranker are measured on."""

MAX_EXCESS = 16.0
"""Learned energy of an added point, over that of the fitted ones, that its local scale answers for at the most."""


def fit_memory_bank(
    latents: Float[Tensor, "n p k"],
    deviations: Float[Tensor, " k"],
    size: int,
    generator: torch.Generator,
    *,
    max_candidates: int = MAX_CANDIDATES,
    max_scale_images: int = MAX_SCALE_IMAGES,
) -> MemoryBank:
    """Choose a coreset of the latents and measure its local scales.

    Distances are in the units of the features: between whitened latents, noise would count as much as anything. Local
    scales are those of the fitted images too: parts held out for the threshold must not shape what scores them.

    Args:
        latents: Whitened patches of the fitted images, image by image.
        deviations: A factor for each latent that brings it to the units of the features.
        size: Points to choose.
        generator: Source of the candidates and of the coreset's projection.
        max_candidates: Patches to choose from at the most, drawn at random.
        max_scale_images: Images to measure local scales on at the most, spread evenly.
    """
    patches = latents.flatten(0, 1)
    candidates, drawn = patches, torch.arange(len(patches))
    if len(patches) > max_candidates:
        drawn = torch.randperm(len(patches), generator=generator)[:max_candidates]
        candidates = patches[drawn]
    chosen = drawn[greedy_coreset(candidates, size, generator, channel_weights=deviations, thinned=True)]
    points = patches[chosen] * deviations
    measured = range(0, len(latents), -(-len(latents) // max_scale_images))
    images = ((index, latents[index] * deviations) for index in measured)
    return MemoryBank(points, fit_local_scales(points, chosen // latents.shape[1], images))


def fit_reranker(
    latents: Float[Tensor, "n p k"],
    deviations: Float[Tensor, " k"],
    settings: FitSettings,
    progress: Progress,
) -> Reranker | None:
    """Fit the memory banks of the second stage, each from its own random draw.

    Args:
        latents: Whitened patches of the fitted images, image by image.
        deviations: A factor for each latent that brings it to the units of the features.
        settings: Number and size of the banks.
        progress: Called at each bank.

    Returns:
        None where the settings ask for no bank, or for no first stage.
    """
    options = settings.memory_bank
    if options.size == 0 or options.rerank_banks == 0:
        return None
    progress.stage("reranking", options.rerank_banks)
    # A generator of its own: training draws the same numbers with a reranker and without.
    generator = torch.Generator().manual_seed(settings.seed)
    banks = []
    for _ in range(options.rerank_banks):
        bank = fit_memory_bank(
            latents,
            deviations,
            options.rerank_bank_size,
            generator,
            max_candidates=MAX_PATCHES,  # all: good parts would be rejected for their rarest patches
            max_scale_images=MAX_SCALE_IMAGES_RERANK,
        )
        banks.append(bank)
        progress.advance()
    return Reranker.from_banks(banks, deviations=deviations, fraction=options.rerank_fraction)


def extend_memory_banks(
    energy: CategoryEnergy,
    patches: Sequence[Float16[Tensor, "n p c"]],
    *,
    num_fitted: int,
    seed: int,
    max_points: int | None = None,
    behind: Sequence[int] = (),
    widened: bool = False,
) -> CategoryEnergy:
    """Add patches of more good parts to the rerankers of all scales.

    Args:
        energy: Of one category.
        patches: Patches of the good parts, image by image, for each scale of the energy.
        num_fitted: Images that the energy was fitted on.
        seed: Of the candidates and of the coreset's projection.
        max_points: That are added to each scale's banks together; None for as many as is the parts' share.
        behind: How many points of each scale's banks stay behind the added ones; none where empty.
        widened: Whether the added points reach farther, see `extend_memory_bank`.

    Returns:
        An energy that is nowhere higher; see `extend_memory_bank`.
    """
    extended = [
        extend_memory_bank(
            of_scale,
            parts,
            num_fitted=num_fitted,
            seed=seed,
            max_points=max_points,
            behind=stay,
            widened=widened,
        )
        for of_scale, parts, stay in zip(
            energy.by_scale(), patches, behind or [0] * len(patches), strict=True
        )
    ]
    return energy.with_scales(extended)


def added_points(before: CategoryEnergy, after: CategoryEnergy) -> tuple[int, ...]:
    """Return how many points each rerank bank of each scale has more after it was extended."""
    return tuple(
        0 if old.reranker is None or new.reranker is None else new.reranker.size - old.reranker.size
        for old, new in zip(before.by_scale(), after.by_scale(), strict=True)
    )


def extend_memory_bank(
    energy: PatchEnergy,
    patches: Float16[Tensor, "n p c"],
    *,
    num_fitted: int,
    seed: int,
    max_points: int | None = None,
    behind: int = 0,
    widened: bool = False,
) -> PatchEnergy:
    """Add patches of more good parts to the reranker, as many points as is the parts' share.

    Nothing else changes, so no energy of any image grows: a threshold that holds without these parts holds with them.

    Good parts under another light, say, are unusual for the learned energy E' too, which multiplies the distance, and
    no point at any distance undoes that. `widened` lets an added point p answer for half of it (on a logarithmic
    scale): its squared local scale grows by √(E'(p) / the median E' of the fitted points).

    Args:
        energy: Of one scale.
        patches: Patches of the good parts, image by image.
        num_fitted: Images that the energy was fitted on.
        seed: Of the candidates and of the coreset's projection.
        max_points: That are added to all banks together; None for as many as is the parts' share.
        behind: How many points of each bank stay behind the added ones.
        widened: Whether the added points reach farther where the learned energy is high.

    Returns:
        A new energy; the same one where it has no reranker.
    """
    reranker = energy.reranker
    if reranker is None:
        return energy
    generator = torch.Generator().manual_seed(seed)
    count = max(1, round(reranker.size * len(patches) / num_fitted))
    if max_points is not None:
        count = min(count, max(1, max_points // reranker.num_banks))
    flat, deviations = patches.flatten(0, 1), energy.whitening.deviations()
    added = []
    for points, local_scale in zip(reranker.bank_points(), reranker.median_local_scales(), strict=True):
        drawn = torch.randperm(len(flat), generator=generator)[:MAX_CANDIDATES]
        candidates = energy.whitening(flat[drawn].float()) * deviations
        chosen = candidates[greedy_coreset(candidates, count, generator, selected=points, thinned=True)]
        wider = _widening(energy, points, chosen) if widened else torch.ones(len(chosen))
        added.append(MemoryBank(chosen, local_scale * wider))
    extended = PatchEnergy(energy.whitening, energy.latent_energy, reranker.extended(added, behind=behind))
    return extended.eval().requires_grad_(False)


@torch.no_grad()
def _widening(
    energy: PatchEnergy, fitted: Float[Tensor, "m k"], added: Float[Tensor, "n k"]
) -> Float[Tensor, " n"]:
    """Factors of the local scales of added points; see `extend_memory_bank`."""
    deviations = energy.whitening.deviations()
    usual, unusual = (energy.latent_energy.terms(points / deviations).learned for points in (fitted, added))
    return (unusual / usual.median()).clamp(1.0, MAX_EXCESS) ** 0.25
