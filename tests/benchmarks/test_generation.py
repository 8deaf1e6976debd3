"""The measures and solvers of the generation benchmark, where their answer is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from benchmarks.generation.baselines import SigmaRange, euler, heun, solve
from benchmarks.generation.measures import covered, frechet_distance, sliced_wasserstein
from energyad.dxmi import GaussianSampler, NoiseSchedule
from energyad.dxmi.parametrisations import EDMVelocity
from tests.dxmi.players import seeded

DEVIATION = 0.5


class GaussianVelocity(nn.Module):
    """The exact velocity for data of N(0, 0.5^2 I), on a schedule."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        super().__init__()
        self.alpha_bars = torch.tensor(schedule.alpha_bars)

    def forward(self, x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        steps = (times[:, :1] * (len(self.alpha_bars) - 1)).round().long()
        alpha_bar = self.alpha_bars[steps]
        data = alpha_bar.sqrt() * DEVIATION**2 / (alpha_bar * DEVIATION**2 + 1 - alpha_bar) * x
        return (alpha_bar.sqrt() * x - data) / (1 - alpha_bar).sqrt()


class Nothing(nn.Module):
    def forward(self, x: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)


@pytest.mark.parametrize("solver", ["ddim", "dpm_solver"])
@pytest.mark.parametrize("steps", [50, 100])
def test_solvers_of_diffusers_reach_the_data_of_an_exact_velocity(solver: str, steps: int):
    schedule = NoiseSchedule.cosine(100)
    sampler = GaussianSampler(GaussianVelocity(schedule), schedule)
    samples = solve(sampler, torch.randn(4000, 2, generator=seeded()), solver=solver, steps=steps)
    assert samples.std().item() == pytest.approx(DEVIATION, rel=0.1)


@pytest.mark.parametrize(("solver", "evaluations"), [(euler, 80), (heun, 39), (heun, 80)])
def test_solvers_of_edm_reach_the_data_of_an_exact_denoiser(solver: Callable[..., Tensor], evaluations: int):
    # Without a network, EDM's preconditioning is the exact denoiser of such data.
    denoiser = EDMVelocity(Nothing(), NoiseSchedule.karras(5), data_deviation=DEVIATION)
    start = torch.randn(4000, 2, generator=seeded())
    samples = solver(denoiser, start, evaluations=evaluations, sigmas=SigmaRange(low=0.02, high=80.0))
    assert samples.std().item() == pytest.approx(DEVIATION, rel=0.1)


def test_heun_is_nearer_to_the_data_than_euler_with_as_many_evaluations():
    denoiser = EDMVelocity(Nothing(), NoiseSchedule.karras(5), data_deviation=DEVIATION)
    start, sigmas = torch.randn(4000, 2, generator=seeded()), SigmaRange(low=0.1, high=5.0)
    errors = [
        abs(solver(denoiser, start, evaluations=19, sigmas=sigmas).std().item() - DEVIATION)
        for solver in (euler, heun)
    ]
    assert errors[1] < errors[0]


def test_distances_of_a_set_to_itself_are_nothing_and_grow_with_a_shift():
    points = torch.randn(500, 6, generator=seeded())
    for distance in (frechet_distance, sliced_wasserstein):
        assert distance(points, points) == pytest.approx(0, abs=1e-3)
        assert distance(points, points + 1) < distance(points, points + 3)
    assert frechet_distance(points, points + 2) == pytest.approx(6 * 4, rel=1e-3)


def test_precision_falls_for_wrong_samples_and_recall_for_missing_ones():
    left, right = torch.randn(300, 2, generator=seeded()), torch.randn(300, 2, generator=seeded(1)) + 20
    both = torch.cat([left, right])
    assert covered(left, both) == 1 and covered(both, left) == pytest.approx(0.5, abs=0.05)
