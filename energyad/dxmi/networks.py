"""Default networks for events that are vectors."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from energyad.dxmi.settings import DxMISettings
from energyad.errors import SettingsError

FREQUENCIES = (0.5, 1.0, 2.0, 4.0)


def mlp(widths: tuple[int, ...], generator: torch.Generator) -> nn.Sequential:
    """Linear layers of these widths with SiLU between them, drawn by He's rule, the last one zero.

    PyTorch's own, narrower rule leaves small networks nearly linear: of 8 Gaussians on a ring the energy then
    learns the ring alone. A zero output starts the game from a flat energy and a value that pulls nowhere.
    """
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths):
        # Drawn here and not by nn.Linear itself, which would use the global generator.
        layer = nn.utils.skip_init(nn.Linear, width_in, width_out, device=generator.device)
        bound = 0.0 if len(layers) == 2 * (len(widths) - 2) else (6 / width_in) ** 0.5
        for weight in (layer.weight, layer.bias):
            nn.init.uniform_(weight, -bound, bound, generator=generator)
        layers += [layer, nn.SiLU()]
    return nn.Sequential(*layers[:-1])


def event_dims(data: Float[Tensor, "n *event"]) -> int:
    """Length of the vectors in `data`. Raises SettingsError for events of other shapes."""
    if data.dim() != 2:
        shape = tuple(data.shape[1:])
        raise SettingsError(f"events of shape {shape}: default networks take vectors; pass your own modules")
    return data.shape[1]


def time_features(times: Float[Tensor, "n k"]) -> Float[Tensor, "n f"]:
    """Sines and cosines of times in [0, 1]; `f` is 8 for each of the k times."""
    phases = torch.cat([math.pi * frequency * times for frequency in FREQUENCIES], dim=1)
    return torch.cat([phases.sin(), phases.cos()], dim=1)


class TimeMLP(nn.Module):
    """A vector field conditioned on `num_times` times in [0, 1]: [n, d], [n, k] -> [n, out]."""

    def __init__(
        self,
        dims: int,
        hidden_widths: tuple[int, ...],
        *,
        out: int,
        num_times: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        inputs = dims + 2 * len(FREQUENCIES) * num_times
        self.layers = mlp((inputs, *hidden_widths, out), generator)

    def forward(self, x: Float[Tensor, "n d"], times: Float[Tensor, "n k"]) -> Float[Tensor, "n out"]:
        """Field at x."""
        return self.layers(torch.cat([x, time_features(times)], dim=1))


class MLPEnergy(nn.Module):
    """An unconstrained energy for vectors: [n, d] -> [n]."""

    def __init__(
        self, dims: int, hidden_widths: tuple[int, ...] = (128, 128, 128), *, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.layers = mlp((dims, *hidden_widths, 1), generator)

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Energies; high = abnormal."""
        return self.layers(x).squeeze(dim=1)


class ValueMLP(nn.Module):
    """Default value function for events that are vectors. Any module of the same call can take its place."""

    def __init__(self, dims: int, hidden_widths: tuple[int, ...], *, generator: torch.Generator) -> None:
        super().__init__()
        self.network = TimeMLP(dims, hidden_widths, out=1, num_times=1, generator=generator)

    def forward(self, x: Float[Tensor, "n d"], times: Float[Tensor, "n 1"]) -> Float[Tensor, " n"]:
        """Values at x; times are t / T."""
        return self.network(x, times).squeeze(dim=1)


def default_value(
    data: Float[Tensor, "n *event"], settings: DxMISettings, generator: torch.Generator
) -> ValueMLP:
    """A new value function for data of vectors, its weights drawn from the generator."""
    return ValueMLP(event_dims(data), settings.hidden_widths, generator=generator)
