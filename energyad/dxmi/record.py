"""What a training says about itself, and when it counts as diverged."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from energyad.dxmi.settings import DxMISettings
from energyad.errors import TrainingDiverged


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """Means over the iterations since the last record; sigmas are those of the moment.

    Attributes:
        iteration: iterations done, pretraining not counted.
        energy_data, energy_samples: mean energy of the data and of the sampler's output.
        energy_loss, sampler_loss, value_loss: the three losses.
        running_cost: mean running cost of a step, per dimension, without the temperature.
        bound_share: share of the iterations in which the samples' mean energy was at its bound, see `at_bound`.
        sigmas: sigma_t of the full route, noise first.
    """

    iteration: int
    energy_data: float
    energy_samples: float
    energy_loss: float
    sampler_loss: float
    value_loss: float
    running_cost: float
    bound_share: float
    sigmas: tuple[float, ...]


NEAR_BOUND = 0.95


def at_bound(energy: Float[Tensor, " n"], settings: DxMISettings) -> Float[Tensor, " n"]:
    """1 where a mean energy of samples is within a twentieth of its bound 1 / (2 gamma), beyond it too; 0 elsewhere."""
    return (2 * settings.energy_regularization * energy >= NEAR_BOUND).to(energy.dtype)


def check_health(record: TrainingRecord, settings: DxMISettings) -> None:
    """Raise TrainingDiverged where a record holds NaN, or an energy or sigma out of the settings' bounds."""
    losses = (record.energy_loss, record.sampler_loss, record.value_loss)
    if not all(map(math.isfinite, losses)):
        _diverged(record, f"losses of energy, sampler, value are {losses}", "lower the learning rates")
    energies = (record.energy_data, record.energy_samples)
    if max(map(abs, energies)) > settings.energy_bound:
        reason = f"energies of data and samples are {energies}, bound {settings.energy_bound:g}"
        _diverged(record, reason, "raise energy_regularization or lower energy_lr")
    low, high = settings.sigma_bounds
    if not all(low <= sigma <= high for sigma in record.sigmas):
        reason = f"sigmas are {record.sigmas}, bounds {settings.sigma_bounds}"
        _diverged(record, reason, "raise the temperature if they shrink, use the path cost if they grow")


def _diverged(record: TrainingRecord, reason: str, remedy: str) -> None:
    raise TrainingDiverged(
        f"DxMI diverged by iteration {record.iteration}: {reason}; the last good state was kept; {remedy}"
    )
