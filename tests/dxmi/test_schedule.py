"""The noising process and its posterior are one process at every resolution."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from energyad.dxmi import DxMISettings, GaussianSampler, NoiseSchedule
from energyad.dxmi.parametrisations import EDMVelocity
from energyad.dxmi.schedule import time_pairs
from energyad.errors import SettingsError

from .players import seeded


def test_first_time_is_noise_and_last_is_data():
    for schedule in (NoiseSchedule.cosine(5), NoiseSchedule.cosine(100), NoiseSchedule.cosine(1)):
        assert schedule.alpha_bars[0] <= 0.0011
        assert schedule.alpha_bars[-1] == 1.0
        assert list(schedule.alpha_bars) == sorted(schedule.alpha_bars)


def test_a_long_step_noises_as_its_short_steps_do():
    schedule = NoiseSchedule.linear(6, 0.01, 0.15)
    survival = 1.0
    for t in range(2, 5):
        survival *= 1 - schedule.beta(t, t + 1)
    assert schedule.beta(2, 5) == pytest.approx(1 - survival, abs=1e-12)


def test_noised_data_has_the_stated_moments():
    schedule = NoiseSchedule.cosine(5)
    x = schedule.noise(torch.full((200_000, 1), 3.0), 2, seeded())
    alpha_bar = schedule.alpha_bars[2]
    assert x.mean().item() == pytest.approx(3 * alpha_bar**0.5, abs=0.01)
    assert x.var().item() == pytest.approx(1 - alpha_bar, abs=0.01)


def test_routes_rise_from_noise_to_data_in_any_number_of_steps():
    schedule = NoiseSchedule.cosine(10)
    for steps in range(1, 11):
        route = schedule.route(steps)
        assert len(route) == steps + 1 and route[0] == 0 and route[-1] == 10
        assert list(route) == sorted(set(route))
    with pytest.raises(SettingsError, match="1 to 10"):
        schedule.route(11)


def test_the_mean_given_the_true_velocity_is_the_posterior_mean():
    schedule, t, s = NoiseSchedule.cosine(5), 1, 3
    data, noise = torch.randn(4, 2, generator=seeded()), torch.randn(4, 2, generator=seeded(1))
    noisy, clean = schedule.alpha_bars[t], schedule.alpha_bars[s]
    x_t = noisy**0.5 * data + (1 - noisy) ** 0.5 * noise

    class Oracle(nn.Module):
        def forward(self, x, times):
            return noisy**0.5 * noise - (1 - noisy) ** 0.5 * data

    mean = GaussianSampler(Oracle(), schedule).means(x_t.unsqueeze(0), time_pairs((t, s), x_t.device))[0]
    # Bayes: q(x_s | x_T) = N(sqrt(clean) x_T, 1 - clean), q(x_t | x_s) = N(sqrt(1 - beta) x_s, beta).
    beta = schedule.beta(t, s)
    precision = 1 / (1 - clean) + (1 - beta) / beta
    expected = (clean**0.5 * data / (1 - clean) + (1 - beta) ** 0.5 * x_t / beta) / precision
    torch.testing.assert_close(mean, expected)


@pytest.mark.parametrize(
    "options",
    [
        {"num_steps": 0},
        {"temperature": -1.0},
        {"running_cost": "none"},
        {"beta_start": 0.1},
        {"beta_start": 0.3, "beta_end": 0.1},
        {"energy_lr": 0.0},
        {"energy_average": 1.0},
    ],
)
def test_illegal_settings_are_named(options):
    with pytest.raises(SettingsError, match="DxMISettings"):
        DxMISettings(**options)


def test_settings_survive_a_trip_through_plain_values():
    settings = DxMISettings(hidden_widths=(8, 9), start="noised_data", beta_start=0.02, beta_end=0.1)
    plain = settings.to_dict() | {"hidden_widths": [8, 9], "sigma_bounds": [1e-5, 1e2]}
    assert DxMISettings.from_dict(plain) == settings
    with pytest.raises(SettingsError, match="colour"):
        DxMISettings.from_dict({"colour": 1})


@pytest.mark.parametrize("num_steps", [1, 5, 40])
def test_karras_levels_fall_from_the_largest_sigma_to_clean_data(num_steps: int):
    alpha_bars = torch.tensor(NoiseSchedule.karras(num_steps).alpha_bars, dtype=torch.float64)
    sigmas = (1 / alpha_bars - 1).sqrt()
    assert len(sigmas) == num_steps + 1 and sigmas[-1] == 0
    assert sigmas[0].item() == pytest.approx(80.0)
    assert (sigmas.diff() < 0).all()


@pytest.mark.parametrize("event", [(2,), (1, 4, 4)])
def test_an_edm_velocity_gives_the_denoiser_as_its_data(event: tuple[int, ...]):
    schedule = NoiseSchedule.karras(6)
    network = EDMVelocity(ZeroNetwork(), schedule, data_deviation=0.5)
    x = torch.randn(9, *event, generator=seeded())
    for t in (0, 3, 5):
        alpha_bar = schedule.alpha_bars[t]
        sigma = (1 / alpha_bar - 1) ** 0.5
        velocity = network(x, torch.tensor([[t / 6, (t + 1) / 6]]).expand(9, 2))
        data = alpha_bar**0.5 * x - (1 - alpha_bar) ** 0.5 * velocity
        # Of N(0, 0.5^2) data, the best guess without a network: shrink by the signal's share of the variance.
        expected = x / alpha_bar**0.5 * 0.25 / (0.25 + sigma**2)
        torch.testing.assert_close(data, expected, atol=1e-4, rtol=1e-3)


class ZeroNetwork(nn.Module):
    """Says nothing."""

    def forward(self, x: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)
