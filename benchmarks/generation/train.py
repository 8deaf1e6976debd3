"""Pretrains a sampler, fine-tunes it by DxMI to few steps, and measures both beside solvers of the same length."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.generation.baselines import SigmaRange, euler, heun, solve
from benchmarks.generation.digits import Ruler, measure_samples
from energyad.dxmi import DxMISettings, DxMITrainer, GaussianSampler, MLPEnergy, NoiseSchedule
from energyad.dxmi.networks import TimeMLP
from energyad.dxmi.parametrisations import EDMVelocity, StartTimeVelocity
from energyad.dxmi.pretrain import pretrain_denoiser
from energyad.errors import TrainingDiverged

Pretraining = Literal["ddpm", "edm"]
Row = dict[str, Any]

PRETRAIN_STEPS = 100  # T of the pretrained sampler
NUM_SAMPLES = 1400  # as many as training digits
WIDTHS = (256, 256, 256)
# Noise of deviation 0.1 is below the step of 1/8 between grey levels, and 20 is 27 times the data's deviation.
PRETRAIN_SIGMAS = SigmaRange(low=0.1, high=20.0)
# With few steps, each that the ends of a wide range take is missing in the middle. Chosen by the fixed solvers.
FEW_SIGMAS = SigmaRange(low=0.2, high=5.0)
CHECKS = 5  # of the curve

SETTINGS = DxMISettings(
    temperature=0.1,
    running_cost="adaptive",
    running_cost_weight=0.1,
    energy_lr=1e-4,
    sampler_lr=3e-5,
    value_lr=1e-3,
    last_sigma=0.05,
    frozen_sampler_iterations=600,
    sampler_gradient_clip=1.0,
    sampler_steps_per_iteration=1,
    sampler_average=0.995,
    batch_size=128,
    hidden_widths=(256, 256),
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One fine-tuning.

    Attributes:
        pretraining: Of its sampler.
        steps: T.
        changes: To the settings.
        iterations: Of DxMI, those with a frozen sampler among them.
    """

    pretraining: Pretraining
    steps: int
    changes: dict[str, Any] = field(default_factory=dict)
    iterations: int = 1500

    def settings(self) -> DxMISettings:
        """The common ones with this run's changes."""
        return replace(SETTINGS, num_steps=self.steps, **self.changes)


# The deviations start at DDPM's larger choice, far too large for a few long steps.
OWN_SIGMA_RATE = {"sigma_lr": 1e-3}

RUNS: dict[str, Run] = {
    "ddpm_T5": Run(pretraining="ddpm", steps=5),
    "ddpm_T5_tau_0": Run(pretraining="ddpm", steps=5, changes={"temperature": 0.0}),
    "ddpm_T4": Run(pretraining="ddpm", steps=4),
    "ddpm_T10": Run(pretraining="ddpm", steps=10),
    "edm_T4": Run(pretraining="edm", steps=4, changes=OWN_SIGMA_RATE),
    "edm_T5": Run(pretraining="edm", steps=5, changes=OWN_SIGMA_RATE),
    "edm_T10": Run(pretraining="edm", steps=10, changes=OWN_SIGMA_RATE),
}


def schedule_of(pretraining: Pretraining, steps: int) -> NoiseSchedule:
    """The noise levels that a kind of pretraining goes with."""
    if pretraining == "ddpm":
        return NoiseSchedule.cosine(steps)
    return sigma_range(steps).schedule(steps)


def sigma_range(steps: int) -> SigmaRange:
    """EDM's noise levels for so many steps."""
    return PRETRAIN_SIGMAS if steps == PRETRAIN_STEPS else FEW_SIGMAS


def sampler_on(
    network: TimeMLP, pretraining: Pretraining, steps: int, *, deviation: float
) -> GaussianSampler:
    """A sampler of so many steps around a network, which is not copied."""
    schedule = schedule_of(pretraining, steps)
    velocity = (
        StartTimeVelocity(network)
        if pretraining == "ddpm"
        else EDMVelocity(network, schedule, data_deviation=deviation)
    )
    return GaussianSampler(velocity, schedule)


def pretrain(
    pretraining: Pretraining, data: Float[Tensor, "n 64"], *, seed: int, iterations: int
) -> tuple[TimeMLP, float]:
    """Train a network by denoising at 100 noise levels; also the processor time."""
    generator = torch.Generator().manual_seed(seed)
    network = TimeMLP(64, WIDTHS, out=64, num_times=1, generator=generator)
    sampler = sampler_on(network, pretraining, PRETRAIN_STEPS, deviation=float(data.std()))
    mark = time.process_time()
    pretrain_denoiser(
        sampler, data, iterations=iterations, batch_size=128, learning_rate=2e-3, generator=generator
    )
    return network, time.process_time() - mark


