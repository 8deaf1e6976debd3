"""The diffusion sampler: T Gaussian steps with learned means and one learned sigma a step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from energyad.dxmi.networks import TimeMLP, event_dims
from energyad.dxmi.schedule import NoiseSchedule, Route, TimePairs, time_pairs
from energyad.dxmi.settings import DxMISettings


@dataclass(frozen=True)
class Trajectory:
    """Chains of a sampler.

    Attributes:
        states: x at every time of the route, noise first.
        route: those times.
    """

    states: Float[Tensor, "times n *event"]
    route: Route

    @property
    def samples(self) -> Float[Tensor, "n *event"]:
        """x_T."""
        return self.states[-1]


class GaussianSampler(nn.Module):
    """pi(x_s | x_t) = N(mu(x_t, t, s), sigma_{t,s}^2 I) for any two times t < s of a schedule.

    The network predicts the velocity v = sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) data (arXiv 2202.00512),
    and mu is the mean of the noising process's posterior given that guess, well conditioned for steps of any
    length. Sigma starts at sqrt(beta), DDPM's larger choice.

    Args:
        network: called with x [n, *event] and times [n, 2] = (t, s) / T, gives v [n, *event].
        schedule: the noising process.
    """

    log_sigmas: Float[Tensor, "t s"]
    state_factors: Float[Tensor, "t s"]
    velocity_factors: Float[Tensor, "t s"]

    def __init__(self, network: nn.Module, schedule: NoiseSchedule) -> None:
        super().__init__()
        self.network = network
        self.schedule = schedule
        factors = posterior_factors(schedule)
        self.register_buffer("state_factors", factors[0], persistent=False)
        self.register_buffer("velocity_factors", factors[1], persistent=False)
        self.log_sigmas = nn.Parameter(factors[2])

    def step_log_sigmas(self, pairs: TimePairs) -> Float[Tensor, " steps"]:
        """log sigma of each step."""
        return self.log_sigmas[pairs]

    def fix_last_sigma(self, sigma: float) -> None:
        """Set sigma of all steps that end at T, and keep it from learning."""
        with torch.no_grad():
            self.log_sigmas[:, -1] = math.log(sigma)
        learned = torch.ones_like(self.log_sigmas)
        learned[:, -1] = 0
        self.log_sigmas.register_hook(lambda gradient: gradient * learned)

    def velocity(
        self, states: Float[Tensor, "steps n *event"], pairs: TimePairs
    ) -> Float[Tensor, "steps n *event"]:
        """The network's guess at several steps at once; states[k] is at pairs.starts[k]."""
        times = torch.stack(pairs, dim=1)
        rows = (times / self.schedule.num_steps).to(states.dtype).repeat_interleave(states.shape[1], dim=0)
        return self.network(states.flatten(0, 1), rows).unflatten(0, states.shape[:2])

    def means(
        self, states: Float[Tensor, "steps n *event"], pairs: TimePairs
    ) -> Float[Tensor, "steps n *event"]:
        """mu of several steps at once; states[k] is at pairs.starts[k]."""
        per_step = (-1, *[1] * (states.dim() - 1))
        a = self.state_factors[pairs].view(per_step)
        b = self.velocity_factors[pairs].view(per_step)
        return a * states + b * self.velocity(states, pairs)

    def step(
        self, states: Float[Tensor, "steps n *event"], pairs: TimePairs, generator: torch.Generator
    ) -> Float[Tensor, "steps n *event"]:
        """A reparameterised draw of the next state of several steps at once."""
        epsilon = torch.randn(states.shape, generator=generator, device=states.device, dtype=states.dtype)
        sigmas = self.step_log_sigmas(pairs).exp().view(-1, *[1] * (states.dim() - 1))
        return self.means(states, pairs) + sigmas * epsilon

    def rollout(
        self,
        start: Float[Tensor, "n *event"],
        *,
        generator: torch.Generator,
        route: Route | None = None,
        noisy_end: bool = True,
    ) -> Trajectory:
        """Chains from `start` along a route (all T steps by default).

        With `noisy_end=False` the last step returns its mean, as a plain DDPM does.
        """
        route = self.schedule.route(self.schedule.num_steps) if route is None else route
        states = [start]
        for t, s in pairwise(route):
            last = s == route[-1] and not noisy_end
            x_t = states[-1].unsqueeze(0)
            pair = time_pairs((t, s), start.device)
            x_s = self.means(x_t, pair) if last else self.step(x_t, pair, generator)
            states.append(x_s.squeeze(dim=0))
        return Trajectory(torch.stack(states), route)


def posterior_factors(schedule: NoiseSchedule) -> Float[Tensor, "3 t s"]:
    """Factors of the state and of the velocity in mu, and log sqrt(beta), for every pair of times t < s."""
    T = schedule.num_steps
    factors = torch.zeros(3, T, T + 1, dtype=torch.float64)
    for t in range(T):
        for s in range(t + 1, T + 1):
            noisy, clean, beta = schedule.alpha_bars[t], schedule.alpha_bars[s], schedule.beta(t, s)
            of_data = clean**0.5 * beta / (1 - noisy)
            of_state = (1 - beta) ** 0.5 * (1 - clean) / (1 - noisy)
            factors[0, t, s] = of_data * noisy**0.5 + of_state
            factors[1, t, s] = -of_data * (1 - noisy) ** 0.5
            factors[2, t, s] = 0.5 * torch.tensor(beta, dtype=torch.float64).log()
    return factors.float()


def default_sampler(
    data: Float[Tensor, "n *event"], settings: DxMISettings, generator: torch.Generator
) -> GaussianSampler:
    """A new sampler for data of vectors, its weights drawn from the generator."""
    dims = event_dims(data)
    network = TimeMLP(
        dims,
        settings.hidden_widths,
        out=dims,
        num_times=2,
        generator=generator,
        diagonal_skip=settings.diagonal_skip,
    )
    return GaussianSampler(network, NoiseSchedule.from_settings(settings))
