"""Health of a training: whether energy and sampler kept each other in check, in a few numbers and one line.

Loads no torch: a model's file holds it, and scoring reads that file. `energyad.dxmi.diagnosis` measures it.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_BOUND_SHARE = 0.1
MAX_MEAN_SQUARE_RATIO = 2.0
MAX_AUROC = 0.95


@dataclass(frozen=True, kw_only=True)
class TrainingHealth:
    """What a training's end says about it.

    Attributes:
        energy_ratio: Mean energy of samples over that of data.
        bound_share: Share of the iterations after the first hundred with the samples' mean energy at its bound,
            1 / (2 gamma); 0 where there are none or no bound.
        mean_square_ratio: Mean square of samples over that of data.
        classifier_auroc: Of a fresh classifier that tells samples from data: 0.5 for samples that nothing tells apart.
        objective_before, objective_after: Cost of chains per dimension, of the sampler as it was before training and as
            it is after, both with the energy that training ended with. A sampler that follows its energy lowers it.
    """

    energy_ratio: float
    bound_share: float
    mean_square_ratio: float
    classifier_auroc: float
    objective_before: float
    objective_after: float

    def verdict(self) -> str:
        """Say in one line whether the training was healthy."""
        if self.mean_square_ratio > MAX_MEAN_SQUARE_RATIO:
            return f"runaway: the samples' mean square is {self.mean_square_ratio:.1f} times the data's"
        if self.bound_share > MAX_BOUND_SHARE:
            return (
                f"saturated: the samples' energy is at its bound in {self.bound_share:.0%} of the iterations"
            )
        if self.objective_after > self.objective_before:
            change = f"{self.objective_before:.3g} to {self.objective_after:.3g}"
            return f"the sampler does not follow its energy: its objective went from {change}"
        if self.classifier_auroc > MAX_AUROC:
            return (
                f"one-sided: a classifier tells samples from data at an AUROC of {self.classifier_auroc:.3f}"
            )
        return "healthy"
