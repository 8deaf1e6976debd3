"""Trains one job and measures it: a job goes in, one row of results comes out."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.toy_2d.config import Job
from benchmarks.toy_2d.measures import energy_quality, sample_quality, sliced_wasserstein
from benchmarks.toy_2d.targets import BOX, GaussianMixture, target
from energyad.dxmi import DxMITrainer, MLPEnergy, TrainingRecord
from energyad.dxmi.schedule import time_pairs
from energyad.dxmi.single_step import single_step_trainer
from energyad.errors import TrainingDiverged

Row = dict[str, Any]
NUM_SAMPLES = 10_000
TRUTH_SEED, CHAIN_SEED = 1_000_000, 2_000_000
GRID = 121
TRAINING_CODE = ("train.py", "config.py", "config.toml", "targets.py", "measures.py", "../../energyad/dxmi")
"""What decides a row's numbers; a row names the last commit that changed it."""


def train(job: Job, pictures: Path) -> Row:
    """Pretrain, play, measure. A divergence ends up in the row, with the measures of the last good state."""
    torch.set_num_threads(1)
    truth, generator = target(job.target), torch.Generator().manual_seed(job.seed)
    trainer = DxMITrainer(
        energy=MLPEnergy(2, job.settings.hidden_widths, generator=generator),
        data=truth.sample(job.data, generator),
        settings=job.settings,
        generator=generator,
    )
    row: Row = {
        "run": job.run,
        "seed": job.seed,
        "key": job.key,
        "target": job.target,
        "floor": floor(truth, job),
    }
    started = time.perf_counter()
    if job.settings.pretrain_iterations > 0:
        trainer.pretrain()
        row["pretrain_seconds"] = time.perf_counter() - started
        row["ddpm"] = ddpm_quality(trainer, truth, job.seed)
    if job.iterations > 0:
        row |= train_dxmi(trainer, truth, job)
        row["energy"] = asdict(energy_quality(trainer.averaged_energy, truth, TRUTH_SEED + job.seed))
        row["samples"] = {"full": quality(trainer, truth, job.seed)}
        row["bytes_saved"] = saved_bytes(trainer)
    if job.settings.trained_steps is not None:
        row["samples"] |= by_steps(trainer, truth, job)
    if job.picture and job.seed == 0:
        save_picture(trainer, truth, pictures / f"{job.run}.safetensors")
    return row | {"settings": job.settings.to_dict(), "iterations": job.iterations} | provenance()


def floor(truth: GaussianMixture, job: Job) -> float:
    """Sliced Wasserstein distance of two draws of the truth: nothing can be told from it below this."""
    draws = [
        truth.sample(NUM_SAMPLES, torch.Generator().manual_seed(start + job.seed))
        for start in (TRUTH_SEED, CHAIN_SEED)
    ]
    return sliced_wasserstein(*draws)


def chain_generator(seed: int) -> torch.Generator:
    """The randomness of all measured chains of a seed."""
    return torch.Generator().manual_seed(CHAIN_SEED + seed)


def quality(
    trainer: DxMITrainer, truth: GaussianMixture, seed: int, *, steps: int | None = None, n: int = NUM_SAMPLES
) -> Row:
    """Sample quality of today's sampler."""
    samples = trainer.sample(n, generator=chain_generator(seed), steps=steps)
    return asdict(sample_quality(samples, truth, TRUTH_SEED + seed))


@torch.no_grad()
def ddpm_quality(trainer: DxMITrainer, truth: GaussianMixture, seed: int) -> Row:
    """Sample quality before the game: as a DDPM, whose last step adds no noise, and with that noise."""
    qualities = {}
    for name, noisy_end in (("mean_end", False), ("noisy_end", True)):
        generator = chain_generator(seed)
        start = trainer.start(NUM_SAMPLES, generator=generator)
        chains = trainer.sampler.rollout(start, generator=generator, noisy_end=noisy_end)
        qualities[name] = asdict(sample_quality(chains.samples, truth, TRUTH_SEED + seed))
    return qualities


def train_dxmi(trainer: DxMITrainer, truth: GaussianMixture, job: Job) -> Row:
    """The game itself, with a curve of the energy's quality and of the training's own record."""
    curve: list[Row] = []
    seconds, diverged, mark = 0.0, None, time.perf_counter()
    try:
        for record in trainer.run(job.iterations, record_every=max(1, job.iterations // 10)):
            seconds += time.perf_counter() - mark
            curve.append(curve_point(record, trainer, truth, job.seed))
            mark = time.perf_counter()
    except TrainingDiverged as error:
        diverged = str(error)
    return {"seconds": seconds, "diverged": diverged, "curve": curve}


def curve_point(record: TrainingRecord, trainer: DxMITrainer, truth: GaussianMixture, seed: int) -> Row:
    """A record, with the energy's and the samples' quality at that moment."""
    now = energy_quality(trainer.averaged_energy, truth, TRUTH_SEED + seed, n=2000)
    samples = quality(trainer, truth, seed, n=2000)
    measured = {"auroc": now.auroc, "sliced_wasserstein": samples["sliced_wasserstein"]}
    return asdict(record) | measured


def by_steps(trainer: DxMITrainer, truth: GaussianMixture, job: Job) -> Row:
    """Sample quality of one sampler at every number of steps, then as a single-step generator."""
    steps = job.settings.trained_steps or ()
    rows = {str(k): quality(trainer, truth, job.seed, steps=k) for k in steps}
    follower = single_step_trainer(trainer, iterations=job.single_step_iterations)
    list(follower.run(job.single_step_iterations))
    rows["single_step"] = quality(follower, truth, job.seed, steps=1)
    return rows


def saved_bytes(trainer: DxMITrainer) -> Row:
    """Bytes of activations that one sampler update keeps for its backward pass."""
    T, generator = trainer.schedule.num_steps, chain_generator(0)
    chains = trainer.trajectory(64, generator=generator)
    states, costs = chains.states[:-1], trainer.learner.cost_to_go
    pairs = time_pairs(chains.route, states.device)
    last = pairs.some(torch.tensor([T - 1]))

    def count(forward: Callable[[], object]) -> int:
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            forward_result = forward()
        del forward_result
        return sum(kept.values())

    return {
        "all_steps": count(lambda: costs.one_step(states, pairs, generator)),
        "one_step": count(lambda: costs.one_step(states[T - 1 :], last, generator)),
        "through_time": count(lambda: costs.through_time(states[0], chains.route, generator)),
    }


@torch.no_grad()
def save_picture(trainer: DxMITrainer, truth: GaussianMixture, path: Path) -> None:
    """Keep what the figure shows: true log density and energy on a grid, and chains."""
    axis = torch.linspace(-BOX, BOX, GRID)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).flatten(0, 1)
    tensors = {
        "log_density": truth.log_density(points).view(GRID, GRID),
        "energy": trainer.averaged_energy(points).view(GRID, GRID),
        "chains": trainer.trajectory(3000, generator=chain_generator(0)).states.contiguous(),
        "data": truth.sample(3000, chain_generator(1)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)


def provenance() -> Row:
    """Where a row comes from."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    code = ("--", *TRAINING_CODE)
    changed = git("status", "--porcelain", "--untracked-files=no", *code)
    return {
        "commit": git("log", "-1", "--format=%h", *code) + ("+" if changed else ""),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "machine": {"processor": processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
    }


def processor() -> str:
    """The processor's name where Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
