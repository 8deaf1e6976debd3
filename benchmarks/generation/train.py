"""Pretrains a sampler, fine-tunes it by DxMI to few steps, and measures both beside solvers of the same length."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.generation.baselines import SigmaRange, euler, heun, solve
from benchmarks.generation.digits import DIGITS
from benchmarks.generation.measures import Ruler, measure_samples
from benchmarks.generation.mnist import MNIST
from benchmarks.generation.problem import Problem
from energyad.dxmi import DxMISettings, DxMITrainer, GaussianSampler, NoiseSchedule
from energyad.dxmi.parametrisations import EDMVelocity, StartTimeVelocity
from energyad.dxmi.pretrain import pretrain_denoiser
from energyad.errors import TrainingDiverged

Pretraining = Literal["ddpm", "edm"]
ProblemName = Literal["digits", "mnist"]
Row = dict[str, Any]
Samples = dict[str, Float[Tensor, "n *event"]]

PROBLEMS: dict[ProblemName, Problem] = {"digits": DIGITS, "mnist": MNIST}
PRETRAIN_STEPS = 100  # T of the pretrained sampler
CHECKS = 10  # of the curve


@dataclass(frozen=True, kw_only=True)
class Run:
    """One fine-tuning.

    Attributes:
        of: The data set.
        pretraining: Of its sampler.
        steps: T.
        changes: To the settings.
    """

    of: ProblemName = "digits"
    pretraining: Pretraining
    steps: int
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def problem(self) -> Problem:
        """The data set with what is trained on it."""
        return PROBLEMS[self.of]

    def settings(self) -> DxMISettings:
        """The data set's with this run's changes."""
        return replace(self.problem.settings, num_steps=self.steps, **self.changes)


# The deviations start at DDPM's larger choice, far too large for a few long steps.
OWN_SIGMA_RATE = {"sigma_lr": 1e-3}

RUNS: dict[str, Run] = {
    "ddpm_T5": Run(pretraining="ddpm", steps=5),
    "ddpm_T5_tau_0": Run(pretraining="ddpm", steps=5, changes={"temperature": 0.0}),
    "ddpm_T1": Run(pretraining="ddpm", steps=1),
    "ddpm_T2": Run(pretraining="ddpm", steps=2),
    "ddpm_T4": Run(pretraining="ddpm", steps=4),
    "ddpm_T7": Run(pretraining="ddpm", steps=7),
    "ddpm_T10": Run(pretraining="ddpm", steps=10),
    "edm_T4": Run(pretraining="edm", steps=4, changes=OWN_SIGMA_RATE),
    "edm_T5": Run(pretraining="edm", steps=5, changes=OWN_SIGMA_RATE),
    "edm_T10": Run(pretraining="edm", steps=10, changes=OWN_SIGMA_RATE),
    "mnist_ddpm_T4": Run(of="mnist", pretraining="ddpm", steps=4),
    "mnist_ddpm_T10": Run(of="mnist", pretraining="ddpm", steps=10),
    "mnist_edm_T4": Run(of="mnist", pretraining="edm", steps=4),
    "mnist_edm_T10": Run(of="mnist", pretraining="edm", steps=10),
}


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A network that was trained to denoise images of a data set at 100 noise levels.

    Attributes:
        problem: The data set.
        pretraining: How it was trained.
        network: Predicts DDPM's velocities, or is the F of EDM's preconditioning.
        deviation: Of the training images.
        seed: Of its training, and of all that is drawn from it.
        seconds: Processor time of its training.
    """

    problem: Problem
    pretraining: Pretraining
    network: nn.Module
    deviation: float
    seed: int
    seconds: float

    def sigmas(self, steps: int) -> SigmaRange:
        """EDM's noise levels for so many steps."""
        problem = self.problem
        return problem.pretrain_sigmas if steps >= problem.many_steps else problem.few_sigmas

    def sampler(self, steps: int) -> GaussianSampler:
        """A sampler of so many steps around the network, which is not copied."""
        if self.pretraining == "ddpm":
            return GaussianSampler(StartTimeVelocity(self.network), NoiseSchedule.cosine(steps))
        schedule = self.sigmas(steps).schedule(steps)
        velocity = EDMVelocity(self.network, schedule, data_deviation=self.deviation)
        return GaussianSampler(velocity, schedule)


def pretrain(
    problem: Problem, pretraining: Pretraining, data: Float[Tensor, "n *event"], *, seed: int, file: Path
) -> Pretrained:
    """Train a network by denoising and keep it in a file, or read it from there."""
    generator = torch.Generator().manual_seed(seed)
    pretrained = Pretrained(
        problem=problem,
        pretraining=pretraining,
        network=problem.velocity(generator),
        deviation=float(data.std()),
        seed=seed,
        seconds=0.0,
    )
    if file.exists():
        pretrained.network.load_state_dict(load_file(file))
        with safe_open(file, framework="pt") as opened:
            return replace(pretrained, seconds=float(opened.metadata()["seconds"]))
    mark = time.process_time()
    pretrain_denoiser(
        pretrained.sampler(PRETRAIN_STEPS),
        data,
        iterations=problem.pretrain_iterations,
        batch_size=problem.batch_size,
        learning_rate=2e-3,
        generator=generator,
    )
    seconds = time.process_time() - mark
    file.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.contiguous() for name, weight in pretrained.network.state_dict().items()}
    save_file(weights, file, metadata={"seconds": str(seconds)})
    return replace(pretrained, seconds=seconds)


