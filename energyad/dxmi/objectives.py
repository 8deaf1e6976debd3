"""The losses of DxMI as pure functions (arXiv 2407.00626, sections 3 and 4).

Norms and log sigma count per dimension everywhere, so a temperature means the same in any dimension.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def per_dimension(squared: Float[Tensor, "steps n *event"]) -> Float[Tensor, "steps n"]:
    """Mean over all axes of the event."""
    return squared.flatten(2).mean(dim=2)


def gaussian_entropy(log_sigma: Float[Tensor, "*steps"]) -> Float[Tensor, "*steps"]:
    """Entropy per dimension of N(mu, sigma^2 I), in nats."""
    return log_sigma + 0.5 * math.log(2 * math.pi * math.e)


def path_cost(
    x_t: Float[Tensor, "steps n *event"],
    x_next: Float[Tensor, "steps n *event"],
    betas: Float[Tensor, " steps"],
) -> Float[Tensor, "steps n"]:
    """-log N(x_t; sqrt(1 - beta) x_next, beta I) without its constants."""
    beta = betas.view(-1, *[1] * (x_t.dim() - 1))
    return per_dimension((x_t - (1 - beta).sqrt() * x_next).square()) / (2 * betas.unsqueeze(1))


def adaptive_cost(
    x_t: Float[Tensor, "steps n *event"],
    x_next: Float[Tensor, "steps n *event"],
    squared_scales: Float[Tensor, " steps"],
) -> Float[Tensor, "steps n"]:
    """Adaptive velocity regularisation: the squared step over twice its running mean."""
    return per_dimension((x_next - x_t).square()) / (2 * squared_scales.unsqueeze(1))


def cost_to_go(
    following: Float[Tensor, "steps n"],
    running_cost: Float[Tensor, "steps n"],
    log_sigmas: Float[Tensor, " steps"],
    *,
    temperature: float,
) -> Float[Tensor, "steps n"]:
    """E or V of the next state, plus tau times (running cost minus log sigma).

    Detached it is the value's target; with x_next reparameterised, its mean is the sampler's loss.
    """
    return following + temperature * (running_cost - log_sigmas.unsqueeze(1))


def sampler_loss(costs: Float[Tensor, "steps n"]) -> Float[Tensor, ""]:
    """What the sampler minimises: the mean cost to go over chains and steps."""
    return costs.mean()


def value_loss(values: Float[Tensor, "steps n"], targets: Float[Tensor, "steps n"]) -> Float[Tensor, ""]:
    """Mean squared error to the detached cost to go."""
    return (values - targets.detach()).square().mean()


def value_gradient_loss(
    gradients: Float[Tensor, "steps n *event"], targets: Float[Tensor, "steps n *event"]
) -> Float[Tensor, ""]:
    """Mean squared distance of the value's gradients to the cost to go's, times the dimension.

    One number a state says little of a gradient in hundreds of directions; its derivative along each of them says it.
    Costs are means over the event's axes, so a gradient shrinks as 1 / d, its squared norm too, and the factor d undoes
    that.
    """
    difference = (gradients - targets.detach()).flatten(2)
    return difference.shape[2] * difference.square().sum(dim=2).mean()


def power_mean(values: Float[Tensor, " n"], power: float) -> Float[Tensor, ""]:
    """(mean of values^power)^(1 / power). Beyond 1, which is for values above zero, the largest weigh more."""
    return values.mean() if power == 1 else values.pow(power).mean().pow(1 / power)


def energy_loss(
    on_data: Float[Tensor, " n"],
    on_samples: Float[Tensor, " m"],
    *,
    regularization: float,
    data_power: float = 1.0,
) -> Float[Tensor, ""]:
    """Down on data, up on samples, and both bounded by gamma times their squares."""
    squares = on_data.square().mean() + on_samples.square().mean()
    return power_mean(on_data, data_power) - on_samples.mean() + regularization * squares


def denoising_loss(
    velocity: Float[Tensor, "n *event"],
    data: Float[Tensor, "n *event"],
    noisy: Float[Tensor, "n *event"],
    alpha_bars: Float[Tensor, " n"],
) -> Float[Tensor, ""]:
    """DDPM's loss in velocities, for noisy = sqrt(alpha_bar) data + sqrt(1 - alpha_bar) noise."""
    alpha_bar = alpha_bars.view(-1, *[1] * (data.dim() - 1))
    # v = sqrt(ab) noise - sqrt(1 - ab) data, with the noise solved from `noisy`.
    target = (alpha_bar.sqrt() * noisy - data) / (1 - alpha_bar).sqrt()
    return torch.nn.functional.mse_loss(velocity, target)
