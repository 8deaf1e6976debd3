"""Measures the health of a training, from a generator of its own: training draws the same numbers with and without."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from energyad.dxmi.health import TrainingHealth
from energyad.dxmi.learner import adam, minimize
from energyad.dxmi.networks import mlp
from energyad.dxmi.record import TrainingRecord
from energyad.dxmi.sampler import GaussianSampler
from energyad.dxmi.trainer import DxMITrainer

SETTLING_ITERATIONS = 100
"""First iterations, in which a young energy may be at its bound."""
NUM_POINTS = 2048
CLASSIFIER_WIDTHS, CLASSIFIER_STEPS, CLASSIFIER_BATCH = (128, 128), 200, 256


def measure_health(
    trainer: DxMITrainer,
    records: Sequence[TrainingRecord],
    *,
    first_sampler: GaussianSampler,
    seed: int = 0,
) -> TrainingHealth:
    """Measure a training at its end.

    Args:
        trainer: The training.
        records: All that it yielded.
        first_sampler: A copy of its sampler as it was before the first iteration, pretrained or not.
        seed: Of all that measuring draws.
    """
    generator = torch.Generator(device=trainer.data.device).manual_seed(seed)
    data = trainer.draw_data(2 * NUM_POINTS, generator=generator)
    samples = trainer.sample(2 * NUM_POINTS, generator=generator)
    with torch.no_grad():
        of_data, of_samples = trainer.energy(data).mean(), trainer.energy(samples).mean()
    late = [record.bound_share for record in records if record.iteration > SETTLING_ITERATIONS]
    return TrainingHealth(
        energy_ratio=float(of_samples / of_data),
        bound_share=sum(late) / max(1, len(late)),
        mean_square_ratio=float(samples.square().mean() / data.square().mean()),
        classifier_auroc=classifier_auroc(data, samples, generator=generator),
        objective_before=chain_objective(trainer, first_sampler),
        objective_after=chain_objective(trainer, trainer.sampler),
    )


@torch.no_grad()
def chain_objective(
    trainer: DxMITrainer, sampler: GaussianSampler, *, chains: int = NUM_POINTS, seed: int = 1
) -> float:
    """Mean cost of whole chains of a sampler, per dimension; the same starts and noise at every call.

    Args:
        trainer: Whose energy, running cost and temperature count.
        sampler: Whose chains.
        chains: Their number.
        seed: Of starts and noise.
    """
    generator = torch.Generator(device=trainer.data.device).manual_seed(seed)
    route = sampler.schedule.route(sampler.schedule.num_steps)
    start = trainer.start(chains, generator=generator)
    cost_to_go = trainer.learner.cost_to_go.of(sampler)
    return float(cost_to_go.through_time(start, route, generator)[0].mean())


def classifier_auroc(
    data: Float[Tensor, "n d"], samples: Float[Tensor, "n d"], *, generator: torch.Generator
) -> float:
    """Train a small classifier on half of the points, and measure its AUROC on the other half."""
    data, samples = data.flatten(1), samples.flatten(1)
    half = len(data) // 2
    deviation = data.std(dim=0).clamp_min(1e-6)
    points = torch.cat([data[:half], samples[:half]]) / deviation
    labels = torch.cat([torch.zeros(half), torch.ones(half)]).to(points)
    classifier = mlp((points.shape[1], *CLASSIFIER_WIDTHS, 1), generator)
    optimizer = adam(classifier.parameters(), 2e-3)
    for _ in range(CLASSIFIER_STEPS):
        rows = torch.randint(len(points), (CLASSIFIER_BATCH,), generator=generator, device=points.device)
        logits = classifier(points[rows]).squeeze(dim=1)
        minimize(optimizer, torch.nn.functional.binary_cross_entropy_with_logits(logits, labels[rows]))
    with torch.no_grad():
        scores = [classifier(part[half:] / deviation).squeeze(dim=1) for part in (data, samples)]
    return auroc(*scores)


def auroc(of_good: Float[Tensor, " n"], of_bad: Float[Tensor, " m"]) -> float:
    """Chance that a bad one's score is above a good one's; ties count half."""
    ordered = of_good.sort().values.contiguous()
    below = torch.searchsorted(ordered, of_bad.contiguous())
    not_above = torch.searchsorted(ordered, of_bad.contiguous(), right=True)
    return float((below + not_above).double().mean()) / (2 * len(of_good))
