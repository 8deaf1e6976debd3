from __future__ import annotations

import pytest
import torch

from energyad.energy.memory_bank import POINTS_PER_PRODUCT, MemoryBank, MemoryBankEnergy
from energyad.energy.networks import AutoencoderEnergy
from energyad.fitting.training import (
    EarlyStopping,
    TrainedEnergy,
    pretrain_autoencoder,
    set_scale,
    train_energy,
)
from energyad.progress import NullProgress
from energyad.settings import FitSettings


@pytest.fixture(scope="module")
def good() -> torch.Tensor:
    """Points near a curved sheet of 3 dimensions in 12."""
    generator = torch.Generator().manual_seed(0)
    angles = torch.rand(4000, 3, generator=generator) * 3
    sheet = torch.cat([angles.sin(), angles.cos(), (2 * angles).sin(), angles - 1.5], dim=1)
    return sheet + 0.05 * torch.randn(4000, 12, generator=generator)


SETTINGS = FitSettings().with_values(
    {
        "energy.width": 32,
        "energy.bottleneck": 4,
        "energy.pretrain_steps": 300,
        "dxmi.iterations": 100,
        "dxmi.pretrain_iterations": 10,
    }
)


def test_energies_are_one_a_latent_whatever_the_batch_axes() -> None:
    energy = AutoencoderEnergy(5, width=8, bottleneck=2)
    z = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(energy(z).flatten(), energy(z.flatten(0, 2)))


def test_energies_are_positive_and_scale_with_the_learned_factor() -> None:
    energy = AutoencoderEnergy(5, width=8, bottleneck=2)
    z = torch.randn(50, 5)
    before = energy(z)
    with torch.no_grad():
        energy.log_scale += 1.0
    assert bool((before > 0).all())
    torch.testing.assert_close(energy(z), before * torch.e)


def test_the_energy_of_points_far_from_everything_stays_bounded() -> None:
    energy = AutoencoderEnergy(5, width=8, bottleneck=2, generator=torch.Generator().manual_seed(0))
    far = (
        torch.randn(50, 5, generator=torch.Generator().manual_seed(1))
        * torch.tensor([[1e2], [1e4]])[:, :, None]
    )
    with torch.no_grad():
        near, farther = energy(far)
    assert float((farther / near - 1).abs().max()) < 0.5


def test_the_same_generator_gives_the_same_weights() -> None:
    first, second = (
        AutoencoderEnergy(5, width=8, bottleneck=2, generator=torch.Generator().manual_seed(3))
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.fixture(scope="module")
def trained(good: torch.Tensor) -> TrainedEnergy:
    """Trained on the first three quarters of the points; the others ended the training."""
    generator = torch.Generator().manual_seed(0)
    return train_energy(
        good[:3000], good[3000:], settings=SETTINGS, generator=generator, progress=NullProgress()
    )


@pytest.mark.slow
def test_energy_rises_away_from_the_data(good: torch.Tensor, trained: TrainedEnergy) -> None:
    noise = torch.randn(good[3000:].shape, generator=torch.Generator().manual_seed(1))
    off = good[3000:] + 0.5 * noise
    with torch.no_grad():
        near, far = trained.energy(good[3000:]), trained.energy(off)
    assert float(far.mean()) > 1.5 * float(near.mean())
    assert float((far > near.median()).float().mean()) > 0.8


def test_warm_up_lowers_the_reconstruction_error(good: torch.Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    energy = AutoencoderEnergy(12, width=32, bottleneck=4, generator=generator)
    with torch.no_grad():
        before = float((good - energy.reconstruct(good)).square().mean())
    energy = pretrain_autoencoder(
        energy, good, good[:500], settings=SETTINGS, generator=generator, progress=NullProgress()
    )
    with torch.no_grad():
        assert float((good - energy.reconstruct(good)).square().mean()) < 0.5 * before


def test_dxmi_begins_with_energies_of_the_stated_size(good: torch.Tensor) -> None:
    energy = AutoencoderEnergy(12, width=32, bottleneck=4, generator=torch.Generator().manual_seed(0))
    set_scale(energy, good, mean_energy=0.12)
    with torch.no_grad():
        assert float(energy(good).mean()) == pytest.approx(0.12, rel=1e-3)


@pytest.mark.slow
def test_the_history_shows_the_game(trained: TrainedEnergy) -> None:
    assert [record.iteration for record in trained.history] == [50, 100]
    assert trained.history[-1].energy_samples > trained.history[-1].energy_data


@pytest.mark.slow
def test_few_patches_are_not_learned_by_heart(good: torch.Tensor) -> None:
    long = SETTINGS.with_values(
        {
            "energy.pretrain_steps": 1500,
            "energy.pretrain_lr": 1e-2,
            "energy.width": 64,
            "energy.bottleneck": 12,
        }
    )
    few, unseen = good[:40], good[1000:2000]

    def unseen_energy(watched: torch.Tensor) -> float:
        generator = torch.Generator().manual_seed(0)
        energy = AutoencoderEnergy(12, width=64, bottleneck=12, generator=generator)
        energy = pretrain_autoencoder(
            energy, few, watched, settings=long, generator=generator, progress=NullProgress()
        )
        with torch.no_grad():
            return float(energy(unseen).mean())

    assert unseen_energy(good[500:1000]) < 0.9 * unseen_energy(few)


@pytest.mark.slow
def test_a_higher_power_reproduces_rare_patches_better(good: torch.Tensor) -> None:
    rare = good[:40] @ torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(1)))[0]
    latents = torch.cat([good[40:], rare])

    def error_of_rare(power: float) -> float:
        settings = SETTINGS.with_values({"energy.pretrain_steps": 1500, "energy.pretrain_power": power})
        generator = torch.Generator().manual_seed(0)
        energy = AutoencoderEnergy(12, width=32, bottleneck=4, generator=generator)
        energy = pretrain_autoencoder(
            energy, latents, latents, settings=settings, generator=generator, progress=NullProgress()
        )
        with torch.no_grad():
            return float((rare - energy.reconstruct(rare)).square().mean())

    assert error_of_rare(2.0) < 0.9 * error_of_rare(1.0)


