"""One sampler for every number of steps from 1 to 10, and the single-step generator that is made from it."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.generation import digits
from benchmarks.generation.digits import DIGITS
from benchmarks.generation.measures import Ruler, measure_samples
from benchmarks.generation.train import PRETRAIN_STEPS
from energyad.dxmi import DxMITrainer, GaussianSampler, NoiseSchedule
from energyad.dxmi.networks import TimeMLP
from energyad.dxmi.pretrain import pretrain_denoiser
from energyad.dxmi.single_step import single_step_trainer

Row = dict[str, Any]

MAX_STEPS = 10
# With more, single steps run away and take the others along.
ITERATIONS, SINGLE_STEP_ITERATIONS = 1800, 600
ANY_STEPS_SETTINGS = replace(
    DIGITS.settings,
    num_steps=MAX_STEPS,
    # Drawn with chances 1 / T, so that T times T gives all numbers of steps the same chance.
    trained_steps=tuple(steps for steps in range(1, MAX_STEPS + 1) for _ in range(steps)),
)


def any_steps_row(ruler: Ruler, *, seed: int) -> Row:
    """Pretrain, fine-tune for all numbers of steps at once, then for one step alone; measure at each number."""
    data = ruler.data.train
    generator = torch.Generator().manual_seed(seed)
    mark = time.process_time()
    sampler = _pretrained(data, generator)
    before, pretrained = _curve(sampler, ruler, seed=seed, noisy_end=False), time.process_time()
    trainer = DxMITrainer(
        energy=digits.energy(generator),
        data=data,
        settings=ANY_STEPS_SETTINGS,
        generator=generator,
        sampler=sampler,
    )
    for record in trainer.run(ITERATIONS, record_every=ITERATIONS // 5):
        curve = _curve(trainer.averaged_sampler, ruler, seed=seed)
        print(record.iteration, [round(quality["frechet"], 1) for quality in curve.values()], flush=True)
    after, tuned = _curve(trainer.averaged_sampler, ruler, seed=seed), time.process_time()
    single = single_step_trainer(trainer, iterations=SINGLE_STEP_ITERATIONS)
    list(single.run(SINGLE_STEP_ITERATIONS, record_every=SINGLE_STEP_ITERATIONS))
    return {
        "run": "any_steps",
        "seed": seed,
        "pretrain_iterations": DIGITS.pretrain_iterations,
        "iterations": ITERATIONS,
        "single_step_iterations": SINGLE_STEP_ITERATIONS,
        "settings": ANY_STEPS_SETTINGS.to_dict(),
        "pretrain_seconds": pretrained - mark,
        "seconds": tuned - pretrained,
        "single_step_seconds": time.process_time() - tuned,
        "before": before,
        "after": after,
        "single_step": _quality(single.averaged_sampler, ruler, steps=1, seed=seed, noisy_end=True),
    }


def _pretrained(data: Float[Tensor, "n 64"], generator: torch.Generator) -> GaussianSampler:
    # At 100 noise levels; with cosine schedules t / T is the same level for any T. The network is given both ends of
    # a step, since fine-tuned means depend on both.
    network = TimeMLP(digits.DIMS, digits.WIDTHS, out=digits.DIMS, num_times=2, generator=generator)
    pretrain_denoiser(
        GaussianSampler(network, NoiseSchedule.cosine(PRETRAIN_STEPS)),
        data,
        iterations=DIGITS.pretrain_iterations,
        batch_size=DIGITS.batch_size,
        learning_rate=2e-3,
        generator=generator,
        any_steps=True,
    )
    return GaussianSampler(network, NoiseSchedule.cosine(MAX_STEPS))


def _curve(sampler: GaussianSampler, ruler: Ruler, *, seed: int, noisy_end: bool = True) -> dict[str, Row]:
    return {
        str(steps): _quality(sampler, ruler, steps=steps, seed=seed, noisy_end=noisy_end)
        for steps in range(1, MAX_STEPS + 1)
    }


@torch.no_grad()
def _quality(sampler: GaussianSampler, ruler: Ruler, *, steps: int, seed: int, noisy_end: bool) -> Row:
    generator = torch.Generator().manual_seed(1_000_000 + seed)
    start = torch.randn(DIGITS.num_samples, digits.DIMS, generator=generator)
    chains = sampler.rollout(
        start, generator=generator, route=sampler.schedule.route(steps), noisy_end=noisy_end
    )
    return asdict(measure_samples(chains.samples, ruler))
