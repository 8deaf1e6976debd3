"""Laws of the expert's fit: what its prototypes are of, and what several energies are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from energyad.energy import AutoencoderEnergy, MeanEnergy, PrototypeEnergy
from energyad.experts import Expert
from energyad.features import Grid
from energyad.heads import fit_expert, renew_prototypes
from energyad.progress import Silent
from energyad.settings import FitSettings
from energyad.training import TrainedEnergy

CHANNELS = 6
GRID = Grid(image_size=32, size=4, margin=0)
SETTINGS = FitSettings(
    num_latents=CHANNELS,
    energy_width=8,
    bottleneck=2,
    num_prototypes=1000,  # as many as there are patches
    prototype_directions=CHANNELS,
    warmup_iterations=50,
    iterations=0,
)


def patches(images: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, GRID.inner**2, CHANNELS, generator=generator).half()


def fit(settings: FitSettings) -> tuple[Expert, list[TrainedEnergy]]:
    generator = torch.Generator().manual_seed(0)
    parts = (patches(5, 0), patches(5, 1), patches(2, 2))
    return fit_expert(*parts, settings, generator, Silent())


def distances(expert: Expert, images: torch.Tensor) -> torch.Tensor:
    assert isinstance(expert.energy, PrototypeEnergy)
    return expert.energy.squared_distance(expert.whitening(images.float()))


def test_renewed_prototypes_are_of_the_images_given_and_nothing_else_changes() -> None:
    expert, _ = fit(SETTINGS)
    fitted, others = patches(5, 0), patches(2, 2)
    assert float(distances(expert, fitted).max()) < 1e-3
    assert float(distances(expert, others).min()) > 1e-3
    both = torch.cat([fitted, others])
    renewed = renew_prototypes(expert, both, SETTINGS, torch.Generator().manual_seed(1), Silent())
    assert float(distances(renewed, both).max()) < 1e-3
    assert float(distances(expert, others).min()) > 1e-3  # the first one is left as it was
    latents = expert.whitening(others.float())
    assert isinstance(expert.energy, PrototypeEnergy) and isinstance(renewed.energy, PrototypeEnergy)
    torch.testing.assert_close(renewed.energy.energy(latents), expert.energy.energy(latents), rtol=0, atol=0)


def test_no_prototypes_where_none_are_asked() -> None:
    expert, _ = fit(replace(SETTINGS, num_prototypes=0))
    assert isinstance(expert.energy, AutoencoderEnergy)


@pytest.mark.parametrize("renew", [False, True])
def test_several_energies_differ_and_the_expert_has_their_mean(renew: bool) -> None:
    settings = replace(SETTINGS, num_energies=3, num_prototypes=20)
    expert, trainings = fit(settings)
    assert len(trainings) == 3
    if renew:
        again = torch.Generator().manual_seed(1)
        expert = renew_prototypes(expert, patches(7, 0), settings, again, Silent())
    assert isinstance(expert.energy, MeanEnergy)
    latents = expert.whitening(patches(2, 2).float())
    each = torch.stack([energy(latents) for energy in expert.energy.energies])
    assert float((each[1:] - each[0]).abs().amax(dim=(1, 2)).min()) > 1e-3
    torch.testing.assert_close(expert.energy(latents), each.mean(dim=0))
