"""What a trained sampler and energy are worth beside the truth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import Tensor

from benchmarks.toy_2d.targets import BOX, GaussianMixture

NUM_DIRECTIONS = 128
MIN_COVERAGE = 0.25


@dataclass(frozen=True, kw_only=True)
class EnergyQuality:
    """auroc: true points against uniform ones on the box; true_auroc: the density's own, the ceiling.

    spearman: rank correlation of the energy with minus the log density, on true points.
    """

    auroc: float
    true_auroc: float
    spearman: float


@dataclass(frozen=True, kw_only=True)
class SampleQuality:
    """sliced_wasserstein: root, not squared. modes: components with at least a quarter of their share.

    mode_error: greatest difference of a component's share from its weight, in points of a hundred.
    """

    sliced_wasserstein: float
    modes: int
    mode_error: float


def sliced_wasserstein(x: Float[Tensor, "n 2"], y: Float[Tensor, "n 2"]) -> float:
    """Root of the squared 2-Wasserstein distance of projections, its mean over evenly spaced directions."""
    angles = torch.arange(NUM_DIRECTIONS) * math.pi / NUM_DIRECTIONS
    directions = torch.stack([angles.cos(), angles.sin()])
    sorted_x, sorted_y = (x @ directions).sort(dim=0).values, (y @ directions).sort(dim=0).values
    return float((sorted_x - sorted_y).square().mean().sqrt())


def sample_quality(samples: Float[Tensor, "n 2"], target: GaussianMixture, seed: int) -> SampleQuality:
    """Samples against as many fresh draws of the target."""
    truth = target.sample(len(samples), torch.Generator().manual_seed(seed))
    component, distance = target.nearest(samples)
    near = torch.bincount(component[distance < 3], minlength=len(target.weights)) / len(samples)
    share = torch.bincount(component, minlength=len(target.weights)) / len(samples)
    return SampleQuality(
        sliced_wasserstein=sliced_wasserstein(samples, truth),
        modes=int((near >= MIN_COVERAGE * target.weights).sum()),
        mode_error=100 * float((share - target.weights).abs().max()),
    )


@torch.no_grad()
def energy_quality(
    energy: Callable[[Tensor], Tensor], target: GaussianMixture, seed: int, n: int = 10_000
) -> EnergyQuality:
    """Energies of true points against those of uniform points on the box."""
    generator = torch.Generator().manual_seed(seed)
    data = target.sample(n, generator)
    points = torch.cat([data, BOX * (2 * torch.rand(n, 2, generator=generator) - 1)])
    energies, truth = energy(points), -target.log_density(points)
    labels = torch.cat([torch.zeros(n), torch.ones(n)])
    return EnergyQuality(
        auroc=float(roc_auc_score(labels, energies)),
        true_auroc=float(roc_auc_score(labels, truth)),
        spearman=float(spearmanr(energies[:n], truth[:n]).statistic),
    )
