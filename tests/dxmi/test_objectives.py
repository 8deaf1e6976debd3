"""Laws of the pure losses and of the direction of every gradient."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal

from energyad.dxmi import DxMISettings, GaussianSampler, NoiseSchedule, objectives
from energyad.dxmi.costs import AdaptiveCost, PathCost
from energyad.dxmi.learner import Learner
from energyad.dxmi.networks import EnergyAsValue, MLPEnergy, TimeMLP, ValueMLP
from energyad.dxmi.schedule import time_pairs

from .players import seeded

T, N = 3, 64
ROUTE = (0, 1, 2, 3)
PAIRS = time_pairs(ROUTE, torch.device("cpu"))


def a_learner(**options):
    settings = DxMISettings(num_steps=T, **options)
    network = TimeMLP(2, (16,), out=2, num_times=2, generator=seeded(1))
    return Learner(
        energy=MLPEnergy(2, (16,), generator=seeded()),
        sampler=GaussianSampler(network, NoiseSchedule.cosine(T)),
        value=ValueMLP(2, (16,), generator=seeded(2)),
        settings=settings,
    )


def some_states(seed=0):
    return torch.randn(T, N, 2, generator=seeded(seed))


def test_entropy_of_a_gaussian_policy_is_the_closed_form():
    log_sigma = torch.tensor([-2.0, 0.0, 0.7])
    expected = Normal(torch.zeros(3), log_sigma.exp()).entropy()
    torch.testing.assert_close(objectives.gaussian_entropy(log_sigma), expected)


def test_path_cost_is_minus_log_density_without_constants():
    beta, x_t, x_next = 0.3, some_states(), some_states(1)
    cost = objectives.path_cost(x_t, x_next, torch.full((T,), beta))
    log_density = Normal(math.sqrt(1 - beta) * x_next, math.sqrt(beta)).log_prob(x_t).mean(dim=2)
    constant = 0.5 * math.log(2 * math.pi * beta)
    torch.testing.assert_close(cost, -log_density - constant)


def test_adaptive_cost_of_the_observed_chains_is_one_half():
    states = torch.randn(T + 1, N, 2, generator=seeded())
    cost, route = AdaptiveCost(NoiseSchedule.cosine(T)), (0, 1, 2, 3)
    cost.observe(states, route)
    observed = cost(states[:-1], states[1:], time_pairs(route, states.device)).mean(dim=1)
    torch.testing.assert_close(observed, torch.full((T,), 0.5))


def test_adaptive_scales_move_by_a_hundredth():
    cost, route = AdaptiveCost(NoiseSchedule.cosine(1)), (0, 1)
    cost.observe(torch.tensor([[[0.0]], [[1.0]]]), route)
    cost.observe(torch.tensor([[[0.0]], [[2.0]]]), route)
    assert cost.squared_scales[0, 1].item() == pytest.approx(0.99 * 1 + 0.01 * 4)


def test_value_target_of_the_last_step_is_energy_plus_cost_minus_entropy():
    learner, states = a_learner(temperature=0.3), some_states()
    x_next = learner.sampler.step(states, PAIRS, seeded(5))
    costs, running = learner.cost_to_go.one_step(states, PAIRS, seeded(5))
    expected = learner.energy(x_next[-1]) + 0.3 * (running[-1] - learner.sampler.log_sigmas[2, 3])
    torch.testing.assert_close(costs[-1], expected)
    torch.testing.assert_close(running, PathCost(NoiseSchedule.cosine(T))(states, x_next, PAIRS))


def test_value_target_of_an_earlier_step_looks_at_the_next_value():
    learner, states = a_learner(temperature=0.3), some_states()
    torch.nn.init.normal_(learner.value.network.layers[-1].weight, generator=seeded())
    x_next = learner.sampler.step(states, PAIRS, seeded(5))
    costs, running = learner.cost_to_go.one_step(states, PAIRS, seeded(5))
    for t in (0, 1):
        following = learner.value(x_next[t], torch.full((N, 1), (t + 1) / T))
        torch.testing.assert_close(
            costs[t], following + 0.3 * (running[t] - learner.sampler.log_sigmas[t, t + 1])
        )


@pytest.mark.parametrize("through_time", [False, True])
def test_sampler_loss_touches_no_energy_or_value_parameter(through_time):
    learner, states = a_learner(), some_states()
    cost_to_go = learner.cost_to_go
    costs = (
        cost_to_go.through_time(states[0], ROUTE, seeded())[0]
        if through_time
        else cost_to_go.one_step(states, PAIRS, seeded())[0]
    )
    objectives.sampler_loss(costs).backward()
    assert all(weight.grad is None for weight in [*learner.energy.parameters(), *learner.value.parameters()])
    assert all(weight.requires_grad for weight in [*learner.energy.parameters(), *learner.value.parameters()])
    assert all(weight.grad is not None for weight in learner.sampler.parameters())


def test_more_entropy_lowers_the_sampler_loss():
    following, cost = torch.zeros(2, N), torch.ones(2, N)
    narrow = objectives.cost_to_go(following, cost, torch.tensor([-1.0, -1.0]), temperature=0.1)
    wide = objectives.cost_to_go(following, cost, torch.tensor([0.0, 0.0]), temperature=0.1)
    assert objectives.sampler_loss(wide) < objectives.sampler_loss(narrow)


def test_energy_falls_on_data_and_rises_on_samples_when_it_moves():
    learner = a_learner(energy_lr=1e-2)
    data, samples = torch.full((N, 2), 1.0), torch.full((N, 2), -1.0)
    for _ in range(20):
        learner.update_energy(data, samples)
    assert learner.energy(data).mean() < -0.1 < 0.1 < learner.energy(samples).mean()


def test_energy_is_bounded_by_half_the_inverse_regularization():
    gamma = 2.0
    on_data = torch.tensor([-0.5 / gamma], requires_grad=True)
    on_samples = torch.tensor([0.5 / gamma], requires_grad=True)
    objectives.energy_loss(on_data, on_samples, regularization=gamma).backward()
    assert on_data.grad.item() == 0 == on_samples.grad.item()


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_rare_data_of_high_energy_pull_harder_beyond_power_one(power: float):
    on_data = torch.tensor([0.1, 0.1, 0.4], requires_grad=True)
    loss = objectives.energy_loss(on_data, torch.zeros(1), regularization=0.0, data_power=power)
    assert 0.1 <= loss.item() <= 0.4
    loss.backward()
    torch.testing.assert_close(on_data.grad[2] / on_data.grad[0], torch.tensor(4.0 ** (power - 1)))


def test_value_moves_to_the_cost_to_go():
    values = torch.zeros(2, N, requires_grad=True)
    targets = torch.ones(2, N, requires_grad=True)
    objectives.value_loss(values, targets).backward()
    assert bool((values.grad < 0).all()) and targets.grad is None


@pytest.mark.slow
def test_regressed_value_predicts_the_cost_of_its_own_state():
    # Zero learning rates hold the sampler still; states of each time have their own cost.
    learner = a_learner(value_lr=3e-3, sampler_lr=1e-9, temperature=1.0)
    states = some_states()
    generator = seeded()
    for _ in range(600):
        learner.update_sampler_and_value(states, PAIRS, generator)
    draws = torch.stack([learner.cost_to_go.one_step(states, PAIRS, generator)[0] for _ in range(200)])
    expected = draws.mean(dim=0)[1:].detach()
    learned = learner.cost_to_go.values(states[1:], PAIRS.starts[1:]).detach()
    assert (expected[0].mean() - expected[1].mean()).abs() > 0.3
    torch.testing.assert_close(learned.mean(dim=1), expected.mean(dim=1), atol=0.1, rtol=0)
    for k in range(2):
        assert torch.corrcoef(torch.stack([learned[k], expected[k]]))[0, 1] > 0.4


def test_sampler_moves_down_the_energy():
    learner = a_learner(sampler_lr=1e-2, temperature=0.0)
    torch.nn.init.normal_(learner.energy.layers[-1].weight, generator=seeded())
    before = learner.cost_to_go.through_time(some_states()[0], ROUTE, seeded())[0].mean()
    for seed in range(100):
        chains = learner.sampler.rollout(some_states(seed)[0], generator=seeded(seed)).states.detach()
        learner.update_sampler_and_value(chains[:-1], PAIRS, seeded(seed))
    after = learner.cost_to_go.through_time(some_states()[0], ROUTE, seeded())[0].mean()
    assert after < before - 0.1


def test_some_steps_cost_what_they_cost_among_all_steps():
    learner, states = a_learner(), some_states()
    torch.nn.init.normal_(learner.value.network.layers[-1].weight, generator=seeded())
    with torch.no_grad():
        learner.sampler.log_sigmas.fill_(-30)  # the noise of both calls is none
        everything = learner.cost_to_go.one_step(states, PAIRS, seeded())[0]
        for chosen in ([0], [1, 2], [0, 2]):
            steps = torch.tensor(chosen)
            some = learner.cost_to_go.one_step(states[steps], PAIRS.some(steps), seeded())[0]
            torch.testing.assert_close(some, everything[steps])


def test_value_gradient_loss_does_not_depend_on_the_dimension():
    losses = []
    for dims in (1, 16, 400):
        # The gradient of a mean over the axes shrinks as their number grows.
        gradients = torch.randn(3, 2000, dims, generator=seeded()) / dims
        losses.append(objectives.value_gradient_loss(gradients, torch.zeros_like(gradients)).item())
    assert losses == pytest.approx([1.0] * 3, rel=0.1)


def test_a_frozen_sampler_holds_still_while_the_value_learns():
    learner = a_learner()
    before = [weight.clone() for weight in learner.sampler.parameters()]
    values = [weight.clone() for weight in learner.value.parameters()]
    learner.update_sampler_and_value(some_states(), PAIRS, seeded(), freeze_sampler=True)
    assert all(torch.equal(*pair) for pair in zip(before, learner.sampler.parameters(), strict=True))
    assert not all(torch.equal(*pair) for pair in zip(values, learner.value.parameters(), strict=True))


@pytest.mark.parametrize("sigma_lr", [None, 1e-2])
def test_a_fixed_last_sigma_stays_and_the_others_learn(sigma_lr: float | None):
    learner = a_learner(last_sigma=0.05, sigma_lr=sigma_lr, sampler_lr=1e-2)
    before = learner.sampler.step_log_sigmas(PAIRS).detach().clone()
    for seed in range(3):
        learner.update_sampler_and_value(some_states(seed), PAIRS, seeded(seed))
    after = learner.sampler.step_log_sigmas(PAIRS).detach()
    assert after[-1].exp().item() == pytest.approx(0.05)
    assert (after[:-1] != before[:-1]).all()


def test_clipped_sampler_gradients_have_at_most_that_norm():
    learner = a_learner(sampler_gradient_clip=1e-3, temperature=1.0)
    learner.update_sampler_and_value(some_states(), PAIRS, seeded())
    norms = [weight.grad.norm() for weight in learner.sampler.parameters()]
    assert torch.stack(norms).norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_an_energy_as_value_is_trained_by_the_values_updates():
    learner = a_learner()
    energy = MLPEnergy(2, (16,), generator=seeded())
    settings = DxMISettings(num_steps=T)
    shared = Learner(energy=energy, sampler=learner.sampler, value=EnergyAsValue(energy), settings=settings)
    x = some_states()[0]
    torch.testing.assert_close(shared.value(x, torch.zeros(N, 1)), energy(x))
    before = energy(x).detach()
    shared.update_sampler_and_value(some_states(), PAIRS, seeded())
    assert not torch.equal(energy(x), before)
    assert all(weight.requires_grad for weight in energy.parameters())


def test_a_diagonal_skip_changes_nothing_at_first():
    x, times = some_states()[0], torch.full((N, 2), 0.3)
    plain = TimeMLP(2, (16,), out=2, num_times=2, generator=seeded())
    skip = TimeMLP(2, (16,), out=2, num_times=2, generator=seeded(), diagonal_skip=True)
    torch.testing.assert_close(skip(x, times), plain(x, times))
    with torch.no_grad():
        skip.gains.bias.copy_(torch.tensor([2.0, 0.0]))
    torch.testing.assert_close(skip(x, times) - plain(x, times), x * torch.tensor([2.0, 0.0]))
