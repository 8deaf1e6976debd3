"""Laws of the discriminator: what it tells apart, in which unit, and how far it may go."""

from __future__ import annotations

import math

import pytest
import torch

from energyad.energy.discriminator import MAX_LOG_ODDS, Discriminator, DiscriminatorEnergy
from energyad.energy.latent_energy import LatentEnergy
from energyad.energy.patch_energy import LOCALISATION_ODDS, PatchEnergy
from energyad.energy.whitening import Whitening
from energyad.fitting.training import train_discriminator
from energyad.progress import NullProgress
from energyad.settings import FitSettings

K = 8
SETTINGS = FitSettings().with_values(
    {"synthetic_defects.discriminator_width": 16, "synthetic_defects.discriminator_iterations": 200}
)


def good(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, K, generator=torch.Generator().manual_seed(seed))


def planted(count: int, seed: int) -> torch.Tensor:
    """As far from the middle as good ones, in a direction of their own."""
    moved = good(count, seed)
    moved[:, 0] = 3 + moved[:, 0] / 3
    return moved


def trained(settings: FitSettings = SETTINGS, seed: int = 0) -> Discriminator:
    generator = torch.Generator().manual_seed(seed)
    parts = good(2000, 1), planted(500, 2), good(1000, 3)
    found = train_discriminator(*parts, settings=settings, generator=generator, progress=NullProgress())
    return found.requires_grad_(False)


class Ones(LatentEnergy):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(z[..., 0])


def test_patches_like_planted_ones_have_the_higher_log_odds() -> None:
    discriminator = trained()
    assert float(discriminator(planted(500, 5)).quantile(0.05)) > float(
        discriminator(good(500, 4)).quantile(0.95)
    )


@pytest.mark.parametrize("strength", [0.1, 0.4])
def test_held_out_good_patches_set_the_unit(strength: float) -> None:
    odds = trained(SETTINGS.with_values({"synthetic_defects.discriminator_strength": strength}))(
        good(1000, 3)
    )
    assert float(odds.mean()) == pytest.approx(0, abs=1e-4)
    assert float(odds.std()) == pytest.approx(strength, rel=1e-4)


def test_at_strength_0_no_energy_changes() -> None:
    energy = DiscriminatorEnergy(
        Ones(), trained(SETTINGS.with_values({"synthetic_defects.discriminator_strength": 0.0}))
    )
    assert energy(planted(100, 5)).tolist() == pytest.approx([1.0] * 100)


@pytest.mark.slow
def test_the_same_generator_gives_the_same_discriminator_and_another_another() -> None:
    one, same, other = (trained(seed=seed).first.weight for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_an_energy_is_raised_by_the_odds_and_within_bounds() -> None:
    discriminator = trained()
    energy = DiscriminatorEnergy(Ones(), discriminator)
    z = torch.cat([good(200, 4), planted(200, 5)]).view(20, 20, K)
    odds = discriminator(z)
    within = odds.abs() < MAX_LOG_ODDS
    assert int(within.sum()) > 0 and torch.allclose(energy(z)[within], odds[within].exp())
    far = energy(1e4 * z)
    assert float(far.max()) == pytest.approx(math.exp(MAX_LOG_ODDS))
    assert float(far.min()) >= math.exp(-MAX_LOG_ODDS) - 1e-6


def test_in_energies_that_localise_the_odds_count_less() -> None:
    whitening = Whitening(K, K)
    whitening.projection.copy_(torch.eye(K))
    energies = PatchEnergy(whitening, DiscriminatorEnergy(Ones(), trained()))(planted(100, 5), 100)
    torch.testing.assert_close(energies.localisation, energies.detection**LOCALISATION_ODDS)
    assert float(energies.detection.mean()) > 1.01


def test_dropout_is_drawn_from_the_given_generator_alone() -> None:
    discriminator, z = trained(), good(50, 4)
    one, same, other = (discriminator(z, dropout=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(discriminator(z), discriminator(z))
