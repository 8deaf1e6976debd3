"""Laws of the head's fit: what its prototypes are of, and what several energies are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from energyad.energy import AutoencoderEnergy, MeanEnergy, PrototypeEnergy
from energyad.features import Grid
from energyad.heads import fit_head, renew_prototypes
from energyad.progress import Silent
from energyad.scorer import EnergyHead
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


def fit(settings: FitSettings) -> tuple[EnergyHead, list[TrainedEnergy]]:
    generator = torch.Generator().manual_seed(0)
    return fit_head(patches(5, 0), patches(5, 1), patches(2, 2), GRID, settings, generator, Silent())


def distances(head: EnergyHead, images: torch.Tensor) -> torch.Tensor:
    assert isinstance(head.energy, PrototypeEnergy)
    return head.energy.squared_distance(head.whitening(images.float()))


def test_renewed_prototypes_are_of_the_images_given_and_nothing_else_changes() -> None:
    head, _ = fit(SETTINGS)
    fitted, others = patches(5, 0), patches(2, 2)
    assert float(distances(head, fitted).max()) < 1e-3
    assert float(distances(head, others).min()) > 1e-3
    both = torch.cat([fitted, others])
    renewed = renew_prototypes(head, both, SETTINGS, torch.Generator().manual_seed(1), Silent())
    assert float(distances(renewed, both).max()) < 1e-3
    assert float(distances(head, others).min()) > 1e-3  # the first one is left as it was
    latents = head.whitening(others.float())
    assert isinstance(head.energy, PrototypeEnergy) and isinstance(renewed.energy, PrototypeEnergy)
    torch.testing.assert_close(renewed.energy.energy(latents), head.energy.energy(latents), rtol=0, atol=0)


def test_no_prototypes_where_none_are_asked() -> None:
    head, _ = fit(replace(SETTINGS, num_prototypes=0))
    assert isinstance(head.energy, AutoencoderEnergy)


@pytest.mark.parametrize("renew", [False, True])
def test_several_energies_differ_and_the_head_has_their_mean(renew: bool) -> None:
    settings = replace(SETTINGS, num_energies=3, num_prototypes=20)
    head, trainings = fit(settings)
    assert len(trainings) == 3
    if renew:
        head = renew_prototypes(head, patches(7, 0), settings, torch.Generator().manual_seed(1), Silent())
    assert isinstance(head.energy, MeanEnergy)
    latents = head.whitening(patches(2, 2).float())
    each = torch.stack([energy(latents) for energy in head.energy.energies])
    assert float((each[1:] - each[0]).abs().amax(dim=(1, 2)).min()) > 1e-3
    torch.testing.assert_close(head.energy(latents), each.mean(dim=0))
