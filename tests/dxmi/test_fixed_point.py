"""On one-dimensional Gaussians the optimum is known in closed form."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from energyad.dxmi import DxMISettings, DxMITrainer

from .players import Parabola, seeded


def one_dimensional(
    temperature: float, *, energy_lr: float, sampler_lr: float = 5e-3, **options: Any
) -> DxMITrainer:
    """Data N(1, 0.5^2) against an energy that is a parabola."""
    settings = DxMISettings(
        num_steps=2,
        temperature=temperature,
        energy_lr=energy_lr,
        sampler_lr=sampler_lr,
        value_lr=1e-2,
        batch_size=128,
        hidden_widths=(24,),
        final_lr_fraction=0.05,
        **options,
    )
    data = 1 + 0.5 * torch.randn(5000, 1, generator=seeded(9))
    energy = Parabola(curvature=0.8, centre=1.0)
    return DxMITrainer(energy=energy, data=data, settings=settings, generator=seeded())


def spread(trainer: DxMITrainer) -> tuple[float, float]:
    samples = trainer.sample(20_000, generator=seeded(3))
    return samples.mean().item(), samples.std().item()


@pytest.mark.slow
def test_sampler_reaches_the_boltzmann_density_of_a_held_energy():
    # q ~ exp(-E / tau) with E = 0.8 / 2 (x - 1)^2 is N(1, tau / 0.8).
    trainer = one_dimensional(0.2, energy_lr=1e-12, decay_iterations=400)
    list(trainer.run(400))
    mean, std = spread(trainer)
    assert mean == pytest.approx(1.0, abs=0.05)
    assert std == pytest.approx(0.5, rel=0.1)


@pytest.mark.slow
def test_game_settles_where_data_sampler_and_energy_agree():
    # E = tau (x - 1)^2 / (2 * 0.5^2) makes exp(-E / tau) the data's density: curvature tau / 0.25.
    trainer = one_dimensional(0.2, energy_lr=5e-3, energy_regularization=0.05, decay_iterations=800)
    with torch.no_grad():
        trainer.energy.curvature.fill_(0.3)
        trainer.energy.centre.fill_(0.0)
    list(trainer.run(800))
    mean, std = spread(trainer)
    assert trainer.averaged_energy.centre.item() == pytest.approx(1.0, abs=0.1)
    assert trainer.averaged_energy.curvature.item() == pytest.approx(0.8, rel=0.2)
    assert mean == pytest.approx(1.0, abs=0.1)
    assert std == pytest.approx(0.5, rel=0.15)


@pytest.mark.slow
def test_without_entropy_the_sampler_collapses_and_with_it_it_does_not():
    spreads = {}
    for temperature in (0.0, 0.1):
        trainer = one_dimensional(temperature, energy_lr=1e-12, sampler_lr=2e-2, decay_iterations=300)
        list(trainer.run(300))
        spreads[temperature] = spread(trainer)[1]
    assert spreads[0.1] == pytest.approx((0.1 / 0.8) ** 0.5, rel=0.15)
    assert spreads[0.0] < 0.5 * spreads[0.1]
