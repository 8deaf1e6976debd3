"""DxDP lowers its own objective in any number of dimensions, where the optimum is known in closed form."""

from __future__ import annotations

import pytest
import torch

from benchmarks.dxdp.gaussians import Case, gradient_cosines, objective, trainer_of
from benchmarks.dxdp.targets import curvatures, optimal_sampler
from energyad.dxmi import NoiseSchedule


@pytest.mark.slow
def test_dxdp_reaches_the_closed_form_optimum_in_128_dimensions():  # in one: test_fixed_point.py
    trainer = trainer_of(Case(dims=128, equal=False, method="dxdp", seed=0, iterations=250))
    before = objective(trainer, chains=1000)
    list(trainer.run(250))
    best = optimal_sampler(curvatures(128, equal=False), trainer.schedule, temperature=0.2)
    deviations = trainer.sample(2000, generator=torch.Generator().manual_seed(5)).std(dim=0)
    assert objective(trainer, chains=1000) < best.objective + 0.1 * (before - best.objective)
    assert (deviations / best.deviations).mean().item() == pytest.approx(1, abs=0.1)
    assert min(gradient_cosines(trainer)) > 0.5


@pytest.mark.parametrize(("dims", "equal", "steps"), [(1, True, 4), (7, True, 4), (7, False, 60)])
def test_the_closed_form_optimum_is_the_boltzmann_density(dims: int, equal: bool, steps: int):
    # With one sigma for all axes, unequal axes need many steps for it.
    curvature = curvatures(dims, equal=equal)
    best = optimal_sampler(curvature, NoiseSchedule.cosine(steps), temperature=0.2)
    torch.testing.assert_close(best.deviations, (0.2 / curvature).sqrt(), rtol=0.05, atol=0)
