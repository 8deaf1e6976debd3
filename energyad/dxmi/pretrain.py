"""Pretraining of the sampler as a denoising diffusion model (DDPM)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from energyad.dxmi.objectives import denoising_loss
from energyad.dxmi.sampler import GaussianSampler


def pretrain_denoiser(
    sampler: GaussianSampler,
    data: Float[Tensor, "n *event"],
    *,
    iterations: int,
    batch_size: int,
    learning_rate: float,
    generator: torch.Generator,
    any_steps: bool = False,
) -> float:
    """Fit the sampler's mean by DDPM's loss, its sigmas left alone; returns the last tenth's mean loss.

    The learning rate falls to zero along a cosine. With `any_steps` the network learns every pair of times
    t < s, otherwise neighbours only.
    """
    optimizer = torch.optim.Adam(sampler.network.parameters(), lr=learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    late = []
    for iteration in range(iterations):
        rows = torch.randint(len(data), (batch_size,), generator=generator, device=data.device)
        loss = _denoising_step(sampler, data[rows], generator, any_steps)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if 10 * (iteration + 1) > 9 * iterations:
            late.append(loss.detach())
    return float(torch.stack(late).mean())


def _denoising_step(
    sampler: GaussianSampler, data: Float[Tensor, "n *event"], generator: torch.Generator, any_steps: bool
) -> Float[Tensor, ""]:
    schedule, n, device = sampler.schedule, len(data), data.device
    T = schedule.num_steps
    t = torch.randint(T, (n,), generator=generator, device=device)
    s = t + 1
    if any_steps:
        s = s + (torch.rand(n, generator=generator, device=device) * (T - t)).long()
    alpha_bars = torch.tensor(schedule.alpha_bars, device=device, dtype=data.dtype)[t]
    alpha_bar = alpha_bars.view(-1, *[1] * (data.dim() - 1))
    epsilon = torch.randn(data.shape, generator=generator, device=device, dtype=data.dtype)
    noisy = alpha_bar.sqrt() * data + (1 - alpha_bar).sqrt() * epsilon
    times = torch.stack([t, s], dim=1).to(data.dtype) / T
    return denoising_loss(sampler.network(noisy, times), data, noisy, alpha_bars)