@pytest.mark.parametrize("count", [30, 2 * POINTS_PER_PRODUCT + 1])
def test_the_distance_is_that_to_the_nearest_prototype(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    stretch = torch.rand(12, generator=generator) + 0.1
    points = torch.randn(count, 12, generator=generator)
    z = torch.randn(2, 3, 3, 12, generator=generator)
    radii = torch.rand(count, generator=generator) + 0.5
    autoencoder = AutoencoderEnergy(12, width=8, bottleneck=2)
    energy = MemoryBankEnergy(autoencoder, MemoryBank(points, radii), deviations=stretch, num_directions=12)
    expected = (torch.cdist((z * stretch).flatten(0, 2), points) / radii).amin(dim=1)
    torch.testing.assert_close(energy.squared_distance(z).flatten(), expected.square(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(energy(z), energy.learned(z) * energy.squared_distance(z))


def test_directions_beyond_the_leading_ones_count_through_their_length() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(30, 12, generator=generator)
    z = torch.randn(50, 12, generator=generator)
    autoencoder, bank = AutoencoderEnergy(12, width=8, bottleneck=2), MemoryBank(points, torch.ones(30))
    energy = MemoryBankEnergy(autoencoder, bank, deviations=torch.ones(12), num_directions=8)
    leading = torch.cdist(z[:, :8], points[:, :8]).square()
    rest = z[:, 8:].square().sum(dim=1)[:, None] + points[:, 8:].square().sum(dim=1)
    torch.testing.assert_close(energy.squared_distance(z), (leading + rest).amin(dim=1), rtol=1e-4, atol=1e-4)


def test_a_prototype_itself_has_next_to_no_energy_and_a_gradient() -> None:
    points = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    autoencoder, bank = AutoencoderEnergy(12, width=8, bottleneck=2), MemoryBank(points, torch.ones(5))
    energy = MemoryBankEnergy(autoencoder, bank, deviations=torch.ones(12), num_directions=12)
    z = points.clone().requires_grad_()
    distance = energy.squared_distance(z)
    distance.sum().backward()
    assert float(distance.min().detach()) >= 0 and float(distance.max().detach()) < 1e-4
    assert z.grad is not None and bool(torch.isfinite(z.grad).all())


def test_training_goes_on_while_unseen_parts_gain(good: torch.Tensor) -> None:
    stopping = EarlyStopping(good, patience=2)
    energy = AutoencoderEnergy(12, width=8, bottleneck=2, generator=torch.Generator().manual_seed(0))
    kept = []
    for scale in (3.0, 2.0, 2.5, 1.0, 1.5, 1.2):
        with torch.no_grad():
            energy.log_scale.fill_(scale)
        kept.append(stopping.step(energy))
    assert kept == [True, True, True, True, True, False]
    assert stopping.best is not None and float(stopping.best.log_scale.detach()) == 1.0


def test_with_synthetic_defects_a_smaller_scale_is_no_better_and_a_better_order_is() -> None:
    good, defects = torch.zeros(50, 2), torch.ones(50, 2)
    stopping = EarlyStopping(good, patience=2, synthetic=defects)
    energies = [SignedSum(1.0), SignedSum(0.01), SignedSum(-1.0)]
    assert [stopping.step(energy) for energy in (energies[2], energies[0], energies[1])] == [True, True, True]
    assert stopping.best is not None and stopping.best.sign == 1.0


class SignedSum(torch.nn.Module):
    def __init__(self, sign: float) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.sign * z.sum(dim=1)
