"""Maximum-entropy inverse reinforcement learning of a diffusion sampler (DxMI, arXiv 2407.00626).

Knows nothing of images: it trains any energy [n, *event] -> [n] on any points. Scoring never trains; importing this
package alone loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from energyad.dxmi.health import TrainingHealth as TrainingHealth
    from energyad.dxmi.networks import MLPEnergy as MLPEnergy
    from energyad.dxmi.record import TrainingRecord as TrainingRecord
    from energyad.dxmi.sampler import GaussianSampler as GaussianSampler
    from energyad.dxmi.sampler import Trajectory as Trajectory
    from energyad.dxmi.schedule import NoiseSchedule as NoiseSchedule
    from energyad.dxmi.settings import DxMISettings as DxMISettings
    from energyad.dxmi.trainer import DxMITrainer as DxMITrainer

_HOMES = {
    "DxMISettings": "settings",
    "DxMITrainer": "trainer",
    "GaussianSampler": "sampler",
    "MLPEnergy": "networks",
    "NoiseSchedule": "schedule",
    "TrainingHealth": "health",
    "TrainingRecord": "record",
    "Trajectory": "sampler",
}
__all__ = [
    "DxMISettings",
    "DxMITrainer",
    "GaussianSampler",
    "MLPEnergy",
    "NoiseSchedule",
    "TrainingHealth",
    "TrainingRecord",
    "Trajectory",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