@torch.no_grad()
def chains_of(sampler: GaussianSampler, seed: int, *, noisy_end: bool) -> Float[Tensor, "n 64"]:
    """Samples of a sampler, the same noise at every call."""
    generator = torch.Generator().manual_seed(1_000_000 + seed)
    start = torch.randn(NUM_SAMPLES, 64, generator=generator)
    return sampler.rollout(start, generator=generator, noisy_end=noisy_end).samples


def baselines(
    network: TimeMLP, pretraining: Pretraining, ruler: Ruler, *, steps: int, seed: int
) -> Iterator[tuple[str, Float[Tensor, "n 64"]]]:
    """Samples of everything that needs no fine-tuning, at so many evaluations."""
    deviation = float(ruler.data.train.std())
    start = torch.randn(NUM_SAMPLES, 64, generator=torch.Generator().manual_seed(2_000_000 + seed))
    short = sampler_on(network, pretraining, steps, deviation=deviation)
    yield "ancestral", chains_of(short, seed, noisy_end=False)
    long = sampler_on(network, pretraining, PRETRAIN_STEPS, deviation=deviation)
    if pretraining == "ddpm":
        yield "ddim", solve(long, start, solver="ddim", steps=steps)
        yield "dpm_solver", solve(long, start, solver="dpm_solver", steps=steps)
    elif isinstance(long.network, EDMVelocity):
        sigmas = sigma_range(steps)
        yield "euler", euler(long.network, start, evaluations=steps, sigmas=sigmas)
        yield "heun", heun(long.network, start, evaluations=steps, sigmas=sigmas)


def fine_tune(run: Run, network: TimeMLP, ruler: Ruler, *, seed: int) -> tuple[Row, DxMITrainer]:
    """Train by DxMI and measure along the way; the last state counts, whichever was best."""
    data = ruler.data.train
    generator = torch.Generator().manual_seed(seed)
    sampler = sampler_on(copy.deepcopy(network), run.pretraining, run.steps, deviation=float(data.std()))
    trainer = DxMITrainer(
        energy=MLPEnergy(64, (256, 256), generator=generator),
        data=data,
        settings=run.settings(),
        generator=generator,
        sampler=sampler,
    )
    curve, diverged, seconds, mark = [], None, 0.0, time.process_time()
    try:
        for record in trainer.run(run.iterations, record_every=run.iterations // CHECKS):
            seconds += time.process_time() - mark
            samples = chains_of(trainer.averaged_sampler, seed, noisy_end=True)
            curve.append({**asdict(record), **asdict(measure_samples(samples, ruler))})
            mark = time.process_time()
    except TrainingDiverged as error:
        diverged = str(error)
    final = {
        "averaged": chains_of(trainer.averaged_sampler, seed, noisy_end=True),
        "last": chains_of(trainer.sampler, seed, noisy_end=True),
    }
    return {
        "seconds": seconds,
        "diverged": diverged,
        "curve": curve,
        **{name: asdict(measure_samples(samples, ruler)) for name, samples in final.items()},
    }, trainer


def rows_of(
    pretraining: Pretraining, runs: dict[str, Run], ruler: Ruler, *, seed: int, pretrain_iterations: int
) -> Iterator[tuple[Row, dict[str, Float[Tensor, "n 64"]]]]:
    """One row a run of a seed, with samples of its baselines and of DxMI; all start from one pretrained network."""
    network, seconds = pretrain(pretraining, ruler.data.train, seed=seed, iterations=pretrain_iterations)
    common = {"seed": seed, "pretrain_iterations": pretrain_iterations, "pretrain_seconds": seconds}
    long = baselines(network, pretraining, ruler, steps=PRETRAIN_STEPS, seed=seed)
    qualities = {name: asdict(measure_samples(samples, ruler)) for name, samples in long}
    for name, run in runs.items():
        samples = dict(baselines(network, pretraining, ruler, steps=run.steps, seed=seed))
        few = {solver: asdict(measure_samples(drawn, ruler)) for solver, drawn in samples.items()}
        tuned, trainer = fine_tune(run, network, ruler, seed=seed)
        row = {"run": name, **common, "steps": run.steps, "pretraining": pretraining}
        row |= {"many_steps": qualities, "few_steps": few, "dxmi": tuned}
        row |= {"settings": run.settings().to_dict(), "iterations": run.iterations}
        row |= {"floor": asdict(measure_samples(ruler.data.test, ruler)), "accuracy": ruler.accuracy}
        yield row, samples | {"dxmi": chains_of(trainer.averaged_sampler, seed, noisy_end=True)}
