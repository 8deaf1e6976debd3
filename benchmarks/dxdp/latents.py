"""Latents of real parts: their reconstruction energy is held, and samplers lower their objective on it."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.dxdp.gaussians import METHODS, Method, objective
from energyad.dxmi import DxMISettings, DxMITrainer
from energyad.energy.networks import AutoencoderEnergy
from energyad.energy.whitening import fit_whitening
from energyad.fitting.backbone import open_backbone
from energyad.fitting.context import FitContext
from energyad.fitting.extraction import extract
from energyad.fitting.patches import gather_patches
from energyad.fitting.training import pretrain_autoencoder, set_scale
from energyad.images.finding import find_images
from energyad.progress import NullProgress
from energyad.settings import FitSettings

MAX_IMAGES = 80
WARM_UP_STEPS = 1000
CPU_SECONDS = 20.0
"""Of training, the same for every method."""
RECORD_EVERY = 10

SETTINGS = DxMISettings(
    start="noised_data",
    num_steps=6,
    beta_start=0.01,
    beta_end=0.15,
    temperature=0.1,
    energy_lr=1e-12,  # held
    sampler_lr=1e-3,
    value_lr=2e-3,
    sampler_steps_per_iteration=1,
    batch_size=128,
    hidden_widths=(256, 256),
    pretrain_iterations=500,
    energy_bound=1e6,
)


@dataclass(frozen=True)
class HeldEnergy:
    """Latents of good patches, and their reconstruction energy."""

    latents: Float[Tensor, "n k"]
    energy: AutoencoderEnergy


def fit_held_energy(folder: Path) -> HeldEnergy:
    """Whiten the patches of some images, and train an autoencoder on them as a fit begins."""
    images = find_images([folder])
    images = images[:: -(-len(images) // MAX_IMAGES)]
    settings, progress = FitSettings(), NullProgress()
    settings = replace(settings, energy=replace(settings.energy, pretrain_steps=WARM_UP_STEPS))
    backbone = open_backbone(images, settings, weights_file=None, threads=1, skip_bad=False)
    extractor = backbone.extractor
    context = FitContext(
        settings=settings, session=backbone.session, grid=extractor.grid, scales=extractor.scales
    )
    features = extract(images, context)
    generator = context.generator()
    patches = gather_patches(
        features.features, range(len(images)), scale=context.scales[0], generator=generator
    )
    features.discard()
    flat = patches.flatten(0, 1)
    whitening = fit_whitening(flat, latent_dim=settings.energy.latent_dim)
    latents = torch.cat([whitening(chunk.float()) for chunk in flat.split(65536)])
    energy = AutoencoderEnergy(
        latents.shape[1],
        width=settings.energy.width,
        bottleneck=settings.energy.bottleneck,
        generator=generator,
    )
    held_out = latents[:: max(1, len(latents) // 4096)]
    energy = pretrain_autoencoder(
        energy, latents, held_out, settings=settings, generator=generator, progress=progress
    )
    set_scale(energy, latents, mean_energy=settings.energy.initial_energy)
    return HeldEnergy(latents, energy)


def rows(folder: Path, seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
    """One row a seed and method; of a seed, all methods start from one pretrained sampler."""
    held = fit_held_energy(folder)
    for seed in seeds:
        start = trainer_of(held, "dxdp", seed)
        start.pretrain()
        for method in METHODS:
            trainer = trainer_of(held, method, seed)
            trainer.sampler.load_state_dict(start.sampler.state_dict())
            trainer.pretrained = True
            yield {"part": "latents", "images": folder.parts[-3], "method": method, "seed": seed} | measure(
                trainer
            )


def trainer_of(held: HeldEnergy, method: Method, seed: int) -> DxMITrainer:
    """A trainer of these latents, the energy held."""
    settings = SETTINGS
    if method == "through_time":
        settings = replace(settings, sampler_update="through_time")
    if method == "values_alone":
        settings = replace(settings, value_gradient_weight=0.0)
    return DxMITrainer(
        energy=copy.deepcopy(held.energy),
        data=held.latents,
        settings=settings,
        generator=torch.Generator().manual_seed(seed),
    )


def measure(trainer: DxMITrainer) -> dict[str, Any]:
    """Train for CPU_SECONDS and measure; measuring does not count."""
    before, highest = objective(trainer, chains=2000), objective(trainer, chains=500)
    few_before, spent = highest, 0.0
    while spent < CPU_SECONDS:
        mark = time.process_time()
        list(trainer.run(RECORD_EVERY, record_every=RECORD_EVERY))
        spent += time.process_time() - mark
        highest = max(highest, objective(trainer, chains=500))
    samples = trainer.sample(2000, generator=torch.Generator().manual_seed(3_000_000))
    with torch.no_grad():
        energy = float(trainer.energy(samples).mean())
    return {
        "iterations": trainer.iteration,
        "cpu_seconds": spent,
        "objective_before": before,
        "highest_ratio": highest / few_before,
        "objective": objective(trainer, chains=2000),
        "energy_of_samples": energy,
        "mean_square": float(samples.square().mean()),
    }
