"""Maximum-entropy inverse reinforcement learning of a diffusion sampler (DxMI, arXiv 2407.00626).

Knows nothing of images: it trains any energy [n, *event] -> [n] on any points. Scoring never imports it.
"""

from energyad.dxmi.networks import MLPEnergy
from energyad.dxmi.record import TrainingRecord
from energyad.dxmi.sampler import GaussianSampler, Trajectory
from energyad.dxmi.schedule import NoiseSchedule
from energyad.dxmi.settings import DxMISettings
from energyad.dxmi.trainer import DxMITrainer

__all__ = [
    "DxMISettings",
    "DxMITrainer",
    "GaussianSampler",
    "MLPEnergy",
    "NoiseSchedule",
    "TrainingRecord",
    "Trajectory",
]
