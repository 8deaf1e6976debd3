"""Laws of the head's fit: what its prototypes are of, and what several energies are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from energyad.energy import AutoencoderEnergy, MeanEnergy, PrototypeEnergy, Prototypes
from energyad.features import Grid
from energyad.heads import choose_prototypes, fit_head, renew_prototypes
from energyad.latents import fit_whitening
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
    parts = (patches(5, 0), patches(5, 1), patches(2, 2))
    return fit_head(*parts, ["bolt"] * 5, GRID, settings, generator, Silent())


def distances(head: EnergyHead, images: torch.Tensor) -> torch.Tensor:
    assert isinstance(head.energy, PrototypeEnergy)
    return head.energy.squared_distance(head.whitening(images.float()))


def test_renewed_prototypes_are_of_the_images_given_and_nothing_else_changes() -> None:
    head, _ = fit(SETTINGS)
    fitted, others = patches(5, 0), patches(2, 2)
    assert float(distances(head, fitted).max()) < 1e-3
    assert float(distances(head, others).min()) > 1e-3
    both = torch.cat([fitted, others])
    renewed = renew_prototypes(head, both, ["bolt"] * 7, SETTINGS, torch.Generator().manual_seed(1), Silent())
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
        again = torch.Generator().manual_seed(1)
        head = renew_prototypes(head, patches(7, 0), ["bolt"] * 7, settings, again, Silent())
    assert isinstance(head.energy, MeanEnergy)
    latents = head.whitening(patches(2, 2).float())
    each = torch.stack([energy(latents) for energy in head.energy.energies])
    assert float((each[1:] - each[0]).abs().amax(dim=(1, 2)).min()) > 1e-3
    torch.testing.assert_close(head.energy(latents), each.mean(dim=0))


def test_each_category_has_prototypes_of_its_own_and_units_of_its_own() -> None:
    varied, even = 20 * patches(6, 0).float(), 0.1 * patches(6, 1).float() + 3
    images = torch.stack([varied, even], dim=1).flatten(0, 1)  # in turns
    categories = ["varied", "even"] * 6
    whitening = fit_whitening(images.flatten(0, 1).half(), num_latents=CHANNELS)
    settings = replace(SETTINGS, num_prototypes=30)

    def chosen(names: list[str]) -> Prototypes:
        return choose_prototypes(
            whitening(images), names, whitening, settings, torch.Generator().manual_seed(0)
        )

    def near_even(prototypes: Prototypes) -> torch.Tensor:
        own = whitening(even).flatten(0, 1) * prototypes.stretch
        return torch.cdist(prototypes.points, own).amin(dim=1) < 1e-3

    together, each = chosen(["all"] * 12), chosen(categories)
    assert int(near_even(together).sum()) < 5 and len(together.points) == 30
    of_even = near_even(each)
    assert int(of_even.sum()) == 30 and len(each.points) == 60
    assert float(each.radii[~of_even].min()) > 10 * float(each.radii[of_even].max())


def test_a_category_of_one_image_gets_the_units_of_the_others() -> None:
    images = patches(5, 0).float()
    whitening = fit_whitening(images.flatten(0, 1).half(), num_latents=CHANNELS)
    names = ["alone", *["many"] * 4]
    prototypes = choose_prototypes(whitening(images), names, whitening, SETTINGS, torch.Generator())
    alone, many = prototypes.radii.split([GRID.inner**2, 4 * GRID.inner**2])
    assert float(many.min()) < float(alone.min()) < float(many.max())
