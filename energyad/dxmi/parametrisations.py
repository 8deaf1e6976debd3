"""Networks of a noise level and not of the step that follows: a sampler made of one runs with any number of steps."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from energyad.dxmi.schedule import NoiseSchedule


class StartTimeVelocity(nn.Module):
    """Velocity of a network of x and the time t / T alone, as plain DDPM trains it.

    With cosine schedules t / T is the same noise level for any T: a network pretrained with one T serves with others.

    Args:
        network: (x [n, *event], times [n, 1]) -> v [n, *event].
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Float[Tensor, "n *event"], times: Float[Tensor, "n 2"]) -> Float[Tensor, "n *event"]:
        """Velocities at x; times are (t, s) / T."""
        return self.network(x, times[:, :1])


class EDMVelocity(nn.Module):
    """Velocity of a denoiser with EDM's preconditioning (arXiv 2206.00364, table 1 and equation 7).

    D(y; sigma) = c_skip y + c_out F(c_in y, level), for y = x / sqrt(alpha_bar) with noise of deviation sigma. The
    level is log sigma, scaled to [0, 1] between 0.002 and 80.

    Args:
        network: F, (y [n, *event], levels [n, 1]) -> [n, *event].
        schedule: Of the sampler that it is in.
        data_deviation: sigma_data, standard deviation of the data.
    """

    sigmas: Float[Tensor, " times"]

    def __init__(self, network: nn.Module, schedule: NoiseSchedule, *, data_deviation: float) -> None:
        super().__init__()
        self.network, self.data_deviation = network, data_deviation
        alpha_bars = torch.tensor(schedule.alpha_bars, dtype=torch.float64)
        self.register_buffer("sigmas", (1 / alpha_bars - 1).sqrt().float(), persistent=False)

    def forward(self, x: Float[Tensor, "n *event"], times: Float[Tensor, "n 2"]) -> Float[Tensor, "n *event"]:
        """Velocities at x; times are (t, s) / T."""
        steps = (times[:, 0] * (len(self.sigmas) - 1)).round().long()
        sigma = self.sigmas[steps].view(-1, *[1] * (x.dim() - 1))
        alpha_bar = 1 / (1 + sigma.square())
        data = self.denoised(x / alpha_bar.sqrt(), sigma)
        # data = sqrt(alpha_bar) x - sqrt(1 - alpha_bar) v
        return (alpha_bar.sqrt() * x - data) / (1 - alpha_bar).sqrt()

    def denoised(
        self, y: Float[Tensor, "n *event"], sigma: Float[Tensor, "n ..."]
    ) -> Float[Tensor, "n *event"]:
        """The data's expectation given data plus noise of deviation sigma."""
        squares = sigma.square() + self.data_deviation**2
        skip = self.data_deviation**2 / squares
        out = sigma * self.data_deviation / squares.sqrt()
        low, high = math.log(0.002), math.log(80.0)
        levels = ((sigma.log() - low) / (high - low)).flatten(1)[:, :1]
        return skip * y + out * self.network(y / squares.sqrt(), levels)