@torch.no_grad()
def chains_of(
    sampler: GaussianSampler, data: Float[Tensor, "b *event"], *, num_samples: int, seed: int, noisy_end: bool
) -> Float[Tensor, "n *event"]:
    """Samples shaped like the data, of the same noise at every call."""
    generator = torch.Generator().manual_seed(1_000_000 + seed)
    start = torch.randn(num_samples, *data.shape[1:], generator=generator)
    return sampler.rollout(start, generator=generator, noisy_end=noisy_end).samples


def baselines(
    pretrained: Pretrained, ruler: Ruler, *, steps: int
) -> Iterator[tuple[str, Float[Tensor, "n *event"]]]:
    """Samples of everything that needs no fine-tuning, at so many evaluations."""
    data, count, seed = ruler.data.train, pretrained.problem.num_samples, pretrained.seed
    start = torch.randn(count, *data.shape[1:], generator=torch.Generator().manual_seed(2_000_000 + seed))
    own = chains_of(pretrained.sampler(steps), data, num_samples=count, seed=seed, noisy_end=False)
    yield "ancestral", own
    long = pretrained.sampler(PRETRAIN_STEPS)
    if pretrained.pretraining == "ddpm":
        yield "ddim", solve(long, start, solver="ddim", steps=steps)
        yield "dpm_solver", solve(long, start, solver="dpm_solver", steps=steps)
    elif isinstance(long.network, EDMVelocity):
        sigmas = pretrained.sigmas(steps)
        yield "euler", euler(long.network, start, evaluations=steps, sigmas=sigmas)
        yield "heun", heun(long.network, start, evaluations=steps, sigmas=sigmas)


def fine_tune(run: Run, pretrained: Pretrained, ruler: Ruler) -> tuple[Row, Float[Tensor, "n *event"]]:
    """Train by DxMI and measure along the way; the last state counts, whichever was best. Also its samples."""
    problem, data, seed = run.problem, ruler.data.train, pretrained.seed
    generator = torch.Generator().manual_seed(seed)
    energy = problem.energy(generator)
    trainer = DxMITrainer(
        energy=energy,
        data=data,
        settings=run.settings(),
        generator=generator,
        sampler=replace(pretrained, network=copy.deepcopy(pretrained.network)).sampler(run.steps),
        value=problem.value(generator),
    )

    def samples_of(sampler: GaussianSampler) -> Float[Tensor, "n *event"]:
        return chains_of(sampler, data, num_samples=problem.num_samples, seed=seed, noisy_end=True)

    curve, diverged, seconds, mark = [], None, 0.0, time.process_time()
    try:
        for record in trainer.run(problem.iterations, record_every=problem.iterations // CHECKS):
            seconds += time.process_time() - mark
            quality = measure_samples(samples_of(trainer.averaged_sampler), ruler)
            print(record.iteration, round(quality.frechet, 2), f"{seconds:.0f} s", flush=True)
            curve.append({**asdict(record), **asdict(quality)})
            mark = time.process_time()
    except TrainingDiverged as error:
        diverged = str(error)
    averaged = samples_of(trainer.averaged_sampler)
    final = {"averaged": averaged, "last": samples_of(trainer.sampler)}
    row = {"seconds": seconds, "diverged": diverged, "curve": curve}
    return row | {name: asdict(measure_samples(drawn, ruler)) for name, drawn in final.items()}, averaged


def rows_of(runs: Mapping[str, Run], pretrained: Pretrained, ruler: Ruler) -> Iterator[tuple[Row, Samples]]:
    """One row a run, with samples of its baselines and of DxMI; all start from one pretrained network."""
    problem = pretrained.problem
    qualities: Row = {}
    for name, run in runs.items():
        samples = dict(baselines(pretrained, ruler, steps=run.steps))
        few = {solver: asdict(measure_samples(drawn, ruler)) for solver, drawn in samples.items()}
        print(name, {solver: round(quality["frechet"], 1) for solver, quality in few.items()}, flush=True)
        tuned, samples["dxmi"] = fine_tune(run, pretrained, ruler)
        if not qualities:
            long = baselines(pretrained, ruler, steps=problem.many_steps)
            qualities = {solver: asdict(measure_samples(drawn, ruler)) for solver, drawn in long}
        row: Row = {"run": name, "of": run.of, "seed": pretrained.seed}
        row |= {"pretrain_iterations": problem.pretrain_iterations, "pretrain_seconds": pretrained.seconds}
        row |= {"steps": run.steps, "pretraining": run.pretraining}
        row |= {
            "many_steps": qualities,
            "many_evaluations": problem.many_steps,
            "few_steps": few,
            "dxmi": tuned,
        }
        row |= {"settings": run.settings().to_dict(), "iterations": problem.iterations}
        row |= {"floor": asdict(measure_samples(ruler.data.test, ruler)), "accuracy": ruler.accuracy}
        yield row, samples
