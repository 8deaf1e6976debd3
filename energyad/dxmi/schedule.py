"""The variance-preserving noising process that the sampler runs against. t = 0 is noise, t = T is data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from energyad.dxmi.settings import DxMISettings
from energyad.errors import SettingsError

Route = tuple[int, ...]
"""Times visited by a chain, rising from 0 to T: (0, 1, ..., T) is the full route, (0, T) a single step."""

MAX_BETA = 0.999


class TimePairs(NamedTuple):
    """Times at which steps start and end. As a tuple it indexes tables [t, s] of all pairs of times."""

    starts: Int[Tensor, " steps"]
    ends: Int[Tensor, " steps"]

    def some(self, steps: Int[Tensor, " k"]) -> TimePairs:
        """The pairs of these steps alone."""
        return TimePairs(self.starts[steps], self.ends[steps])


@lru_cache(maxsize=256)
def time_pairs(route: Route, device: torch.device) -> TimePairs:
    """Times of the steps of a route; cached, since small chains ask for them all the time."""
    return TimePairs(*torch.tensor(list(pairwise(route)), device=device).T)


@dataclass(frozen=True)
class NoiseSchedule:
    """Survival of the signal: x_t = sqrt(alpha_bar_t) x_T + sqrt(1 - alpha_bar_t) noise.

    Attributes:
        alpha_bars: one for each time 0..T, rising to alpha_bar_T = 1.
    """

    alpha_bars: tuple[float, ...]

    @classmethod
    def from_betas(cls, betas: list[float]) -> NoiseSchedule:
        """Schedule whose step t -> t+1 undoes noise of variance betas[t] (the last one nearest the data)."""
        alpha_bars = [1.0]
        for beta in reversed(betas):
            alpha_bars.append(alpha_bars[-1] * (1.0 - beta))
        return cls(tuple(reversed(alpha_bars)))

    @classmethod
    def linear(cls, num_steps: int, beta_start: float, beta_end: float) -> NoiseSchedule:
        """Noise rising linearly from `beta_start` at the data to `beta_end` at the far end."""
        return cls.from_betas(torch.linspace(beta_end, beta_start, num_steps, dtype=torch.float64).tolist())

    @classmethod
    def cosine(cls, num_steps: int) -> NoiseSchedule:
        """alpha_bar = cos^2 of the time from the data (arXiv 2102.09672), with each beta at most 0.999."""
        angles = torch.linspace(torch.pi / 2, 0, num_steps + 1, dtype=torch.float64)
        survival = angles.cos().square()
        return cls.from_betas((1 - survival[:-1] / survival[1:]).clamp(max=MAX_BETA).tolist())

    @classmethod
    def karras(
        cls, num_steps: int, *, sigma_min: float = 0.02, sigma_max: float = 80.0, rho: float = 7.0
    ) -> NoiseSchedule:
        """EDM's noise levels (arXiv 2206.00364, equation 5), as the variance-preserving process of equal ratios."""
        ramp = torch.linspace(0, 1, num_steps, dtype=torch.float64)
        sigmas = (sigma_max ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
        return cls((*(1 / (1 + sigmas.square())).tolist(), 1.0))

    @classmethod
    def from_settings(cls, settings: DxMISettings) -> NoiseSchedule:
        """The schedule that the settings ask for."""
        if settings.beta_start is not None and settings.beta_end is not None:
            return cls.linear(settings.num_steps, settings.beta_start, settings.beta_end)
        if settings.start == "noised_data":
            return cls.linear(settings.num_steps, 0.01, 0.15)
        return cls.cosine(settings.num_steps)

    @property
    def num_steps(self) -> int:
        """T."""
        return len(self.alpha_bars) - 1

    def route(self, steps: int) -> Route:
        """The evenly spaced route of so many steps, 1 to T."""
        if not 1 <= steps <= self.num_steps:
            raise SettingsError(f"steps = {steps}: this sampler takes 1 to {self.num_steps} steps")
        return tuple(round(k * self.num_steps / steps) for k in range(steps + 1))

    def beta(self, t: int, s: int) -> float:
        """Variance that noising adds on the way from time s back to an earlier time t."""
        return 1.0 - self.alpha_bars[t] / self.alpha_bars[s]

    def noise(
        self, data: Float[Tensor, "n *event"], t: int, generator: torch.Generator
    ) -> Float[Tensor, "n *event"]:
        """A draw of x_t given x_T = data."""
        epsilon = torch.randn(data.shape, generator=generator, device=data.device, dtype=data.dtype)
        alpha_bar = self.alpha_bars[t]
        return alpha_bar**0.5 * data + (1.0 - alpha_bar) ** 0.5 * epsilon
