"""Small players shared by the tests of the game."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from energyad.dxmi import DxMISettings, DxMITrainer, MLPEnergy


class Parabola(nn.Module):
    """E(x) = curvature / 2 (x - centre)^2 + height: the family that holds a Gaussian's energy."""

    def __init__(self, curvature: float = 0.5, centre: float = 0.0) -> None:
        super().__init__()
        self.curvature = nn.Parameter(torch.tensor(curvature))
        self.centre = nn.Parameter(torch.tensor(centre))
        self.height = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        return (self.curvature / 2 * (x - self.centre).square()).flatten(1).sum(dim=1) + self.height


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ring(n: int = 2000, seed: int = 0) -> Tensor:
    """Points near a circle of radius 2."""
    points = torch.randn(n, 2, generator=seeded(seed))
    return 2 * points / points.norm(dim=1, keepdim=True) + 0.1 * torch.randn(n, 2, generator=seeded(seed + 1))


def small_trainer(seed: int = 0, **options: Any) -> DxMITrainer:
    settings = DxMISettings(**{"num_steps": 3, "batch_size": 32, "hidden_widths": (16,), **options})
    generator = seeded(seed)
    energy = MLPEnergy(2, (16,), generator=generator)
    return DxMITrainer(energy=energy, data=ring(), settings=settings, generator=generator)
