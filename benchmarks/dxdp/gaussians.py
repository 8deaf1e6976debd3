"""Gaussian targets in 1 to 256 dimensions: DxDP against the closed form and against back-propagation through time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.dxdp.targets import QuadraticEnergy, curvatures, optimal_sampler
from energyad.dxmi import DxMISettings, DxMITrainer
from energyad.dxmi.schedule import Route, time_pairs

Method = Literal["dxdp", "values_alone", "through_time"]
METHODS: tuple[Method, ...] = ("dxdp", "values_alone", "through_time")
TEST_CHAINS = 4000
GRADIENT_CHAINS, GRADIENT_DRAWS = 200, 32

SETTINGS = DxMISettings(
    num_steps=4,
    temperature=0.2,
    batch_size=128,
    hidden_widths=(32, 32),
    energy_lr=1e-12,  # held
    sampler_lr=5e-3,
    value_lr=5e-3,
    sampler_steps_per_iteration=1,
    decay_iterations=300,
    final_lr_fraction=0.02,
    pretrain_iterations=200,
    pretrain_lr=1e-3,
)
"""One recipe for every dimension."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One training. iterations also set the length of the learning rates' decay."""

    dims: int
    equal: bool
    method: Method
    seed: int
    iterations: int = 300

    def settings(self) -> DxMISettings:
        """The recipe with this case's method."""
        settings = replace(SETTINGS, decay_iterations=self.iterations)
        if self.method == "through_time":
            return replace(settings, sampler_update="through_time")
        if self.method == "values_alone":
            return replace(settings, value_gradient_weight=0.0)
        return settings


def trainer_of(case: Case) -> DxMITrainer:
    """A trainer whose energy is held, and whose sampler is pretrained on N(0, I)."""
    generator = torch.Generator().manual_seed(case.seed)
    trainer = DxMITrainer(
        energy=QuadraticEnergy(curvatures(case.dims, equal=case.equal)),
        data=torch.randn(20_000, case.dims, generator=generator),
        settings=case.settings(),
        generator=generator,
    )
    trainer.pretrain()
    return trainer


@torch.no_grad()
def objective(trainer: DxMITrainer, *, chains: int = TEST_CHAINS) -> float:
    """Mean cost of whole chains, per dimension: the same starts and noise at every call."""
    generator = torch.Generator().manual_seed(1_000_000)
    route = trainer.schedule.route(trainer.schedule.num_steps)
    start = trainer.start(chains, generator=generator)
    costs, _ = trainer.learner.cost_to_go.through_time(start, route, generator)
    return float(costs.mean())


def gradient_cosines(trainer: DxMITrainer) -> list[float]:
    """Mean cosine of the value's gradient with that of the true cost to go, at each time 1 to T - 1.

    The true one is the mean of back-propagation through the rest of the chain, over draws of its noise.
    """
    generator = torch.Generator().manual_seed(2_000_000)
    chains = trainer.trajectory(GRADIENT_CHAINS, generator=generator)
    pairs = time_pairs(chains.route, chains.states.device)
    states = chains.states[1:-1].clone().requires_grad_()
    (learned,) = torch.autograd.grad(
        trainer.learner.cost_to_go.values(states, pairs.starts[1:]).sum(), states
    )
    true = torch.stack(
        [_true_gradient(trainer, chains.states[t], chains.route[t:], generator) for t in chains.route[1:-1]]
    )
    return torch.nn.functional.cosine_similarity(learned, true, dim=2).mean(dim=1).tolist()


def _true_gradient(
    trainer: DxMITrainer, state: Float[Tensor, "n d"], route: Route, generator: torch.Generator
) -> Float[Tensor, "n d"]:
    state = state.clone().requires_grad_()
    total = torch.zeros(())
    for _ in range(GRADIENT_DRAWS):
        total = total + trainer.learner.cost_to_go.through_time(state, route, generator)[0].sum()
    return torch.autograd.grad(total / GRADIENT_DRAWS, state)[0]


def cases(dims: Sequence[int], seeds: Sequence[int], methods: Sequence[Method]) -> Iterator[Case]:
    """Seed by seed, so that a stopped benchmark has whole comparisons; of one axis, equal is all there is."""
    for seed in seeds:
        for d in dims:
            for method in methods:
                for equal in (True,) if d == 1 else (True, False):
                    yield Case(dims=d, equal=equal, method=method, seed=seed)


def measure(case: Case) -> dict[str, Any]:
    """Train and measure one case."""
    trainer = trainer_of(case)
    best = optimal_sampler(
        trainer.energy.get_buffer("curvatures"), trainer.schedule, temperature=SETTINGS.temperature
    )
    before = highest = objective(trainer)
    seconds, mark = 0.0, time.process_time()
    for _ in trainer.run(case.iterations, record_every=max(1, case.iterations // 8)):
        seconds += time.process_time() - mark
        highest = max(highest, objective(trainer, chains=1000))
        mark = time.process_time()
    samples = trainer.sample(TEST_CHAINS, generator=torch.Generator().manual_seed(3_000_000))
    ratios = samples.std(dim=0) / best.deviations
    return {
        "part": "gaussians",
        "dims": case.dims,
        "equal": case.equal,
        "method": case.method,
        "seed": case.seed,
        "iterations": case.iterations,
        "objective_before": before,
        "objective_highest": highest,
        "objective": objective(trainer),
        "objective_optimal": best.objective,
        "deviation_ratios": {
            "smallest": float(ratios.min()),
            "mean": float(ratios.mean()),
            "largest": float(ratios.max()),
        },
        "gradient_cosines": None if case.method == "through_time" else gradient_cosines(trainer),
        "cpu_seconds": seconds,
    }
