"""Chains, pretraining, any number of steps, and the single step."""

from __future__ import annotations

import pytest
import torch

from energyad.dxmi import GaussianSampler, NoiseSchedule
from energyad.dxmi.networks import TimeMLP
from energyad.dxmi.pretrain import pretrain_denoiser
from energyad.dxmi.schedule import time_pairs
from energyad.dxmi.single_step import SingleStepGenerator, single_step_trainer

from .players import ring, seeded, small_trainer


def test_chains_follow_their_route_and_repeat_with_their_seed():
    trainer = small_trainer()
    chains = trainer.trajectory(7, generator=seeded(1))
    assert chains.states.shape == (4, 7, 2) and chains.route == (0, 1, 2, 3)
    assert torch.equal(chains.samples, trainer.sample(7, generator=seeded(1)))


def test_a_step_is_gaussian_with_the_learned_sigma():
    sampler = small_trainer().sampler
    with torch.no_grad():
        sampler.log_sigmas[1, 2] = -1.0
        x, pair = torch.zeros(1, 100_000, 2), time_pairs((1, 2), torch.device("cpu"))
        draws = sampler.step(x, pair, seeded()) - sampler.means(x, pair)
    assert draws.std().item() == pytest.approx(torch.tensor(-1.0).exp().item(), rel=0.01)
    assert draws.mean().item() == pytest.approx(0, abs=0.01)


def test_a_chain_without_noise_at_its_end_returns_the_last_mean():
    sampler, start = small_trainer().sampler, torch.randn(50, 2, generator=seeded())
    with torch.no_grad():
        chains = sampler.rollout(start, generator=seeded(1), noisy_end=False)
        mean = sampler.means(chains.states[-2].unsqueeze(0), time_pairs((2, 3), start.device))[0]
    assert torch.equal(chains.samples, mean)


@pytest.mark.slow
def test_pretraining_makes_the_chain_land_on_the_data():
    data, generator = ring(), seeded()
    network = TimeMLP(2, (64, 64), out=2, num_times=2, generator=generator)
    sampler = GaussianSampler(network, NoiseSchedule.cosine(20))
    pretrain_denoiser(sampler, data, iterations=800, batch_size=256, learning_rate=3e-3, generator=generator)
    with torch.no_grad():
        samples = sampler.rollout(torch.randn(2000, 2, generator=generator), generator=generator).samples
    radius = samples.norm(dim=1)
    assert radius.mean().item() == pytest.approx(2.0, abs=0.15)
    assert radius.std().item() < 0.5


def test_one_sampler_runs_in_any_number_of_steps():
    trainer = small_trainer(trained_steps=(1, 2, 3))
    list(trainer.run(10))
    for steps in (1, 2, 3):
        assert trainer.trajectory(4, generator=seeded(), steps=steps).states.shape[0] == steps + 1


def test_a_single_step_generator_is_the_sampler_in_one_step():
    trainer = small_trainer(trained_steps=(1, 2, 3))
    list(trainer.run(5))
    follower = single_step_trainer(trainer, iterations=5)
    before = trainer.sampler.log_sigmas.detach().clone()
    list(follower.run(5))
    changed = (trainer.sampler.log_sigmas.detach() != before).nonzero().tolist()
    assert changed == [[0, 3]]
    generator = seeded(2)
    expected = follower.sample(9, generator=seeded(2), steps=1)
    start = follower.start(9, generator=generator)
    with torch.no_grad():
        assert torch.equal(SingleStepGenerator(follower.sampler)(start, generator), expected)


def test_a_single_step_generator_trains_at_once_where_the_sampler_was_frozen_first():
    trainer = small_trainer(trained_steps=(1, 2, 3), frozen_sampler_iterations=4)
    list(trainer.run(5))
    before = trainer.sampler.log_sigmas.detach().clone()
    list(single_step_trainer(trainer, iterations=2).run(2))
    assert not torch.equal(trainer.sampler.log_sigmas.detach(), before)


@pytest.mark.parametrize(("trained_steps", "columns"), [((1, 2), 2), (None, 1)])
def test_a_value_is_given_the_number_of_steps_where_several_are_trained(
    trained_steps: tuple[int, ...] | None, columns: int
):
    trainer, seen = small_trainer(trained_steps=trained_steps), []
    trainer.value.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    trainer.update_sampler_and_value(trainer.trajectory(4, generator=seeded(), steps=2))
    assert seen
    for times in seen:
        assert times.shape[1] == columns
        assert torch.equal(times[:, 1:], torch.full_like(times[:, 1:], 2 / 3))
