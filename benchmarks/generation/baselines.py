"""Samplers that need no fine-tuning, at a given number of network evaluations."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers.schedulers import DDIMScheduler, DPMSolverMultistepScheduler
from jaxtyping import Float
from torch import Tensor

from energyad.dxmi import GaussianSampler, NoiseSchedule
from energyad.dxmi.parametrisations import EDMVelocity

Solver = Literal["ddim", "dpm_solver"]


@torch.no_grad()
def solve(
    sampler: GaussianSampler, start: Float[Tensor, "n *event"], *, solver: Solver, steps: int
) -> Float[Tensor, "n *event"]:
    """Draw with a scheduler of diffusers from a sampler pretrained as a DDPM with many steps.

    Args:
        sampler: Whose network predicts velocities, on a schedule of many steps.
        start: Draws of N(0, I).
        solver: Which scheduler.
        steps: Evaluations of the network.
    """
    T = sampler.schedule.num_steps
    scheduler = _scheduler(sampler.schedule, solver)
    scheduler.set_timesteps(steps)
    x = start
    for time in scheduler.timesteps:
        t = T - 1 - int(time)  # diffusers counts from the data, the schedule from the noise
        rows = torch.tensor([[t / T, (t + 1) / T]]).expand(len(x), 2)
        x = scheduler.step(sampler.network(x, rows), time, x).prev_sample
    return x


def _scheduler(schedule: NoiseSchedule, solver: Solver) -> Any:
    T = schedule.num_steps
    betas = [schedule.beta(t, t + 1) for t in reversed(range(T))]
    options: dict[str, Any] = {
        "num_train_timesteps": T,
        "trained_betas": betas,
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
    }
    if solver == "ddim":
        return DDIMScheduler(**options, clip_sample=False)
    return DPMSolverMultistepScheduler(**options, lambda_min_clipped=-5.1)


@dataclass(frozen=True, kw_only=True)
class SigmaRange:
    """Deviations of EDM's noise, from that nearest the data to that of the start."""

    low: float
    high: float

    def schedule(self, steps: int) -> NoiseSchedule:
        """EDM's levels between them."""
        return NoiseSchedule.karras(steps, sigma_min=self.low, sigma_max=self.high)

    def levels(self, steps: int) -> Float[Tensor, " levels"]:
        """The same as deviations, 0 at the end."""
        alpha_bars = torch.tensor(self.schedule(steps).alpha_bars, dtype=torch.float64)
        return (1 / alpha_bars - 1).sqrt().float()


@torch.no_grad()
def euler(
    denoiser: EDMVelocity, start: Float[Tensor, "n *event"], *, evaluations: int, sigmas: SigmaRange
) -> Float[Tensor, "n *event"]:
    """The first-order deterministic sampler, an evaluation a step; DDIM's steps at EDM's noise levels.

    Args:
        denoiser: Pretrained.
        start: Draws of N(0, I).
        evaluations: Of the network.
        sigmas: Noise levels.
    """
    levels = sigmas.levels(evaluations)
    y = start * levels[0]
    for now, later in itertools.pairwise(levels):
        y = y + (later - now) * _slope(denoiser, y, now)
    return y


@torch.no_grad()
def heun(
    denoiser: EDMVelocity, start: Float[Tensor, "n *event"], *, evaluations: int, sigmas: SigmaRange
) -> Float[Tensor, "n *event"]:
    """EDM's second-order deterministic sampler (arXiv 2206.00364, algorithm 1 without churn).

    Args:
        denoiser: Pretrained.
        start: Draws of N(0, I).
        evaluations: Of the network, at most; an odd number is used whole, since the last step needs but one.
        sigmas: Noise levels.
    """
    levels = sigmas.levels(max(1, (evaluations + 1) // 2))
    y = start * levels[0]
    for now, later in itertools.pairwise(levels):
        slope = _slope(denoiser, y, now)
        predicted = y + (later - now) * slope
        if later > 0:
            predicted = y + (later - now) * 0.5 * (slope + _slope(denoiser, predicted, later))
        y = predicted
    return y


def _slope(
    denoiser: EDMVelocity, y: Float[Tensor, "n *event"], sigma: Float[Tensor, ""]
) -> Float[Tensor, "n *event"]:
    sigmas = sigma.expand(len(y), *[1] * (y.dim() - 1))
    return (y - denoiser.denoised(y, sigmas)) / sigma
