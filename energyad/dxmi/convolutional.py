"""Networks for events that are images: a small U-Net as a sampler's velocity, convolutions as energy and value.

They take images of any size of at least two pixels a side, square or not.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from energyad.dxmi.networks import FREQUENCIES, time_features, zero_linear

GROUP_CHANNELS = 8  # of a group of GroupNorm


class TimeUNet(nn.Module):
    """A U-Net conditioned on times in [0, 1]: x [n, c, h, w], times [n, k] -> [n, c, h, w].

    A residual block a resolution on the way down, one in the middle, one a resolution on the way up. Resolution halves
    from each width to the next, rounded up. The output is zero at first.

    Args:
        channels: c.
        widths: Channels at each resolution, full resolution first; each a multiple of 8.
        num_times: k.
        generator: Draws the weights.
    """

    def __init__(
        self, channels: int, widths: tuple[int, ...], *, num_times: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.stem = _conv(channels, widths[0], generator=generator)
        inputs = (widths[0], *widths[:-1])
        self.down = nn.ModuleList(
            _ResidualBlock(width_in, width, num_times, generator)
            for width_in, width in zip(inputs, widths, strict=True)
        )
        self.middle = _ResidualBlock(widths[-1], widths[-1], num_times, generator)
        self.up = nn.ModuleList(
            _ResidualBlock(deeper + width, width, num_times, generator)
            for width, deeper in reversed(list(pairwise(widths)))
        )
        self.norm = _group_norm(widths[0])
        self.head = _conv(widths[0], channels, generator=generator, zero=True)

    def forward(self, x: Float[Tensor, "n c h w"], times: Float[Tensor, "n k"]) -> Float[Tensor, "n c h w"]:
        """Field at x."""
        features = time_features(times)
        x = self.stem(x)
        skips: list[Tensor] = []
        for block in self.down:
            if skips:
                x = functional.avg_pool2d(x, 2, ceil_mode=True)
            x = block(x, features)
            skips.append(x)
        x = self.middle(skips.pop(), features)
        for block in self.up:
            skip = skips.pop()
            x = functional.interpolate(x, size=skip.shape[-2:], mode="nearest")
            x = block(torch.cat([x, skip], dim=1), features)
        return self.head(functional.silu(self.norm(x)))


class ConvEnergy(nn.Module):
    """An unconstrained energy for images: [n, c, h, w] -> [n].

    Args:
        channels: c.
        widths: Channels of the stages; each halves the resolution.
        generator: Draws the weights.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], *, generator: torch.Generator) -> None:
        super().__init__()
        self.stages = _Stages(channels, widths, num_times=0, generator=generator)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """Energies; high = abnormal."""
        return self.stages(x, None)


class ConvValue(nn.Module):
    """A value function for images: x [n, c, h, w], times [n, k] -> [n].

    Args:
        channels: c.
        widths: Channels of the stages; each halves the resolution.
        generator: Draws the weights.
        num_times: k; 1 for t / T alone, 2 with the number of steps.
    """

    def __init__(
        self, channels: int, widths: tuple[int, ...], *, generator: torch.Generator, num_times: int = 1
    ) -> None:
        super().__init__()
        self.stages = _Stages(channels, widths, num_times=num_times, generator=generator)

    def forward(self, x: Float[Tensor, "n c h w"], times: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
        """Values at x; times are t / T and, where there are two, the number of steps / T."""
        return self.stages(x, time_features(times))


class _Stages(nn.Module):
    """Two convolutions a stage, the first of stride 2; the mean over positions; a linear layer of zeros.

    Nothing is normalised, so that the second derivatives that teach a value its gradient are cheap.
    """

    def __init__(
        self, channels: int, widths: tuple[int, ...], *, num_times: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        sizes = list(pairwise((channels, *widths)))
        self.halve = nn.ModuleList(_conv(a, b, generator=generator, stride=2) for a, b in sizes)
        self.refine = nn.ModuleList(_conv(width, width, generator=generator) for width in widths)
        features, device = 2 * len(FREQUENCIES) * num_times, generator.device
        self.times = nn.ModuleList(zero_linear(features, 2 * width, device) for width in widths if num_times)
        self.out = zero_linear(widths[-1], 1, device)

    def forward(
        self, x: Float[Tensor, "n c h w"], features: Float[Tensor, "n f"] | None
    ) -> Float[Tensor, " n"]:
        for stage, (halve, refine) in enumerate(zip(self.halve, self.refine, strict=True)):
            x = halve(x)
            if features is not None:
                x = _modulated(x, self.times[stage](features))
            x = functional.silu(refine(functional.silu(x)))
        return self.out(x.mean(dim=(2, 3))).squeeze(dim=1)


class _ResidualBlock(nn.Module):
    """Twice GroupNorm, SiLU and a convolution; scaled and shifted by the times between them. An identity at first."""

    def __init__(self, width_in: int, width: int, num_times: int, generator: torch.Generator) -> None:
        super().__init__()
        self.norms = nn.ModuleList((_group_norm(width_in), _group_norm(width)))
        self.first = _conv(width_in, width, generator=generator)
        self.times = zero_linear(2 * len(FREQUENCIES) * num_times, 2 * width, generator.device)
        self.second = _conv(width, width, generator=generator, zero=True)
        same = width_in == width
        self.skip = nn.Identity() if same else _conv(width_in, width, generator=generator, kernel=1)

    def forward(
        self, x: Float[Tensor, "n c h w"], features: Float[Tensor, "n f"]
    ) -> Float[Tensor, "n w h w"]:
        y = self.first(functional.silu(self.norms[0](x)))
        y = _modulated(self.norms[1](y), self.times(features))
        return self.skip(x) + self.second(functional.silu(y))


def _modulated(x: Float[Tensor, "n c h w"], by: Float[Tensor, "n cc"]) -> Float[Tensor, "n c h w"]:
    """(1 + scale) x + shift, with a scale and a shift of each channel (FiLM, arXiv 1709.07871)."""
    scale, shift = by.unsqueeze(2).unsqueeze(3).chunk(2, dim=1)
    return torch.addcmul(shift, x, 1 + scale)


def _group_norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(width // GROUP_CHANNELS, width)


def _conv(
    width_in: int,
    width: int,
    *,
    generator: torch.Generator,
    kernel: int = 3,
    stride: int = 1,
    zero: bool = False,
) -> nn.Conv2d:
    """A convolution drawn by He's rule from the generator, or of zeros; its bias is zero."""
    layer = nn.utils.skip_init(
        nn.Conv2d, width_in, width, kernel, stride=stride, padding=kernel // 2, device=generator.device
    )
    bound = 0.0 if zero else (6 / (width_in * kernel**2)) ** 0.5
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
