"""The convolutional networks: shapes, their start, and training with them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from energyad.dxmi import DxMISettings, DxMITrainer, GaussianSampler, NoiseSchedule
from energyad.dxmi.convolutional import ConvEnergy, ConvValue, TimeUNet
from energyad.dxmi.diagnosis import chain_objective
from energyad.dxmi.learner import adam, minimize
from energyad.dxmi.objectives import denoising_loss, energy_loss
from energyad.dxmi.parametrisations import EDMVelocity, StartTimeVelocity
from energyad.dxmi.pretrain import pretrain_denoiser

from .players import Parabola, seeded

SIZES = [(1, 14, 14), (3, 8, 8), (2, 5, 9), (1, 2, 3)]


def bars(n: int = 200, size: int = 6) -> Tensor:
    """Images of -1 with one row of 1."""
    images = torch.full((n, 1, size, size), -1.0)
    images[torch.arange(n), 0, torch.randint(size, (n,), generator=seeded())] = 1.0
    return images


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("num_times", [1, 2])
def test_a_velocity_has_the_shape_of_its_images_and_is_zero_at_first(size: tuple[int, ...], num_times: int):
    network = TimeUNet(size[0], (8, 16, 24), num_times=num_times, generator=seeded())
    x = torch.randn(4, *size, generator=seeded(1))
    assert torch.equal(network(x, torch.rand(4, num_times, generator=seeded(2))), torch.zeros_like(x))


@pytest.mark.parametrize("size", SIZES)
def test_energy_and_value_are_a_number_an_image_and_zero_at_first(size: tuple[int, ...]):
    x, times = torch.randn(4, *size, generator=seeded()), torch.rand(4, 1, generator=seeded(1))
    assert torch.equal(ConvEnergy(size[0], (4, 6), generator=seeded())(x), torch.zeros(4))
    assert torch.equal(ConvValue(size[0], (4, 6), generator=seeded())(x, times), torch.zeros(4))


def test_weights_follow_the_generator_alone():
    networks = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        generator = seeded()
        unet = TimeUNet(1, (8, 16), num_times=1, generator=generator)
        networks.append([unet, ConvValue(1, (4, 6), generator=generator)])
    for first, second in zip(*networks, strict=True):
        for name, weight in first.state_dict().items():
            assert torch.equal(weight, second.state_dict()[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("edm", [False, True])
def test_pretraining_lowers_the_denoising_loss_and_depends_on_the_time(edm: bool):
    data, generator = bars(), seeded()
    network = TimeUNet(1, (8, 16), num_times=1, generator=generator)
    schedule = NoiseSchedule.karras(10, sigma_min=0.1, sigma_max=5.0) if edm else NoiseSchedule.cosine(10)
    velocity = EDMVelocity(network, schedule, data_deviation=0.7) if edm else StartTimeVelocity(network)
    sampler = GaussianSampler(velocity, schedule)

    def loss() -> float:
        noisy = schedule.noise(data, 5, seeded(3))
        times = torch.tensor([[0.5, 0.6]]).expand(len(data), 2)
        alpha_bars = torch.full((len(data),), schedule.alpha_bars[5])
        with torch.no_grad():
            return denoising_loss(sampler.network(noisy, times), data, noisy, alpha_bars).item()

    before = loss()
    pretrain_denoiser(sampler, data, iterations=30, batch_size=32, learning_rate=1e-2, generator=generator)
    assert loss() < 0.8 * before
    with torch.no_grad():
        early, late = (network(data[:8], torch.full((8, 1), time)) for time in (0.1, 0.9))
    assert not torch.allclose(early, late, atol=1e-3)


@pytest.mark.slow
def test_a_sampler_of_images_lowers_its_objective_against_a_held_energy():
    data, generator = bars(size=4), seeded()
    sampler = GaussianSampler(TimeUNet(1, (8, 8), num_times=2, generator=generator), NoiseSchedule.cosine(3))
    trainer = DxMITrainer(
        energy=Parabola(curvature=0.2, centre=0.5).requires_grad_(False),
        data=data,
        settings=DxMISettings(num_steps=3, batch_size=32, sampler_lr=1e-2),
        generator=generator,
        sampler=sampler,
        value=ConvValue(1, (8,), generator=generator),
    )
    before = chain_objective(trainer, sampler, chains=200)
    for _ in range(20):
        trainer.update_sampler_and_value(trainer.trajectory(32, generator=generator))
    assert chain_objective(trainer, sampler, chains=200) < 0.9 * before


def test_an_energy_of_images_falls_on_data_and_rises_on_noise():
    data, energy = bars(size=5), ConvEnergy(1, (8, 8), generator=seeded())
    noise, optimizer = torch.randn(len(data), 1, 5, 5, generator=seeded(1)), adam(energy.parameters(), 1e-2)
    for _ in range(20):
        minimize(optimizer, energy_loss(energy(data), energy(noise), regularization=1.0))
    with torch.no_grad():
        assert energy(data).mean() < -0.2 and energy(noise).mean() > 0.2
