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


def zero_linear(inputs: int, outputs: int, device: torch.device) -> nn.Linear:
    """A linear layer of zeros, which draws no random numbers."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, device=device)
    for weight in (layer.weight, layer.bias):
        nn.init.zeros_(weight)
    return layer


class TimeMLP(nn.Module):
    """A vector field conditioned on times in [0, 1]: x [n, d], times [n, k] -> [n, out].

    Args:
        dims: d.
        hidden_widths: Widths of the hidden layers.
        out: Width of the output.
        num_times: k.
        generator: Draws the weights.
        diagonal_skip: Whether gains(times) * x is added, with a gain for each axis and of each time. A Gaussian of any
            axis-aligned covariance then needs nothing of the hidden layers. `out` is `dims` then.
    """

    def __init__(
        self,
        dims: int,
        hidden_widths: tuple[int, ...],
        *,
        out: int,
        num_times: int,
        generator: torch.Generator,
        diagonal_skip: bool = False,
    ) -> None:
        super().__init__()
        num_features = 2 * len(FREQUENCIES) * num_times
        self.layers = mlp((dims + num_features, *hidden_widths, out), generator)
        self.gains = zero_linear(num_features, dims, generator.device) if diagonal_skip else None

    def forward(self, x: Float[Tensor, "n d"], times: Float[Tensor, "n k"]) -> Float[Tensor, "n out"]:
        """Field at x."""
        features = time_features(times)
        field = self.layers(torch.cat([x, features], dim=1))
        return field if self.gains is None else field + self.gains(features) * x


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
    """Default value function for events that are vectors. Any module of the same call can take its place.

    Args:
        dims: Length of the vectors.
        hidden_widths: Widths of the hidden layers.
        generator: Draws the weights.
        diagonal_skip: Whether mean(gains(times) * x^2) / 2 is added, with a gain for each axis and of each time: the
            value of a Gaussian target of any axis-aligned covariance.
        num_times: 1 for t / T alone, 2 with the number of steps.
    """

    def __init__(
        self,
        dims: int,
        hidden_widths: tuple[int, ...],
        *,
        generator: torch.Generator,
        diagonal_skip: bool = False,
        num_times: int = 1,
    ) -> None:
        super().__init__()
        self.network = TimeMLP(dims, hidden_widths, out=1, num_times=num_times, generator=generator)
        num_features = 2 * len(FREQUENCIES) * num_times
        self.gains = zero_linear(num_features, dims, generator.device) if diagonal_skip else None

    def forward(self, x: Float[Tensor, "n d"], times: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
        """Values at x; times are t / T and, where there are two, the number of steps / T."""
        values = self.network(x, times).squeeze(dim=1)
        if self.gains is None:
            return values
        return values + 0.5 * (self.gains(time_features(times)) * x.square()).mean(dim=1)


class EnergyAsValue(nn.Module):
    """An energy that is its own value function at every time, as in the paper's image experiments.

    The value's updates then train the energy too.
    """

    def __init__(self, energy: nn.Module) -> None:
        super().__init__()
        self.energy = energy

    def forward(self, x: Float[Tensor, "n *event"], times: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
        """Energies of x, whatever the time."""
        return self.energy(x)


def default_value(
    data: Float[Tensor, "n *event"], settings: DxMISettings, generator: torch.Generator
) -> ValueMLP:
    """A new value function for data of vectors, its weights drawn from the generator."""
    return ValueMLP(
        event_dims(data),
        settings.hidden_widths,
        generator=generator,
        diagonal_skip=settings.diagonal_skip,
        num_times=1 if settings.trained_steps is None else 2,
    )
